"""What lies over the frame for a while: a text, the output of a run, a question."""

from typing import ClassVar, Final

import textual.app
import textual.binding
import textual.containers
import textual.events
import textual.screen
import textual.widget
import textual.widgets
from rich.ansi import AnsiDecoder
from rich.text import Text

from backprop.cli.live.keys.jobs import Jobs, answer_of
from backprop.cli.live.keys.log_tail import LogTail
from backprop.cli.live.keys.words import BACK, key_line
from backprop.cli.live.screen import RunLine
from backprop.cli.render.glyphs import Glyphs
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.home.layout import Home

LOG_S: Final = 0.5
LOG_LINES: Final = 5000
STYLE: Final = """
    .title { height: 1; text-style: bold; text-wrap: nowrap; text-overflow: ellipsis; }
    .keys { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    .below { height: auto; max-height: 2; }
    VerticalScroll, RichLog { height: 1fr; background: ansi_default; scrollbar-size: 1 1; }
"""


def keys_text(keys: tuple[tuple[str, str], ...], glyphs: Glyphs) -> Text:
    """Return what keys do as a line."""
    line = Text()
    for at, (key, does) in enumerate(key_line(keys, glyphs)):
        line.append("  " if at else "").append(key, "bold").append(f" {does}", "dim")
    return line


class Pane(textual.screen.Screen[None]):
    """A title, something to scroll, and what its keys are."""

    CSS = STYLE
    BINDINGS: ClassVar[list[textual.binding.BindingType]] = [
        textual.binding.Binding("q,escape", "leave"),
        textual.binding.Binding("up,k", "by(-1)", priority=True),
        textual.binding.Binding("down,j", "by(1)", priority=True),
    ]

    def __init__(self, title: str, glyphs: Glyphs, inside: textual.widget.Widget) -> None:
        super().__init__()
        self._title, self._glyphs, self._inside = title, glyphs, inside
        self._below = textual.widgets.Static(classes="below")

    def compose(self) -> textual.app.ComposeResult:
        yield textual.widgets.Static(Text(self._title), classes="title")
        yield self._inside
        yield self._below
        yield textual.widgets.Static(keys_text(BACK, self._glyphs), classes="keys")

    def on_mount(self) -> None:
        self._inside.focus()
        self._begin()

    def action_leave(self) -> None:
        self._end()
        self.dismiss()

    def action_by(self, lines: int) -> None:
        self._inside.scroll_relative(y=lines, animate=False)

    def _begin(self) -> None:
        """Do what is to be done once it is shown."""

    def _end(self) -> None:
        """Do what is to be done when it is left."""


class TextPane(Pane):
    """A text that can be scrolled."""

    def __init__(self, title: str, text: str, glyphs: Glyphs) -> None:
        self._text = textual.widgets.Static(Text(text))
        super().__init__(title, glyphs, textual.containers.VerticalScroll(self._text))

    def show(self, text: str) -> None:
        """Show another text."""
        self._text.update(Text(text))


class LogPane(Pane):
    """The output of a run as it grows. It stays where its reader has scrolled to."""

    def __init__(self, home: Home, run: RunLine, jobs: Jobs, glyphs: Glyphs) -> None:
        self._log = textual.widgets.RichLog(max_lines=LOG_LINES, wrap=True, min_width=0)
        super().__init__(glyphs.text(f"output of {safe(run.name)} ({run.id})"), glyphs, self._log)
        self._tail = LogTail(home, run.id, run.segment)
        self._jobs, self._decoder = jobs, AnsiDecoder()
        self._reads = False

    def _begin(self) -> None:
        self.set_interval(LOG_S, self._read)
        self._read()

    def _end(self) -> None:
        self._jobs.submit(self._tail.close)

    def _read(self) -> None:
        """Have what has come since read, unless that is under way."""
        if self._reads:
            return
        self._reads = True
        asked = self._jobs.submit(self._tail.read)

        async def answer() -> None:
            try:
                lines, rest = await answer_of(asked)
            except OSError as error:
                self._below.update(Text(f"it cannot be read: {error.strerror}", style="yellow"))
            else:
                self._show(lines, rest)
            self._reads = False

        self.run_worker(answer())

    def _show(self, lines: list[str], rest: str) -> None:
        at_end = self._log.is_vertical_scroll_end
        for line in lines:
            self._log.write(self._decoder.decode_line(self._glyphs.text(line)), scroll_end=at_end)
        self._below.update(Text.from_ansi(rest) if rest else "")
        self._below.display = bool(rest)


class Question(textual.screen.ModalScreen[bool]):
    """Asks for one key, in the lowest lines of the screen: y is yes, all others are no."""

    CSS = """
    Question { align: left bottom; }
    Question Static { width: 1fr; height: auto; max-height: 3; text-style: bold; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._answered = False

    def compose(self) -> textual.app.ComposeResult:
        yield textual.widgets.Static(Text(self._text, style="bold yellow"))

    def on_key(self, event: textual.events.Key) -> None:
        event.stop()
        if not self._answered:
            self._answered = True
            self.dismiss(event.key == "y")
