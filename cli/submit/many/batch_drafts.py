"""Drafts the runs of a --batch file: one per line, as typed after `backprop run`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from backprop.cli.submit.enqueue import asked
from backprop.cli.submit.many.batch_file import BatchLine, read_lines
from backprop.cli.submit.many.drafts import Draft, Drafts, Make, with_arguments
from backprop.cli.submit.names import as_name, checked, checked_key, checked_run_name, refuse_undecodable
from backprop.cli.submit.queue_options import RequestedPosition, requested_position
from backprop.cli.submit.shell import SCRIPT_SUFFIXES, env_values, environment_of_shell
from backprop.cli.submit.submission import Submission
from backprop.scheduler.errors import BackpropError, BadCommand

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
        "until",
        "group_max_minutes",
        "follow",
        "quiet",
        "as_json",
        "brief",
        "config",
        "verbose",
        "dry_run",
    ]
)
"""Parameters of `run` that a line cannot have."""
MULTIPLE: Final = ("after", "after_any", "after_fail", "checkpoint_glob", "metric_regex")


def of_file(values: Mapping[str, Any], parse: click.Command, make: Make, now_s: float) -> Drafts:
    """Return a draft for every command in the file. A line's options replace those of the command itself.

    `values`: the parameters of `run`. `parse`: the `run` command. Raises BadCommand, UsageError and what `make` raises,
    naming the line.
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
        stem=as_name(Path(source).stem).lstrip(".-") or "batch",
        notes=list(dict.fromkeys(note for base in reader.bases for note in base.notes)),
        warnings=list(dict.fromkeys(line for base in reader.bases for line in base.warnings)),
    )


class _LineReader:
    """Parses options, and makes the submission that follows from them, once for all lines that have the same."""

    def __init__(self, values: Mapping[str, Any], parse: click.Command, make: Make, now_s: float) -> None:
        self._values, self._parse, self._make, self._now_s = values, parse, make, now_s
        self._parsed: dict[tuple[str, ...], tuple[dict[str, Any], RequestedPosition]] = {}
        self._bases: dict[tuple[str, ...], tuple[Submission, tuple[str, ...]]] = {}
        self._outer_env = env_values(values["env"])
        self._keys: dict[str, str] = {}
        self.takes_value = frozenset(
            name
            for option in parse.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        )

    @property
    def bases(self) -> list[Submission]:
        return [base for base, _ in self._bases.values()]

    def draft(self, line: BatchLine, where: str) -> Draft:
        parsed = self._parsed.get(line.shared)
        if parsed is None:
            parsed = self._parsed[line.shared] = self._read(line.shared)
        values, position = parsed
        script: str | None = values["script"]
        words = [*([script] if script else []), *line.arguments]
        if not words:
            raise BadCommand("SCRIPT is missing")
        for word in words:
            refuse_undecodable(word)
        base, head = self._base(line.shared, words, values)
        argv = (*head, *words[1:])
        name, run_id = line.value("--name") or self._values["name"], line.value("--run-id")
        spec = with_arguments(base.spec, argv, values, values["checkpoint_glob"])
        if (key := line.value("--key")) is not None:
            own = {"name": name, "run_id": run_id, "env": line.env}
            told = asked(words, values | own)
            spec = msgspec.structs.replace(spec, key=self._new_key(key, where), asked=told)
        return Draft(
            name=checked_run_name("--name", name) if name else base.name,
            spec=spec,
            position=position,
            environment={**self._outer_env, **env_values(line.env)},
            run_id=checked("--run-id", run_id) if run_id else None,
            code=base.code,
            where=where,
        )

    def _new_key(self, key: str, where: str) -> str:
        first = self._keys.setdefault(checked_key(key), where)
        if first != where:
            raise BadCommand(f"--key {key} has been given before: {first}")
        return key

    def _base(
        self, shared: tuple[str, ...], words: Sequence[str], values: Mapping[str, Any]
    ) -> tuple[Submission, tuple[str, ...]]:
        """Return what lines with these options and this script have in common, and argv before the arguments."""
        scripts = [word for word in words[1:] if word.endswith(SCRIPT_SUFFIXES)]
        key = ("", *shared, "--", words[0], *scripts)
        if key not in self._bases:
            base = self._make(words, {**values, "run_id": None, "name": None, "env": ()})
            self._bases[key] = (base, base.spec.argv[: len(base.spec.argv) - len(words[1:])])
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
            option = min(wrong).removeprefix("as_").replace("_", "-")
            raise BadCommand(f"--{option} belongs to the command itself and cannot be used in a line")
        for name in MULTIPLE:
            given[name] = (*self._values[name], *given.get(name, ()))
        merged = {**self._values, **given, "script": ctx.params["script"]}
        return merged, requested_position(merged, self._now_s)
