"""The frame of `backprop top` as a widget: read anew again and again, with a chosen run and a line of what happened."""

import time
from typing import Final

import textual.app
import textual.containers
import textual.widgets
from rich.text import Text

from backprop.cli.live.keys.desk import Desk
from backprop.cli.live.keys.jobs import Jobs, answer_of
from backprop.cli.live.keys.words import one_line
from backprop.cli.live.live_screen import MOST_QUEUED
from backprop.cli.live.screen import RunLine, Screen, draw
from backprop.cli.render.glyphs import Glyphs
from backprop.scheduler.errors import BackpropError

TICK_S: Final = 1.0
LATE_S: Final = 5.0
SAID_S: Final = 20.0
NEAR_THE_END: Final = 10


class Frame(textual.widgets.Static):
    """What is drawn, in the size that there is."""

    def __init__(self, glyphs: Glyphs, colour: bool) -> None:
        super().__init__()
        self._glyphs, self._colour = glyphs, colour
        self.picture: Screen | None = None
        self.chosen: str | None = None

    def render(self) -> Text:
        if self.picture is None:
            return Text(self._glyphs.text("reading the queue …"))
        width, height = self.size
        lines = draw(self.picture, width, max(height, 4), self._glyphs, self._colour, self.chosen or "")
        return Text("\n").join(map(Text.from_ansi, lines))


class Live(textual.containers.Vertical):
    """The frame, and below it what happened. `desk`: what reads, in `jobs`. `refresh_s`: how often that is done."""

    DEFAULT_CSS = """
    Live { height: 1fr; }
    Live Frame { height: 1fr; text-wrap: nowrap; }
    Live .said { height: auto; max-height: 3; }
    """

    def __init__(self, desk: Desk, jobs: Jobs, glyphs: Glyphs, colour: bool, refresh_s: float) -> None:
        super().__init__()
        self._desk, self._jobs, self._glyphs, self._refresh_s = desk, jobs, glyphs, refresh_s
        self._frame = Frame(glyphs, colour)
        self._line = textual.widgets.Static(classes="said")
        self._line.display = False
        self._name: str | None = None
        self._looks_since_s: float | None = None
        self._looked_s = 0.0
        self._said: tuple[float, str, str] = (0.0, "", "")
        self._trouble = ""

    def compose(self) -> textual.app.ComposeResult:
        yield self._frame
        yield self._line

    def on_mount(self) -> None:
        self.set_interval(TICK_S, self._tick)
        self.look()

    @property
    def run(self) -> RunLine | None:
        """Return the chosen run."""
        return next((run for run in self._runs() if run.id == self._frame.chosen), None)

    def choose(self, by: int) -> None:
        """Choose the run so many lines further down, or up."""
        ids = [run.id for run in self._runs()]
        if ids:
            at = ids.index(self._frame.chosen) if self._frame.chosen in ids else 0
            self._choose(ids[min(max(at + by, 0), len(ids) - 1)])
            if at + by > len(ids) - NEAR_THE_END:
                self.look()

    def filter(self, name: str | None) -> None:
        """Show runs whose names are like this alone; all of them for None."""
        self._name = name
        self.say("")
        self.look()

    def say(self, words: str, style: str = "bold") -> None:
        """Show what happened."""
        self._said = (time.monotonic(), words, style)
        self._tell()

    def look(self) -> None:
        """Have the queue read, unless that is under way."""
        if self._looks_since_s is not None:
            return
        self._looks_since_s = self._looked_s = time.monotonic()
        at = next((place for place, run in enumerate(self._runs()) if run.id == self._frame.chosen), 0)
        name, most = self._name, MOST_QUEUED + at
        asked = self._jobs.submit(lambda: self._desk.look(name, most))

        async def answer() -> None:
            try:
                picture, news = await answer_of(asked)
            except (BackpropError, OSError) as error:
                self._trouble = one_line(error)
            else:
                self._trouble = ""
                self._draw(picture)
                for words in news:
                    self.say(words)
            self._looks_since_s = None
            if name != self._name:
                self.look()
            self._tell()

        self.run_worker(answer())

    def _runs(self) -> list[RunLine]:
        return list(self._frame.picture.runs) if self._frame.picture is not None else []

    def _choose(self, run_id: str | None) -> None:
        self._frame.chosen = run_id
        self._frame.refresh()

    def _tick(self) -> None:
        if time.monotonic() - self._looked_s >= self._refresh_s:
            self.look()
        self._tell()

    def _draw(self, picture: Screen) -> None:
        """Draw it; where the chosen run is gone, choose the one in its place."""
        before = [run.id for run in self._runs()]
        self._frame.picture = picture
        ids = [run.id for run in picture.runs]
        chosen = self._frame.chosen
        if chosen not in ids:
            at = before.index(chosen) if chosen in before else 0
            chosen = ids[min(at, len(ids) - 1)] if ids else None
        self._choose(chosen)

    def _tell(self) -> None:
        """Show what happened last and what is wrong; where there is neither, which runs are shown."""
        now_s = time.monotonic()
        at_s, words, style = self._said
        said = [words] if words and now_s < at_s + SAID_S else []
        waits_s = now_s - self._looks_since_s if self._looks_since_s is not None else 0.0
        late = f"the database has not answered for {waits_s:.0f} s; this is how it was"
        trouble = self._trouble or (late if waits_s > LATE_S else "")
        if not said:
            style = "yellow" if trouble else "dim"
        said += [trouble] if trouble else []
        if not said and self._name is not None:
            said = [f"names like {self._name}; all again: Esc"]
        self._line.update(Text(self._glyphs.text("\n".join(said)), style=style))
        self._line.display = bool(said)
