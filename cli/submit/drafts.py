"""The runs of one command before they have ids: by template from a sweep, or from the lines of a file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from backprop.cli.submit.batch_file import BatchLine, read_lines
from backprop.cli.submit.queue_options import RequestedPosition, requested_position
from backprop.cli.submit.submission import (
    NAME_CHARACTERS,
    NAME_LIMIT,
    SCRIPT_SUFFIXES,
    Submission,
    checked,
    env_values,
    environment_of_shell,
    refuse_undecodable,
)
from backprop.cli.submit.sweep import SweepSpec, Template, read_array, read_grid, read_params
from backprop.scheduler.errors import BackpropError, BadCommand
from backprop.scheduler.spec import RunSpec

if TYPE_CHECKING:
    from backprop.worker.environment.code_snapshot import Code

Make = Callable[[Sequence[str], Mapping[str, Any]], Submission]
"""From SCRIPT with its arguments, and the options of `run`, to a run ready to be queued."""

OF_COMMAND: Final = frozenset(
    [
        "grid",
        "array",
        "params",
        "batch",
        "group",
        "parallel",
        "keep_best",
        "metric",
        "follow",
        "quiet",
        "config",
        "verbose",
        "dry_run",
    ]
)
"""Parameters of `run` that cannot stand in a line."""
MULTIPLE: Final = ("after", "after_any", "after_fail", "checkpoint_glob")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """`environment`: what it has over the others'. `where`: the line it stands in, for messages; else empty."""

    name: str
    spec: RunSpec
    placing: RequestedPosition
    environment: Mapping[str, str]
    index: int | None = None
    run_id: str | None = None
    code: "Code | None" = None
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """`environment`: of the shell. `stem`: what a group is called by. `at_once`: how many an array may run."""

    runs: Sequence[Draft]
    environment: Mapping[str, str]
    stem: str
    notes: Sequence[str]
    at_once: int | None = None
    is_array: bool = False


def of_sweep(words: Sequence[str], values: Mapping[str, Any], make: Make, now_s: float) -> Drafts:
    """Every combination of --params, --grid and --array. Raises BadCommand."""
    if values["run_id"] is not None:
        raise BadCommand("--run-id names one run; use --name for many")
    sweep = _sweep(values)
    template = Template(sweep.keys)
    arguments = [template.of(word) for word in words[1:]]
    globs = [template.of(text) for text in values["checkpoint_glob"]]
    named = template.of(values["name"], _as_name) if values["name"] is not None else None
    env = {key: template.of(text) for key, text in env_values(values["env"]).items()}
    why = sweep.unused(frozenset(template.used))
    if why is not None:
        raise BadCommand(why)
    variants = sweep.variants()
    first = next(variants)
    base = make(
        [words[0], *(word(first.values) for word in arguments)],
        {**values, "name": None, "env": (), "checkpoint_glob": tuple(one(first.values) for one in globs)},
    )
    if named is not None:
        checked("--name", named(first.values)[:NAME_LIMIT])
    head = base.spec.argv[: len(base.spec.argv) - len(arguments)]
    placing = requested_position(values, now_s)

    def drafts() -> Iterator[Draft]:
        for variant in sweep.variants():
            known = variant.values
            argv = (*head, *(word(known) for word in arguments))
            name = named(known) if named is not None else f"{base.name}-{_as_name(variant.label)}"
            yield Draft(
                name=name[:NAME_LIMIT],
                spec=_with_arguments(base.spec, argv, values, tuple(one(known) for one in globs)),
                placing=placing,
                environment={key: text(known) for key, text in env.items()},
                index=variant.index,
                code=base.code,
            )

    return Drafts(
        runs=list(drafts()),
        environment=base.environment,
        stem=base.name,
        notes=base.notes,
        at_once=sweep.at_once,
        is_array=bool(sweep.indices) and len(sweep) == len(sweep.indices),
    )


def of_file(values: Mapping[str, Any], parse: click.Command, make: Make, now_s: float) -> Drafts:
    """The commands of --batch. Options of the command itself hold for every line that does not say otherwise.

    `parse`: the `run` command. Raises BadCommand, UsageError and what `make` raises, naming the line.
    """
    source = str(values["batch"])
    reader = _LineReader(values, parse, make, now_s)
    drafts = list[Draft]()
    for line in read_lines(source, reader.takes_value):
        where = f"--batch {source}, line {line.number}"
        try:
            drafts.append(reader.draft(line, where))
        except BackpropError as error:
            raise type(error)(f"{where}: {error}") from error
        except click.UsageError as error:
            raise click.UsageError(f"{where}: {error.format_message()}") from error
    return Drafts(
        runs=drafts,
        environment=environment_of_shell(()),
        stem=_as_name(Path(source).stem).lstrip(".-") or "batch",
        notes=list(dict.fromkeys(note for base in reader.bases for note in base.notes)),
    )


class _LineReader:
    """Parses a line's options, and what they lead to, once for all lines that have the same."""

    def __init__(self, values: Mapping[str, Any], parse: click.Command, make: Make, now_s: float) -> None:
        self._values, self._parse, self._make, self._now_s = values, parse, make, now_s
        self._parsed: dict[tuple[str, ...], tuple[dict[str, Any], RequestedPosition]] = {}
        self._bases: dict[tuple[str, ...], Submission] = {}
        self._outer_env = env_values(values["env"])
        self.takes_value = frozenset(
            name
            for option in parse.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        )

    @property
    def bases(self) -> list[Submission]:
        return list(self._bases.values())

    def draft(self, line: BatchLine, where: str) -> Draft:
        known = self._parsed.get(line.shared)
        if known is None:
            known = self._parsed[line.shared] = self._read(line.shared)
        values, placing = known
        script: str | None = values["script"]
        words = [*([script] if script else []), *line.arguments]
        if not words:
            raise BadCommand("SCRIPT is missing")
        for word in words:
            refuse_undecodable(word)
        base = self._base(line.shared, words, values)
        head = len(base.spec.argv) - len(words)
        argv = (*base.spec.argv[: head + 1], *words[1:])
        name, run_id = line.value("--name") or self._values["name"], line.value("--run-id")
        return Draft(
            name=checked("--name", name) if name else base.name,
            spec=_with_arguments(base.spec, argv, values, values["checkpoint_glob"]),
            placing=placing,
            environment={**self._outer_env, **env_values(line.env)},
            run_id=checked("--run-id", run_id) if run_id else None,
            code=base.code,
            where=where,
        )

    def _base(self, shared: tuple[str, ...], words: Sequence[str], values: Mapping[str, Any]) -> Submission:
        """What lines with these options and this script have in common."""
        scripts = [word for word in words[1:] if word.endswith(SCRIPT_SUFFIXES)]
        key = ("", *shared, "--", words[0], *scripts)
        if key not in self._bases:
            self._bases[key] = self._make(words, {**values, "run_id": None, "name": None, "env": ()})
        return self._bases[key]

    def _read(self, shared: Sequence[str]) -> tuple[dict[str, Any], RequestedPosition]:
        ctx = self._parse.make_context("run", list(shared))
        if ctx.params["surplus"]:
            raise BadCommand(f"the script's own arguments come after --: … -- {ctx.params['surplus'][0]}")
        given = {
            name: value
            for name, value in ctx.params.items()
            if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        }
        if wrong := OF_COMMAND & given.keys():
            option = min(wrong).replace("_", "-")
            raise BadCommand(f"--{option} belongs to the command itself, not into a line")
        for name in MULTIPLE:
            given[name] = (*self._values[name], *given.get(name, ()))
        merged = {**self._values, **given, "script": ctx.params["script"]}
        return merged, requested_position(merged, self._now_s)


def _sweep(values: Mapping[str, Any]) -> SweepSpec:
    for text in values["grid"]:
        refuse_undecodable(text)
    indices, at_once = read_array(values["array"]) if values["array"] is not None else ((), None)
    rows = read_params(Path(values["params"])) if values["params"] is not None else ()
    return SweepSpec(rows=rows, grid=read_grid(values["grid"]), indices=indices, at_once=at_once)


def _with_arguments(
    spec: RunSpec, argv: tuple[str, ...], values: Mapping[str, Any], globs: Sequence[str]
) -> RunSpec:
    """The specification with other arguments: where it saves may follow from them."""
    if spec.plan is None or (spec.plan.recipe == "none" and not spec.plan.globs):
        return msgspec.structs.replace(spec, argv=argv)
    from backprop.cli.submit.source_reader import DiskReader
    from backprop.scheduler.recipes.plan import plan_for

    script = Path(spec.script) if spec.script else None
    plan = plan_for(
        argv, spec.program, script, Path(spec.cwd), DiskReader(), values["recipe"], globs, spec.resume_arg
    )
    return msgspec.structs.replace(spec, argv=argv, plan=plan)


def _as_name(text: str) -> str:
    return "".join(char if char in NAME_CHARACTERS else "-" for char in text)
