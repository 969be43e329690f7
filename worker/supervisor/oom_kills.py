"""Reads how many processes the kernel has killed for want of memory: of a control group, and on the machine.

A user may not read the kernel's log (`dmesg`), but these counters. `memory.events` (v2) and `memory.oom_control` (v1)
count the processes of a control group that any OOM killer has killed. `/proc/vmstat` counts those of the whole machine,
whoever they belonged to. What they say as a segment begins is noted in `processes.json`, for a supervisor that takes
over; the difference at its end is in `exit.json`. Standard library only, imports nothing of Backprop.
"""

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
COUNTERS = ("memory.events", "memory.oom_control")
Counted = tuple[int | None, int | None]
"""In the control group, and on the machine; None where it cannot be read."""


def begin() -> dict[str, object]:
    """Return the note of what has been counted up to now, and of which control group."""
    group = own_group()
    return {"group": str(group) if group is not None else None, "counted": list(counted(group))}


def since(note: object) -> Counted:
    """Return what has been counted since `note`; None where nothing usable was noted."""
    if not isinstance(note, dict):
        return None, None
    group, before = note.get("group"), note.get("counted")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(before, list) or len(before) != 2:  # pyright: ignore[reportUnknownArgumentType]
        return None, None
    folder = Path(group) if isinstance(group, str) else None
    inside = folder is not None and ROOT in (folder, *folder.parents) and ".." not in folder.parts
    now = counted(folder if inside else None)
    return _more(before[0], now[0]), _more(before[1], now[1])  # pyright: ignore[reportUnknownArgumentType]


def counted(group: Path | None) -> Counted:
    """Return what has been counted up to now. `group`: the folder of a control group, if there is one."""
    in_group = (_number(group / name) for name in COUNTERS) if group is not None else iter(())
    return next((number for number in in_group if number is not None), None), _number(Path("/proc/vmstat"))


def own_group() -> Path | None:
    """Return the folder of this process's control group, in which what it starts begins; None where none counts.

    Inside a container the path may be one of outside, and the root is its own.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return None
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            folders += [ROOT / "memory" / path.lstrip("/"), ROOT / "memory"]
        elif not controllers:
            folders += [ROOT / path.lstrip("/"), ROOT]
    return next((folder for folder in folders if counted(folder)[0] is not None), None)


def _more(before: object, now: int | None) -> int | None:
    """Return by how much a counter rose; None where it was not read, or has begun anew."""
    if not isinstance(before, int) or now is None or now < before:
        return None
    return now - before


def _number(path: Path) -> int | None:
    """Return the value of `oom_kill` in a file; None where there is none."""
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return None
    found = (line.split() for line in text.splitlines() if line.startswith("oom_kill "))
    number = next((words[1] for words in found if len(words) == 2 and words[1].isdecimal()), None)
    return int(number) if number is not None else None
