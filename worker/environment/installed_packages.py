"""Finds out from files which version of a package a Python interpreter would import; nothing is executed.

Asking the interpreter itself would cost a start of Python per segment, in the user's environment. So every folder that
may count is searched, and all versions in them are returned: which one comes first on `sys.path` also depends on
options and .pth files that cannot be known from outside.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

UNREADABLE = ""
"""Stands for a package that is installed but does not state its version."""

_PYTHON = re.compile(r"python[\d.]*t?")
_MINOR = re.compile(r"python3\.\d+t?")
_VERSION = re.compile(r"""^__version__\s*(?::[^=\n]*)?=\s*['"]([^'"\n]+)['"]""", re.MULTILINE)
_CONFIG = re.compile(r"^[ \t]*([\w-]+)[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_EDITABLE = re.compile(r'"editable"\s*:\s*true')
_FILE_URL = re.compile(r'"url"\s*:\s*"file://([^"]+)"')
_MAX_BYTES = 64 * 1024


def versions_of(package: str, program: str, environment: Mapping[str, str]) -> frozenset[str]:
    """Return every version of `package` that the Python behind `program` may import, such as {"2.13.0+cpu"}.

    `program`: the interpreter, or an installed command that names one in its first line (`torchrun`); a bare name
    is searched in `environment`'s PATH. Empty if none of its folders has the package, or if `program` is neither: what
    a shell script would run is unknown. Understands venvs (PEP 405, with or without the system's packages), conda,
    Debian's dist-packages, the user's site, PYTHONPATH. Raises nothing.
    """
    try:
        python = interpreter_of(program, environment)
        if python is None or environment.get("PYTHONHOME"):
            return frozenset()
        folders = dict.fromkeys(package_folders(python, environment))
        return frozenset(version for folder in folders for version in _versions_in(folder, package))
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a symbolic link that leads to itself
        return frozenset()


def editable_inside(root: Path, program: str, environment: Mapping[str, str]) -> frozenset[str]:
    """Return the packages that the Python behind `program` has installed in editable mode from inside `root`.

    Read from `direct_url.json` (PEP 610), which pip and uv write. Raises nothing.
    """
    try:
        python = interpreter_of(program, environment)
        folders = dict.fromkeys(package_folders(python, environment)) if python is not None else {}
        records = (path for folder in folders for path in folder.glob("*.dist-info/direct_url.json"))
        return frozenset(
            path.parent.name.split("-")[0] for path in records if _editable_in(root, text_of(path))
        )
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _editable_in(root: Path, record: str) -> bool:
    from urllib.parse import unquote

    url = _EDITABLE.search(record) and _FILE_URL.search(record)
    return bool(url) and Path(unquote(url[1])).is_relative_to(root)


def interpreter_of(program: str, environment: Mapping[str, str]) -> Path | None:
    """Return the path by which the Python behind `program` is called; None where that is unknown. Raises OSError."""
    if os.path.isabs(program) and _PYTHON.fullmatch(Path(program).name):  # noqa: PTH117
        return Path(program)
    import shutil  # imports every compressor there is: 5 ms of a `backprop run`

    path = environment.get("PATH")
    command = shutil.which(program, path=path)
    if command is None or _PYTHON.fullmatch(Path(command).name):
        return Path(command) if command else None
    words = text_of(Path(command), 512).partition("\n")[0].removeprefix("#!").split()
    if len(words) > 1 and Path(words[0]).name == "env":
        words = [shutil.which(words[1], path=path) or "", *words[2:]]
    if not words or not _PYTHON.fullmatch(Path(words[0]).name):
        return None
    return Path(words[0])


def package_folders(python: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders in which this interpreter's packages may lie.

    A venv is known by its pyvenv.cfg, beside the path as it was called or one above. Otherwise the installation is
    found from where the interpreter's links end, as Python itself does.
    """
    entries = map(Path, environment.get("PYTHONPATH", "").split(os.pathsep))
    yield from (entry for entry in entries if entry.is_absolute())
    minor, venv = _minor(python), venv_of(python)
    if venv is None:
        yield from _installation(python.resolve().parent.parent, minor, environment)
        return
    yield from _site(venv, minor)
    keys = _settings_of(venv)
    if keys.get("include-system-site-packages", "").lower() == "true" and keys.get("home"):
        yield from _installation(Path(keys["home"]).parent, minor, environment)


def standard_folders(python: Path) -> list[Path]:
    """Return where the standard library of this interpreter lies; nothing where that is not clear. Raises OSError."""
    venv = venv_of(python)
    home = _settings_of(venv).get("home") if venv is not None else str(python.resolve().parent)
    return [path.parent for path in Path(home).parent.glob(f"lib*/{_minor(python)}/os.py")] if home else []


def venv_of(python: Path) -> Path | None:
    """Return the virtual environment of an interpreter; None for an installation. Raises OSError."""
    return next((at for at in (python.parent, python.parent.parent) if (at / "pyvenv.cfg").is_file()), None)


def _settings_of(venv: Path) -> dict[str, str]:
    return {key.lower(): value for key, value in _CONFIG.findall(text_of(venv / "pyvenv.cfg"))}


def _minor(python: Path) -> str:
    """Return the name of its folder of packages, or a pattern for any."""
    name = python.resolve().name
    return name if _MINOR.fullmatch(name) else "python3.*"


def _installation(prefix: Path, minor: str, environment: Mapping[str, str]) -> Iterator[Path]:
    for root in (prefix, Path("/usr/local")) if prefix == Path("/usr") else (prefix,):
        yield from _site(root, minor)
        yield from root.glob(f"lib/{minor}/dist-packages")
        yield root / "lib/python3/dist-packages"
    home = environment.get("HOME")
    user = environment.get("PYTHONUSERBASE") or (f"{home}/.local" if home else None)
    if user and not environment.get("PYTHONNOUSERSITE"):
        yield from _site(Path(user), minor)


def _site(prefix: Path, minor: str) -> Iterator[Path]:
    yield from prefix.glob(f"lib/{minor}/site-packages")
    yield from prefix.glob(f"lib64/{minor}/site-packages")


def _versions_in(folder: Path, package: str) -> set[str]:
    """Return the versions of `package` in one folder. The package's own version.py is what gets imported, and metadata
    may be left over from another version. Metadata alone is an editable install."""
    stated = _VERSION.search(text_of(folder / package / "version.py"))
    if stated:
        return {stated[1]}
    metadata = folder.glob(f"{package}-*.dist-info")
    versions = {path.name.removesuffix(".dist-info").split("-")[1] for path in metadata}
    return versions or ({UNREADABLE} if (folder / package / "__init__.py").exists() else set())


def text_of(path: Path, max_bytes: int = _MAX_BYTES) -> str:
    """Return the beginning of a regular file; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(max_bytes).decode(errors="replace")


def settings_version(python: Path) -> tuple[str | None, float]:
    """Return the version that a virtual environment was made with, and when, in Unix seconds; None for an installation.
    Raises OSError."""
    venv = venv_of(python)
    if venv is None:
        return None, 0.0
    keys = _settings_of(venv)
    return keys.get("version") or keys.get("version_info"), (venv / "pyvenv.cfg").stat().st_mtime
