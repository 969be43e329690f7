"""Gathers what the samples of one GPU say: use, temperature, memory and power over the night."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from backprop.cli.report.books import SPEAKS_S, Unit
from backprop.cli.report.night import Night
from backprop.scheduler.governor.model import gib

COLUMNS: Final = 360
"""Stretches of the night for which one number is shown."""

Track = Sequence[float | None]
"""One number per stretch; None where none was read."""


class Readings(msgspec.Struct, frozen=True):
    """The readings of one GPU. `limit_c`: the lowest limit of the night. MiB, °C, percent and watts."""

    unit: Unit
    use: Track
    temp_c: Track
    used_mib: Track
    power_w: Track
    limit_c: int | None
    total_mib: int | None
    peak_c: int | None
    peak_mib: int | None

    def facts(self) -> Iterator[str]:
        """Yield its peaks in words."""
        if self.peak_c is not None:
            limit = f" (limit {self.limit_c})" if self.limit_c is not None else ""
            yield f"peak {self.peak_c} °C{limit}"
        if self.peak_mib is not None:
            of = f"/{gib(self.total_mib)}" if self.total_mib else ""
            yield f"VRAM {gib(self.peak_mib)}{of} GiB"
        drawn = [watts for watts in self.power_w if watts is not None]
        if drawn:
            yield f"{sum(drawn) / len(drawn):.0f} W"


def read_all(night: Night) -> list[Readings]:
    """Return the readings of each GPU that was read, in the order of the books."""
    at_s = 0.0
    rows: dict[str, list[tuple[float, float | None, float | None, float | None, float | None]]] = {}
    limits: dict[str, list[int]] = {}
    totals: dict[str, int] = {}
    for sample in night.samples:
        at_s = max(night.axis.at(sample.at_s, at_s), at_s)
        uuid = sample.gpu_uuid
        if uuid is None:
            continue
        total, free = sample.total_mib, sample.free_mib
        used = None if total is None or free is None else total - free
        rows.setdefault(uuid, []).append((at_s, sample.utilisation_pct, sample.temp_c, used, sample.power_w))
        if sample.limit_c is not None:
            limits.setdefault(uuid, []).append(sample.limit_c)
        if total is not None:
            totals[uuid] = total
    return [
        _readings(one.unit, rows[one.unit.uuid], limits, totals, night.axis.length_s)
        for one in night.books
        if one.unit.uuid in rows
    ]


def _readings(
    unit: Unit,
    rows: Sequence[tuple[float, float | None, float | None, float | None, float | None]],
    limits: dict[str, list[int]],
    totals: dict[str, int],
    length_s: float,
) -> Readings:
    uuid = str(unit.uuid)
    temps = [row[2] for row in rows if row[2] is not None]
    used = [row[3] for row in rows if row[3] is not None]
    use, temp_c, used_mib, power_w = (
        _track([(row[0], row[at]) for row in rows], length_s) for at in range(1, 5)
    )
    return Readings(
        unit=unit,
        use=use,
        temp_c=temp_c,
        used_mib=used_mib,
        power_w=power_w,
        limit_c=min(limits[uuid]) if uuid in limits else None,
        total_mib=totals.get(uuid),
        peak_c=round(max(temps)) if temps else None,
        peak_mib=round(max(used)) if used else None,
    )


def _track(values: Sequence[tuple[float, float | None]], length_s: float) -> list[float | None]:
    """Average the values over equal stretches. One without any has that of the last sample, for as long as a sample
    speaks."""
    width_s = max(length_s, 1.0) / COLUMNS
    sums, counts = [0.0] * COLUMNS, [0] * COLUMNS
    for at_s, value in values:
        if value is not None and 0 <= at_s <= length_s:
            column = min(int(at_s / width_s), COLUMNS - 1)
            sums[column] += value
            counts[column] += 1
    track: list[float | None] = []
    last, age_s = None, 0.0
    for total, count in zip(sums, counts, strict=True):
        last, age_s = (total / count, 0.0) if count else (last, age_s + width_s)
        track.append(last if age_s <= SPEAKS_S else None)
    return track
