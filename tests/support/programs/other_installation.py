"""Be the `backprop` command with another interpreter, and other files, for its supervisors.

python other_installation.py PYTHON SUPERVISOR_FOLDER WORDS...

No import statement that is met inside a function succeeds while the file that IMPORTS_FAIL_WHILE names is there.
"""

import builtins
import os
import sys
from pathlib import Path
from typing import Any

from backprop.cli.main import main
from backprop.worker.executor import breaker, supervisor_program

_import = builtins.__import__


def _import_if_there(name: str, *rest: Any) -> Any:
    if name.partition(".")[0] in ("backprop", "peewee", "filelock") and os.path.exists(_fail):  # noqa: PTH110
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return _import(name, *rest)


sys.executable, supervisor_program.SUPERVISOR = sys.argv[1], Path(sys.argv[2])
breaker.LONGEST_PAUSE_S = 2.0
if _fail := os.environ.get("IMPORTS_FAIL_WHILE", ""):
    builtins.__import__ = _import_if_there
sys.argv[1:3] = []
sys.exit(main())
