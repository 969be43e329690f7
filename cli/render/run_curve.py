"""Makes the curve of a run out of its stored values, for the plots of `plot` and `show`."""

from collections.abc import Sequence
from typing import Final

from backprop.cli.render.plots import Curve, points_of, thinned

MOST_POINTS: Final = 2000


def curve_of(rows: Sequence[tuple[int | None, float, float, int]], name: str, across: str) -> Curve | None:
    """Return the curve over steps or time, with a tick where a segment begins; None without a value."""
    if not rows:
        return None
    points = points_of(rows, across)
    ticks = [points[at][0] for at in range(1, len(rows)) if rows[at][3] != rows[at - 1][3]]
    return Curve(name, thinned(points, MOST_POINTS), ticks)
