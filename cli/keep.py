"""`--keep-best 50%/3 --metric loss`: which members of a group are to go on, as typed."""

import re
from typing import Final

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.spec import Group

_FORM: Final = re.compile(r"(\d{1,2}(?:\.\d{1,4})?)%/(\d{1,6})", re.ASCII)
METRIC_LIMIT: Final = 128


def with_keeping(group: Group | None, best: str | None, metric: str | None) -> Group | None:
    """`group` with the rule. `metric`: a name, with `:max` after it where more is better. Raises BadCommand."""
    import msgspec

    if best is None and metric is None:
        return group
    if best is None:
        raise BadCommand(
            "--metric says what --keep-best goes by; give both, such as: --keep-best 50%/3 --metric loss"
        )
    if group is None:
        raise BadCommand(
            "--keep-best is a rule for a group; give --group NAME, or --grid, --array or --params"
        )
    found = _FORM.fullmatch(best)
    if found is None or not 0 < float(found[1]) < 100 or not int(found[2]):
        raise BadCommand(
            f"--keep-best {best} is not SHARE%/SEGMENTS; 50%/3 keeps the better half after every three segments"
        )
    name, _, direction = (metric or "loss").partition(":")
    if direction not in ("", "min", "max") or not 0 < len(name) <= METRIC_LIMIT or not name.isprintable():
        raise BadCommand(f"--metric {metric} is not NAME, NAME:min or NAME:max")
    return msgspec.structs.replace(
        group,
        keep_share=float(found[1]) / 100,
        keep_every=int(found[2]),
        keep_metric=name,
        keep_highest=direction == "max",
    )
