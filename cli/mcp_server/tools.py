"""Lists the tools: what each takes, and the command line that it stands for.

A tool does nothing of its own. It becomes the words of one command, asked for its answer in JSON, so that a client is
told what a shell would be told. The fields of a class are what its tool takes; its docstring is what a client reads.
"""

import inspect
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from backprop.scheduler.errors import BadCommand

ANSWER_S: Final = 120.0
"""How long a command may take. To copy a project's code may take most of it."""
WAIT_S, LONGEST_WAIT_S = 45, 240
"""Many clients give a call 60 s."""
LISTED, MOST_LISTED = 20, 50
LINES, MOST_LINES = 20, 200
POINTS, MOST_POINTS = 12, 200

Text = Annotated[str, Meta(min_length=1)]
Run = Annotated[str, Meta(min_length=1, description="Its id, a unique beginning of it, or its name.")]
Runs = Annotated[list[Text], Meta(min_length=1, description="Ids, names or groups; `@` is the newest.")]


class Tool(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a client asks for. `changes`: the queue, so that a client may ask its user first."""

    changes: ClassVar[bool] = False

    @property
    def limit_s(self) -> float:
        """How long the command may take."""
        return ANSWER_S

    @property
    def directory(self) -> str | None:
        """Where the command is typed; None: where the server was started."""
        return None

    def words(self) -> list[str]:
        """Return the command line. Raises BadCommand."""
        raise NotImplementedError


class SubmitTool(Tool):
    """Queue a script as a run and return its id at once; a worker starts it. With a key, the same call made again
    returns the run that is there: ask again whenever an answer got lost."""

    changes = True
    dry: ClassVar[bool] = False

    command: Annotated[
        list[str], Meta(description='The script or program and its arguments: ["train.py", "--lr", "3e-4"].')
    ]
    key: Annotated[
        Text | None, Meta(description="Your name for this submission, at most 128 characters.")
    ] = None
    cwd: Annotated[Text | None, Meta(description="Directory to run in, absolute. Default: the server's.")] = (
        None
    )
    name: Annotated[Text | None, Meta(description="Display name.")] = None
    group: Annotated[Text | None, Meta(description="Group that it belongs to, as for a sweep.")] = None
    minutes: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Timebox of a segment. Default: 10.")
    ] = None
    env: Annotated[dict[str, str], Meta(description="Variables of its environment.")] = {}
    options: Annotated[
        list[str],
        Meta(description='More options of `backprop run`: ["--grid", "lr=1,2", "--retries", "2"].'),
    ] = []

    @property
    def directory(self) -> str | None:
        return self.cwd

    def words(self) -> list[str]:
        if "--" in self.options:
            raise BadCommand("options may not have --; what would follow it belongs in command")
        given = {"key": self.key, "name": self.name, "group": self.group}
        return [
            "run",
            "--brief",
            *(["--dry-run"] if self.dry else []),
            *(f"--{name}={value}" for name, value in given.items() if value is not None),
            *([f"--max-run-minutes={self.minutes:g}"] if self.minutes is not None else []),
            *(f"--env={name}={value}" for name, value in self.env.items()),
            *self.options,
            "--",
            *self.command,
        ]


class PreviewTool(SubmitTool):
    """Say what `submit` would queue, what is wrong with it and how it would resume; change nothing."""

    changes = False
    dry = True


class WaitTool(Tool):
    """Wait until runs have ended and say how; `exit` 124 says that some still go on: call it again. Costs nothing, so
    never poll. 0 completed, 20 failed, 21 timeboxed, 22 stopped, 23 held."""

    runs: Runs
    first: Annotated[bool, Meta(description="Until the first of them has ended.")] = False
    seconds: Annotated[
        int, Meta(ge=0, le=LONGEST_WAIT_S, description="Answer after so long at the latest.")
    ] = WAIT_S

    @property
    def limit_s(self) -> float:
        return self.seconds + ANSWER_S

    def words(self) -> list[str]:
        some = ["--any"] if self.first else []
        return ["wait", "--brief", *some, f"--timeout={self.seconds}", "--", *self.runs]


class ShowTool(Tool):
    """Show a run: its state and why, exit code, fault, steps, loss, last checkpoint."""

    run: Run

    def words(self) -> list[str]:
        return ["show", "--brief", "--", self.run]


class ListTool(Tool):
    """List runs, the newest first."""

    state: Annotated[Text | None, Meta(description="One or more, with commas: queued, running, failed …")] = (
        None
    )
    name: Annotated[Text | None, Meta(description="Pattern of the name: * ? [abc].")] = None
    group: Text | None = None
    since: Annotated[Text | None, Meta(description="Queued since then: 2h, 22:00, 2026-11-20T22:00.")] = None
    sort: Annotated[Text | None, Meta(description="age, name, state, step, loss, ended, turn …")] = None
    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = LISTED

    def words(self) -> list[str]:
        filters = {
            "state": self.state,
            "name": self.name,
            "group": self.group,
            "since": self.since,
            "sort": self.sort,
        }
        given = [f"--{name}={value}" for name, value in filters.items() if value is not None]
        return ["list", "--brief", f"--limit={self.limit}", *given]


class LogsTool(Tool):
    """Read the last lines that a run has printed, at most 8 KB."""

    run: Run
    lines: Annotated[int, Meta(ge=1, le=MOST_LINES)] = LINES
    segment: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="Default: the newest.")] = None

    def words(self) -> list[str]:
        of = [f"--segment={self.segment}"] if self.segment is not None else []
        return ["logs", "--json", f"--lines={self.lines}", *of, "--", self.run]


class MetricsTool(Tool):
    """Read a metric of a run: first, last, least, greatest value and some points of its curve; `known` has the names of
    all."""

    run: Run
    metric: Text = "loss"
    points: Annotated[int, Meta(ge=0, le=MOST_POINTS)] = POINTS

    def words(self) -> list[str]:
        return ["plot", "--json", f"--metric={self.metric}", f"--points={self.points}", "--", self.run]


class CompareTool(Tool):
    """Say in what two runs differ: code, arguments, environment, packages, settings, last metrics. With `metric`, of
    more runs, or of a group: parameters and first, last, least and greatest value of each."""

    runs: Runs
    metric: Annotated[Text | None, Meta(description="Default for more than two runs: loss.")] = None

    def words(self) -> list[str]:
        if len(self.runs) == 2 and self.metric is None:
            return ["diff", "--brief", "--", *self.runs]
        return ["plot", "--json", f"--metric={self.metric or 'loss'}", "--points=0", "--", *self.runs]


class StopTool(Tool):
    """Stop runs; live ones save first and keep their checkpoints, and `resume` continues them."""

    changes = True

    runs: Runs
    preview: Annotated[bool, Meta(description="Only say which would be stopped.")] = False

    def words(self) -> list[str]:
        return ["stop", "--brief", *(["--dry-run"] if self.preview else []), "--", *self.runs]


class ResumeTool(Tool):
    """Queue ended or held runs again, from their last checkpoints."""

    changes = True

    runs: Runs
    minutes: Annotated[Annotated[float, Meta(gt=0)] | None, Meta(description="Another timebox.")] = None
    as_new: Annotated[bool, Meta(description="As new runs; the old ones stay as they are.")] = False
    preview: Annotated[bool, Meta(description="Only say which would be queued.")] = False

    def words(self) -> list[str]:
        return [
            "resume",
            "--brief",
            *([f"--max-run-minutes={self.minutes:g}"] if self.minutes is not None else []),
            *(["--as-new"] if self.as_new else []),
            *(["--dry-run"] if self.preview else []),
            "--",
            *self.runs,
        ]


class WhyTool(Tool):
    """Say why a run waits: no worker, its turn, each rule that fails."""

    run: Run

    def words(self) -> list[str]:
        return ["why", "--brief", "--", self.run]


class ReportTool(Tool):
    """Sum up the last hours: counts by state, what needs the user, the best runs, time trained and idle."""

    since: Annotated[Text, Meta(description="From then on: 10h, 22:00, 2026-11-20T22:00, last.")] = "10h"
    group: Text | None = None

    def words(self) -> list[str]:
        # Without --dry-run, the user's own `--since last` would begin here.
        of = [f"--group={self.group}"] if self.group is not None else []
        return ["report", "--brief", "--dry-run", f"--since={self.since}", *of]


TOOLS: Final[dict[str, type[Tool]]] = {
    "submit": SubmitTool,
    "preview": PreviewTool,
    "wait": WaitTool,
    "show": ShowTool,
    "list": ListTool,
    "logs": LogsTool,
    "metrics": MetricsTool,
    "compare": CompareTool,
    "stop": StopTool,
    "resume": ResumeTool,
    "why": WhyTool,
    "report": ReportTool,
}


def description(tool: type[Tool]) -> str:
    """Return what a client reads of it, on one line."""
    return " ".join((inspect.getdoc(tool) or "").split())


def input_schema(tool: type[Tool]) -> dict[str, Any]:
    """Return the JSON Schema of what it takes, as short as may be: a client hands all of them to its model. That null
    stands for what is left out is taken, and not said."""
    _, components = msgspec.json.schema_components([tool])
    schema: dict[str, Any] = components[tool.__name__]
    fields: dict[str, Any] = {name: _plain(value) for name, value in schema["properties"].items()}
    return {name: schema[name] for name in ("type", "required", "additionalProperties")} | {
        "properties": fields
    }


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    if field.get("default", True) or field["default"] is False:
        return field
    (kind, *_) = field.get("anyOf", [field])
    return {name: value for name, value in {**kind, **field}.items() if name not in ("anyOf", "default")}
