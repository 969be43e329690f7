"""Drafts the runs of one command, before they have ids: one per combination of a sweep."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from backprop.cli.submit.enqueue import asked
from backprop.cli.submit.many.sweep import INDEX, Template, Variant
from backprop.cli.submit.many.sweep_options import read_sweep
from backprop.cli.submit.names import NAME_LIMIT, as_run_name, checked_key, checked_run_name
from backprop.cli.submit.queue_options import RequestedPosition, requested_position
from backprop.cli.submit.shell import env_values
from backprop.cli.submit.submission import Submission
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.spec import RunSpec

if TYPE_CHECKING:
    from backprop.worker.environment.code_snapshot import Code

LONGEST_VALUES: Final = 256
"""In a key; longer ones are there as their digest."""
Make = Callable[[Sequence[str], Mapping[str, Any]], Submission]
"""Makes a run ready to be queued from SCRIPT with its arguments, and the options of `run`."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `environment`: what it has beyond that of all. `where`: its line, for messages; else empty."""

    name: str
    spec: RunSpec
    position: RequestedPosition
    environment: Mapping[str, str]
    index: int | None = None
    run_id: str | None = None
    code: "Code | None" = None
    where: str = ""


class Drafts(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one command.

    `environment`: the shell's. `stem`: the beginning of the group's name. `at_once`: how many of an array may run at
    the same time.
    """

    runs: Sequence[Draft]
    environment: Mapping[str, str]
    stem: str
    notes: Sequence[str]
    warnings: Sequence[str] = ()
    at_once: int | None = None
    is_array: bool = False


def of_sweep(words: Sequence[str], values: Mapping[str, Any], make: Make, now_s: float) -> Drafts:
    """Return a draft for every combination of --params, --grid and --array. Raises BadCommand.

    `words`: SCRIPT and its arguments. `values`: the parameters of `run`.
    """
    if values["run_id"] is not None:
        raise BadCommand("--run-id names one run; use --name for many")
    sweep = read_sweep(values)
    template = Template(sweep.keys)
    arguments = [template.of(word) for word in words[1:]]
    globs = [template.of(text) for text in values["checkpoint_glob"]]
    name_of = template.of(values["name"], as_run_name) if values["name"] is not None else None
    env = {key: template.of(text) for key, text in env_values(values["env"]).items()}
    reason = sweep.unused(frozenset(template.used))
    if reason is not None:
        raise BadCommand(reason)
    named = template.used - {INDEX}
    first = next(sweep.variants()).values
    base = make(
        [words[0], *(argument(first) for argument in arguments)],
        {**values, "name": None, "env": (), "checkpoint_glob": tuple(pattern(first) for pattern in globs)},
    )
    if name_of is not None:
        checked_run_name("--name", name_of(first)[:NAME_LIMIT])
    head = base.spec.argv[: len(base.spec.argv) - len(arguments)]
    position = requested_position(values, now_s)
    keys = _MemberKeys(words, values)

    def drafts() -> Iterator[Draft]:
        for variant in sweep.variants():
            known = variant.values
            argv = (*head, *(argument(known) for argument in arguments))
            name = name_of(known) if name_of is not None else f"{base.name}-{as_run_name(variant.label)}"
            yield Draft(
                name=name[:NAME_LIMIT],
                spec=msgspec.structs.replace(
                    with_arguments(base.spec, argv, values, tuple(pattern(known) for pattern in globs)),
                    params={key: value for key, value in known.items() if key in named},
                    **keys.of(variant),
                ),
                position=position,
                environment={key: text(known) for key, text in env.items()},
                index=variant.index,
                code=base.code,
            )

    return Drafts(
        runs=list(drafts()),
        environment=base.environment,
        stem=base.name,
        notes=base.notes,
        warnings=base.warnings,
        at_once=sweep.at_once,
        is_array=bool(sweep.indices) and len(sweep) == len(sweep.indices),
    )


class _MemberKeys:
    """Gives each member of a sweep with --key a key of its own: that key and the member's values. A member that is
    the same as earlier ones has its number among them, too."""

    def __init__(self, words: Sequence[str], values: Mapping[str, Any]) -> None:
        self._words, self._values = words, values
        self._key = checked_key(values["key"]) if values["key"] is not None else None
        self._given = Counter[str]()

    def of(self, variant: Variant) -> dict[str, str]:
        """Return `key` and `asked` of the specification; nothing without --key."""
        if self._key is None:
            return {}
        values = ",".join(f"{name}={value}" for name, value in sorted(variant.values.items()))
        if len(values) > LONGEST_VALUES:
            values = hashlib.sha256(values.encode()).hexdigest()
        self._given[values] += 1
        number = f"#{self._given[values]}" if self._given[values] > 1 else ""
        told = asked(self._words, self._values, member=dict(variant.values))
        return {"key": f"{self._key}/{values}{number}", "asked": told}


def with_arguments(
    spec: RunSpec, argv: tuple[str, ...], values: Mapping[str, Any], globs: Sequence[str]
) -> RunSpec:
    """Return the specification with other arguments, and the plan that follows from them: where a run saves may depend
    on its arguments."""
    if spec.plan is None or (spec.plan.recipe == "none" and not spec.plan.globs):
        return msgspec.structs.replace(spec, argv=argv)
    from backprop.cli.submit.source_reader import DISK
    from backprop.scheduler.recipes.plan import plan_for

    script = Path(spec.script) if spec.script else None
    plan = plan_for(
        argv, spec.program, script, Path(spec.cwd), DISK, values["recipe"], globs, spec.resume_arg
    )
    return msgspec.structs.replace(spec, argv=argv, plan=plan)
