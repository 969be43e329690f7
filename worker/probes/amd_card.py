"""Builds one AMD GPU from the numbers that its kernel files or a tool gave."""

from backprop.scheduler.governor.snapshot import Gpu


def amd_gpu(
    *,
    uuid: str,
    index: int,
    name: str,
    total_mib: int | None,
    used_mib: int | None,
    temp_c: int | None,
    slowdown_c: int | None,
    utilisation_pct: int | None,
) -> Gpu:
    """Build the GPU. Memory that contradicts itself counts as unreadable."""
    readable = total_mib is not None and used_mib is not None and 0 <= used_mib <= total_mib and total_mib > 0
    return Gpu(
        uuid=uuid,
        index=index,
        name=name,
        total_mib=total_mib if readable else None,
        free_mib=total_mib - used_mib
        if readable and total_mib is not None and used_mib is not None
        else None,
        temp_c=temp_c,
        slowdown_c=slowdown_c,
        throttled=None,
        utilisation_pct=utilisation_pct,
        error=None if readable else "its memory cannot be read",
    )
