"""Which modules a script imports that its Python does not have: told from files, and only where that is certain."""

import sys
from pathlib import Path

import pytest

from backprop.worker.environment.script_imports import imported, is_own, lacking

SCRIPT = """\
'''
from nowhere import this
import docs
'''
from __future__ import annotations
import os.path, torch as t, numpy
from sklearn.tree import x
from . import sibling
import trainer
if t:
    import guarded
try:
    import optional
except ImportError:
    optional = None
def late():
    import inside
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of a virtual environment beside an installation: `bin/python`, and what lies where."""
    base, venv = tmp_path / "usr", tmp_path / "venv"
    for prefix in (base, venv):
        (prefix / "bin").mkdir(parents=True)
        (prefix / "lib/python3.11/site-packages").mkdir(parents=True)
    (base / "lib/python3.11/os.py").touch()
    (base / "bin/python3.11").touch(mode=0o755)
    (venv / "bin/python").symlink_to(base / "bin/python3.11")
    (venv / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\ninclude-system-site-packages = false\n")
    (tmp_path / "project").mkdir()
    return venv / "bin/python"


def missing(python: Path, text: str = SCRIPT, **environment: str) -> tuple[str, ...]:
    """What train.py with this text would miss."""
    project = python.parents[2] / "project"
    (project / "train.py").write_text(text)
    return lacking(project / "train.py", str(python), project, environment)


def site(python: Path) -> Path:
    return python.parents[1] / "lib/python3.11/site-packages"


def test_only_what_is_imported_at_the_top_and_found_nowhere_is_missing(python: Path) -> None:
    assert missing(python) == ("torch", "numpy", "sklearn", "trainer")
    (python.parents[2] / "project/trainer.py").touch()
    (site(python) / "torch").mkdir()
    (site(python) / "numpy.cpython-311-x86_64-linux-gnu.so").touch()
    assert missing(python) == ("sklearn",)
    more = python.parents[2] / "more"
    (more / "sklearn").mkdir(parents=True)
    assert missing(python, PYTHONPATH=f"/none:{more}") == ()
    assert missing(python, "import os\nfrom pathlib import Path\n") == ()


def test_the_base_counts_where_the_environment_takes_it_in(python: Path) -> None:
    (python.parents[2] / "usr/lib/python3.11/site-packages/torch").mkdir()
    assert missing(python, "import torch\n") == ("torch",)
    config = python.parents[1] / "pyvenv.cfg"
    config.write_text(config.read_text().replace("false", "true"))
    assert missing(python, "import torch\n") == ()


def test_editable_installs_and_path_files_are_followed(python: Path) -> None:
    (python.parents[2] / "src/mine").mkdir(parents=True)
    text = "import mine\nimport yours\nimport torch\n"
    (site(python) / "mine.pth").write_text(f"# a comment\n{python.parents[2] / 'src'}\n")
    (site(python) / "__editable___yours_finder.py").write_text("MAPPING = {'yours': '/src/yours'}\n")
    finder = "import __editable___yours_finder; __editable___yours_finder.install()\n"
    (site(python) / "__editable__.yours.pth").write_text(finder)
    (site(python) / "distutils-precedence.pth").write_text("import os; os.environ\n")
    assert missing(python, text) == ("torch",)


@pytest.mark.parametrize(
    "unclear",
    ["a.pth", "sitecustomize.py", "an egg", "sys.path", "pip", "PYTHONHOME", "a shim", "no standard library"],
)
def test_what_is_not_certain_is_not_missing(python: Path, unclear: str) -> None:
    text, environment = "import torch\n", dict[str, str]()
    match unclear:
        case "a.pth":
            (site(python) / unclear).write_text("import something; something.adds_folders()\n")
        case "sitecustomize.py":
            (site(python) / unclear).touch()
        case "an egg":
            (site(python) / "torch.egg").touch()
            (site(python) / "easy-install.pth").write_text("torch.egg\n")
        case "sys.path":
            text = f"import sys\nsys.path.insert(0, '/x')\n{text}"
        case "pip":
            text = f"import os\nos.system('pip install torch')\n{text}"
        case "PYTHONHOME":
            environment = {"PYTHONHOME": "/x"}
        case "a shim":
            (python.parents[1] / "pyvenv.cfg").unlink()
            python.unlink()
            python.write_text("#!/bin/sh\nexec elsewhere/python\n")
            python.chmod(0o755)
        case _:
            (python.parents[2] / "usr/lib/python3.11/os.py").unlink()
    assert missing(python, text, **environment) == ()


def test_a_program_that_is_no_python_is_left_alone(python: Path) -> None:
    script = python.parents[2] / "project" / "train.py"
    script.write_text("import torch\n")
    for program in ("/bin/sh", str(script), "/none"):
        assert lacking(script, program, script.parent, {}) == ()
    assert lacking(script.parent / "none.py", str(python), script.parent, {}) == ()


def test_backprops_own_python_is_known() -> None:
    assert is_own(sys.executable)
    assert not is_own("/usr/bin/false")


def test_lines_that_import() -> None:
    text = "import a.b as c, d # e\nfrom f.g import h\n  import i\nimport\nfrom .j import k\nimportant = 1\n"
    assert imported(text) == ["a", "d", "f"]
