"""The live screen with keys: draws what `backprop top` draws, marks a run, and does what a key asks for.

Nothing here waits: the queue and the logs are read by jobs in threads, and what they return is drawn when it comes.
"""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import ClassVar, Final

import textual.app
import textual.binding
import textual.containers
import textual.widgets

from backprop.cli.live.keys.desk import Deed, Desk
from backprop.cli.live.keys.jobs import Jobs, answer_of
from backprop.cli.live.keys.live import Live
from backprop.cli.live.keys.panes import LogPane, Question, TextPane, keys_text
from backprop.cli.live.keys.words import KEYS, help_text, one_line, pattern
from backprop.cli.live.screen import RunLine
from backprop.cli.render.glyphs import Glyphs
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.errors import BackpropError
from backprop.scheduler.home.layout import Home

PAGE: Final = 10
FAR: Final = 1_000_000
ENDED: Final = 128 + signal.SIGTERM
ACTIONS: Final = (
    ("ctrl+c,ctrl+q", "quit"),
    ("q", "leave"),
    ("up,k", "choose(-1)"),
    ("down,j", "choose(1)"),
    ("pageup", f"choose(-{PAGE})"),
    ("pagedown,space", f"choose({PAGE})"),
    ("home,g", f"choose(-{FAR})"),
    ("end,G", f"choose({FAR})"),
    ("enter,l", "log"),
    ("w", "why"),
    ("s", "suspend"),
    ("x", "stop"),
    ("f", "first"),
    ("slash", "filter"),
    ("escape", "all_runs"),
    ("question_mark", "help"),
)
"""What keys do. The app sees each key before any widget does, so that none is taken for what it meant a key ago."""
Task = Future[str]


class KeysApp(textual.app.App[None]):
    """`backprop top` with keys. `refresh_s`: how often the queue is read. `pending`: requests without an answer, each
    with what it is."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    CSS = """
    Screen { layout: vertical; }
    #keys { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #asks { height: 1; display: none; }
    #asks Static { width: auto; }
    Input { width: 1fr; height: 1; border: none; padding: 0; }
    """
    BINDINGS: ClassVar[list[textual.binding.BindingType]] = [
        textual.binding.Binding(keys, action, priority=True) for keys, action in ACTIONS
    ]

    def __init__(self, home: Home, desk: Desk, glyphs: Glyphs, colour: bool, refresh_s: float) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self._home, self._desk, self._glyphs = home, desk, glyphs
        self._jobs, self._logs = Jobs("queue"), Jobs("logs")
        self._live = Live(desk, self._jobs, glyphs, colour, refresh_s)
        self._input = textual.widgets.Input(select_on_focus=False)
        self._asks = textual.containers.Horizontal(
            textual.widgets.Static("names like: "), self._input, id="asks"
        )
        self._types = False
        self.pending: list[tuple[str, Task]] = []

    def compose(self) -> textual.app.ComposeResult:
        yield self._live
        yield self._asks
        yield textual.widgets.Static(keys_text(KEYS, self._glyphs), id="keys")

    def on_mount(self) -> None:
        if not self.is_headless:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit, None, ENDED)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Return whether a key has its meaning now: not in a pane or a question, nor while a name is typed."""
        if action == "quit":
            return True
        return len(self.screen_stack) == 1 and (action == "all_runs" if self._types else True)

    def close(self, patience_s: float) -> list[str]:
        """Let go of everything, once what was asked for is done, or so much time is over. Return in words what became
        of requests that had no answer."""
        self._jobs.submit(self._desk.close)
        self._jobs.close(patience_s)
        return [_outcome(what, task) for what, task in self.pending]

    def action_leave(self) -> None:
        self.exit()

    def action_choose(self, by: int) -> None:
        self._live.choose(by)

    def action_log(self) -> None:
        if (run := self._live.run) is not None:
            self.push_screen(LogPane(self._home, run, self._logs, self._glyphs))

    def action_why(self) -> None:
        run = self._live.run
        if run is None:
            return
        pane = TextPane(
            f"why is {self._shown(run)} where it is?", self._glyphs.text("asking …"), self._glyphs
        )
        self.push_screen(pane)
        asked = self._jobs.submit(lambda: self._desk.why(run.id))

        async def answer() -> None:
            try:
                lines = await answer_of(asked)
                pane.show(self._glyphs.text("\n".join(lines)))
            except (BackpropError, OSError) as error:
                pane.show(one_line(error))

        self.run_worker(answer())

    def action_suspend(self) -> None:
        if (run := self._live.run) is not None:
            self._do(Deed.SUSPEND, run)

    def action_first(self) -> None:
        if (run := self._live.run) is not None:
            self._do(Deed.FIRST, run)

    def action_stop(self) -> None:
        run = self._live.run
        if run is not None:
            text = f"stop {self._shown(run)}? y stops it; any other key leaves it"
            self.push_screen(Question(text), lambda yes: self._do(Deed.STOP, run) if yes else None)

    def action_help(self) -> None:
        self.push_screen(TextPane("keys of backprop top", help_text(self._glyphs), self._glyphs))

    def action_filter(self) -> None:
        self._types = True
        self._asks.display = True
        self.set_focus(self._input)

    def action_all_runs(self) -> None:
        """Take the filter back, typed or in force."""
        self._input.value = ""
        self._filter("")

    def on_input_submitted(self, event: textual.widgets.Input.Submitted) -> None:
        self._filter(event.value)

    def _filter(self, typed: str) -> None:
        self._types = False
        self.set_focus(None)
        self._asks.display = False
        self._live.filter(pattern(typed))

    def _shown(self, run: RunLine) -> str:
        return self._glyphs.text(f"{safe(run.name)} ({run.id})")

    def _do(self, deed: Deed, run: RunLine) -> None:
        what = f"{deed} {self._shown(run)}"
        asked = self._jobs.submit(lambda: self._desk.do(deed, run.id))
        self.pending.append((what, asked))
        self._live.say(f"{what} …")

        async def answer() -> None:
            try:
                self._live.say(await answer_of(asked))
            except (BackpropError, OSError) as error:
                self._live.say(one_line(error), "bold red")
            self.pending.remove((what, asked))
            self._live.look()

        self.run_worker(answer())


def run_with_keys(make: Callable[[], KeysApp], patience_s: float) -> tuple[int, list[str]]:
    """Show the screen until its user quits. Return the exit code, and what became of requests that were under way."""
    # A stop in the middle of a transaction would lock everybody else out; in this mode Ctrl-Z is a key like others.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    try:
        app = make()
        app.run(mouse=False)
        return app.return_code or 0, app.close(patience_s)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(what: str, task: Task) -> str:
    if not task.done():
        return f"{what}: the database has not answered; look whether it was done: backprop list"
    error = task.exception()
    return task.result() if error is None else f"{what}: {error}"
