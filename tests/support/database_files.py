"""Makes database files, opens them in other processes, and says how that went."""

import sqlite3
import subprocess
import textwrap

import pytest

from backprop.scheduler.errors import BackpropError, DatabaseRefused
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from tests.support.harness import ROOT, program
from tests.support.store_rows import add_run


def fill(home: Home, sql: str) -> bytes:
    """Make the file with plain SQLite; return its bytes."""
    connection = sqlite3.connect(home.database, isolation_level=None)
    connection.executescript(sql)
    connection.close()
    return home.database.read_bytes()


def create(home: Home, runs: int = 1) -> None:
    """Make a database of ours, and close it."""
    opened = open_database(home)
    for number in range(runs):
        add_run(opened, f"r{number}")
    opened.close()


def refusal(home: Home) -> str:
    """Return why the database cannot be opened: one line that names it."""
    with pytest.raises(BackpropError) as caught:
        open_database(home)
    assert isinstance(caught.value, DatabaseRefused)
    why = str(caught.value)
    assert "\n" not in why
    assert str(home.database) in why
    return why


CHECK = """
import sqlite3
looking = sqlite3.connect(home.database)
print(looking.execute("PRAGMA integrity_check").fetchone()[0])
looking.close()
"""


def integrity(home: Home) -> str:
    """Return a second process's opinion of the file."""
    return said(child(CHECK, home)).strip()


def child(code: str, home: Home) -> "subprocess.Popen[str]":
    """Start another process with `home` in its hands."""
    return subprocess.Popen(
        [*program("database_snippet"), str(home.root), textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def said(started: "subprocess.Popen[str]") -> str:
    """Return what another process printed, once it has ended well."""
    out, errors = started.communicate(timeout=90)
    assert (started.returncode, errors) == (0, ""), errors
    return out
