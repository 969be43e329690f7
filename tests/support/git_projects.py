"""Makes real git repositories for tests."""

import subprocess
from pathlib import Path


def git(folder: Path, *words: str, given: bytes = b"") -> str:
    """Run git as the repository's author would; return what it prints."""
    who = ("-c", "user.name=me", "-c", "user.email=me@example.com", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, input=given)
    return done.stdout.decode(errors="surrogateescape").strip()


def repository(folder: Path, **files: str) -> str:
    """Make a repository with one commit on `main`; return the commit. `files`: contents by name, `train_py` for
    train.py."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return commit(folder)


def commit(folder: Path) -> str:
    """Commit all there is; return the commit."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return git(folder, "rev-parse", "HEAD")
