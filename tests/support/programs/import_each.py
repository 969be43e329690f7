"""Imports each module named in argv, and prints as JSON what each one that fails raises, or that it writes files."""

import importlib
import json
import sys
from pathlib import Path


def files() -> list[str]:
    return sorted(str(path) for path in Path().iterdir())


failures: dict[str, str] = {}
for name in sys.argv[1:]:
    before = files()
    try:
        importlib.import_module(name)
    except BaseException as error:
        failures[name] = f"{type(error).__name__}: {error}"
    if files() != before:
        failures[name] = "it writes files"
print(json.dumps(failures))
