"""Runs `backprop worker --drain` and writes to argv[1] which modules and records held a checkpoint's path.

The file gets a JSON object: `modules`, whose functions had the path or a record of it in a variable when they returned,
and `holders`, the classes of those records. The path is recognised by a regular expression for its ending, argv[2].
"""

import dataclasses
import json
import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from backprop.cli.main import run_command

OUT, ENDING = Path(sys.argv[1]), re.compile(sys.argv[2] + r"\Z")
modules: set[str] = set()
holders: set[str] = set()


def holds(value: Any) -> bool:
    """Return whether `value` is the path, or a record or a plain collection that has it."""
    if isinstance(value, str | Path):
        return ENDING.search(str(value)) is not None
    if isinstance(value, tuple | list):
        return True in [holds(item) for item in value[:20]]
    if isinstance(value, msgspec.Struct):
        fields = [getattr(value, name) for name in value.__struct_fields__]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return False
    if True in [holds(field) for field in fields]:
        holders.add(type(value).__name__)
        return True
    return False


def watch(frame: FrameType, event: str, _: Any) -> None:
    module = frame.f_globals.get("__name__", "")
    if event != "return" or not module.startswith("backprop."):
        return
    # Each variable is looked at: `any` over a generator would stop at the first.
    if True in [holds(value) for value in [*frame.f_locals.values()]]:
        modules.add(module)


threading.setprofile(watch)
sys.setprofile(watch)
try:
    code = run_command(["worker", "--drain"])
finally:
    sys.setprofile(None)
    OUT.write_text(json.dumps({"modules": sorted(modules), "holders": sorted(holders)}))
sys.exit(code)
