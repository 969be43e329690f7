"""Answers in JSON: what a verb has done, and why any command was refused, as one line on stdout.

The one mechanism for all commands. With --json a verb's text goes into `message`, the runs that it names into `runs`,
and those that it leaves as they are into `refused`. A refusal of any command that was asked for JSON becomes `error`;
its line stays on stderr, and the exit code is the same. Documented in docs/json.md.
"""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database

OF_CODE: Final = {2: "usage", 6: "bad-command", 10: "illegal-move", 26: "output-lost"}
"""What a verb's exit code is called where nothing was raised."""
BRIEF_BYTES: Final = 1024
BRIEF_RUNS: Final = 10
BRIEF_TEXT, BRIEF_NOTE, NAME_LIMIT, KEY_LIMIT = 140, 80, 64, 132
"""With --brief: runs that are listed, and bytes of a text, a note, a name and a key in JSON."""
_HELD_OUT: Final = re.compile(
    r"(?:^|[_/ .-])(?:val|valid|validation|eval|test|dev)(?:[_/ .-]|$)", re.IGNORECASE
)


class Named(Protocol):
    """What has to be known of a run."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str | None: ...


class JsonAnswer:
    """What one command line has to say. `asked`: in JSON; `brief`: in short. `database`: where the runs' states are
    read in the end. `verb` None: the command prints its own JSON, if any. `more`: fields of the verb's own."""

    def __init__(self, words: Sequence[str]) -> None:
        before_script = words[: words.index("--")] if "--" in words else words
        self.brief = "--brief" in before_script
        self.asked = self.brief or "--json" in before_script
        self.verb: str | None = None
        self.dry_run = False
        self.database: Database | None = None
        self.more: dict[str, Any] = {}
        self._said = io.StringIO()
        self._runs: dict[str, dict[str, Any]] = {}
        self._refused: list[dict[str, str]] = []
        self._notes: list[str] = []
        self.error: dict[str, Any] | None = None

    @property
    def speaks(self) -> bool:
        """Whether this answer stands for a verb's text."""
        return self.verb is not None

    def begin(self, ctx: click.Context) -> None:
        """Take what the verb prints from now on."""
        if self.speaks:
            return
        self.verb = ctx.command.name
        ctx.with_resource(contextlib.redirect_stdout(self._said))

    def touch(self, runs: Sequence[Named]) -> None:
        """Note that the verb applied to these runs."""
        for run in runs:
            self._runs.setdefault(run.id, {"id": run.id, "name": run.name, "state": None})

    def add(self, run_id: str, **more: Any) -> None:
        """Note more about a run that was touched."""
        self._runs[run_id] |= more

    def refuse(self, run_id: str, why: str) -> None:
        """Note that a run was left as it is."""
        self._refused.append({"id": run_id, "why": why})

    def note(self, line: str) -> None:
        """Note what was said on stderr and is no refusal."""
        self._notes.append(line)

    def fail(self, code: str, exit_code: int, message: str) -> None:
        """Note why the command was refused."""
        _, _, last = message.rpartition("; ")
        suggestion = last if last != message else None
        self.error = {"code": code, "exit": exit_code, "message": message, "suggestion": suggestion}

    def text(self, exit_code: int) -> str | None:
        """Return the JSON to print, None where there is nothing to add to what the command has printed."""
        if not self.asked or not (self.speaks or self.error):
            return None
        import json

        if self.error is None and exit_code in OF_CODE:
            why = self._refused[0]["why"] if self._refused else self._said.getvalue().strip()
            self.fail(OF_CODE[exit_code], exit_code, why)
        if not self.speaks:
            return json.dumps({"error": self.error})
        self._read_states()
        view: dict[str, Any] = {
            "verb": self.verb,
            "exit": exit_code,
            "dry_run": self.dry_run,
            "message": self._said.getvalue().strip() or None,
            "runs": list(self._runs.values()),
            "refused": self._refused,
            "notes": self._notes,
            "error": self.error,
        }
        return json.dumps((_brief_verb(view) if self.brief else view) | self.more)

    def _read_states(self) -> None:
        """Fill in the states as they are now; that of a removed run stays null."""
        from backprop.scheduler.errors import BackpropError
        from backprop.scheduler.store.reads import outcomes

        if self.database is not None and self._runs:
            with contextlib.suppress(BackpropError):
                for run_id, state in outcomes.states(self.database, list(self._runs)).items():
                    self._runs[run_id]["state"] = state.value


_current: list[JsonAnswer] = [JsonAnswer(())]


def start(words: Sequence[str]) -> JsonAnswer:
    """Make the answer of a command line."""
    _current[0] = JsonAnswer(words)
    return _current[0]


def current() -> JsonAnswer:
    """Return the answer of this command line."""
    return _current[0]


def begin(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    """Answer for the verb from now on: the callback of its --json and --brief."""
    if given and not ctx.resilient_parsing:
        current().begin(ctx)


def refuse(run_id: str, why: str) -> None:
    """Say on stderr, and in the answer, why a run was left as it is. `why`: a sentence that names it."""
    current().refuse(run_id, why)
    click.echo(f"backprop: {why}", err=True)


def _brief_verb(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verb's answer with the first runs alone and its texts cut: at most 1 KB where it is about one run."""
    runs, refused, error = view["runs"], view["refused"], view["error"]
    if error is not None:
        texts = {"message": BRIEF_TEXT, "suggestion": BRIEF_NOTE}
        error = error | {name: short(error[name], most) for name, most in texts.items()}
    return {
        **view,
        "message": short(view["message"], BRIEF_TEXT),
        "runs": [run | {"name": short(run["name"], NAME_LIMIT)} for run in runs[:BRIEF_RUNS]],
        "refused": [one | {"why": short(one["why"], BRIEF_TEXT)} for one in refused[:BRIEF_RUNS]],
        "more": len(runs[BRIEF_RUNS:]) + len(refused[BRIEF_RUNS:]),
        "notes": [short(note, BRIEF_NOTE) for note in view["notes"][:2]],
        "error": error,
    }


def brief_run(view: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return at most 1 KB of a run as in `list --json`: its texts are cut, and a path is whole or null.

    `metrics`: the last value of each.
    """
    whole = {name: view[name] for name in ("id", "state", "exit_code", "fault", "segment_count")}
    whole |= {name: view[name] for name in ("last_step", "last_loss", "step_total", "started_at", "ended_at")}
    texts = {"name": NAME_LIMIT, "reason": BRIEF_TEXT, "key": KEY_LIMIT, "group": NAME_LIMIT}
    path = view["last_checkpoint"]
    whole |= {name: short(view[name], most) for name, most in texts.items()}
    whole["last_checkpoint"] = path if path is not None and short(path, 180) == path else None
    return with_metrics(whole, metrics)


def with_metrics(whole: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return a brief answer with as many metrics as there is room for, those of held-out data first."""
    import json

    told: dict[str, float] = {}
    room = BRIEF_BYTES - len(json.dumps({**whole, "metrics": {}})) - len("\n")
    for name in sorted(metrics, key=lambda name: (_HELD_OUT.search(name) is None, name)):
        room -= len(json.dumps({name: metrics[name]}))
        if room >= 0:
            told[name] = metrics[name]
    return {**whole, "metrics": told}


def short(text: str | None, most: int) -> str | None:
    """Return the beginning of a text that takes at most so many bytes as JSON."""
    import json

    if text is None or len(json.dumps(text)) <= most + 2:
        return text
    while len(json.dumps(text)) > most - 1:
        text = text[: len(text) - max(1, (len(json.dumps(text)) - most) // 12)]
    return f"{text}..."
