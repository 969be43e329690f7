"""Opening and writing the database beside others: locks, forks, full disks, a file that takes its place."""

import os
import shlex
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from tests.support.database_files import CHECK, child, create, integrity, said
from tests.support.harness import program
from tests.support.store_rows import SPEC, add_run, enqueue_run


def test_how_it_is_kept(home: Home) -> None:
    opened = open_database(home)
    pragma = {name: opened.read(lambda name=name: opened._db.execute_sql(f"PRAGMA {name}").fetchone()[0])
              for name in ("journal_mode", "synchronous", "foreign_keys", "mmap_size", "busy_timeout")}  # fmt: skip
    opened.close()
    assert pragma == {
        "journal_mode": "delete",
        "synchronous": 3,
        "foreign_keys": 1,
        "mmap_size": 0,
        "busy_timeout": 0,
    }


def test_ctrl_z_waits_for_the_end_of_a_transaction(home: Home) -> None:
    code = """
        import os, signal
        opened, seen = open_database(home), []
        signal.signal(signal.SIGTSTP, lambda *_: seen.append("stopped"))
        def verb():
            os.kill(os.getpid(), signal.SIGTSTP)
            seen.append("written")
        opened.write(verb)
        print(*seen)
        opened.close()
    """
    create(home)
    assert said(child(code, home)).split() == ["written", "stopped"]


def test_it_is_ours_alone_whatever_the_umask(home: Home) -> None:
    before = os.umask(0)
    try:
        create(home)
        assert os.umask(0) == 0, "the umask of the process is as it was"
    finally:
        os.umask(before)
    for path in home.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_locked_database_is_waited_for(home: Home) -> None:
    """Longer than SQLite's own patience of 5 s: the verb is tried again, and done exactly once."""
    create(home)
    opened = open_database(home)
    holder = child(
        """
        import sqlite3, time
        other = sqlite3.connect(home.database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        print("held", flush=True)
        time.sleep(6)
        other.execute("COMMIT")
        other.close()
        """,
        home,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    began_s = time.monotonic()
    enqueue_run(opened, "late", "late", SPEC, 1.0, "queued")
    assert time.monotonic() - began_s > 5
    assert [run.id for run in queries.list_runs(opened)].count("late") == 1
    opened.close()
    said(holder)


def test_opening_waits_for_the_lock_too(home: Home) -> None:
    create(home)
    holder = child(
        """
        import sqlite3, time
        other = sqlite3.connect(home.database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        print("held", flush=True)
        time.sleep(1.5)
        other.execute("COMMIT")
        other.close()
        """,
        home,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    opened = open_database(home)
    assert len(queries.list_runs(opened)) == 1
    opened.close()
    said(holder)


def test_one_that_stays_locked_is_refused_with_advice(home: Home) -> None:
    create(home)
    opened = open_database(home)
    opened.patience_s = 0.2
    other = sqlite3.connect(home.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(DatabaseBusy, match="fuser"):
            add_run(opened, "x")
        assert len(queries.list_runs(opened)) == 1, "reading goes on beside a writer"
    finally:
        other.execute("ROLLBACK")
        other.close()
    add_run(opened, "x")
    opened.close()


FILL_UP = """
done = 0
try:
    for number in range(5000):
        enqueue_run(opened, f"n{number}", "x" * 3000, SPEC, 1.0, "queued")
        done += 1
except DatabaseBusy as error:
    print(error)
"""
GO_ON = """
enqueue_run(opened, "after", "after", SPEC, 1.0, "queued")
print(len(queries.list_runs(opened)) - done)
opened.close()
"""


def test_a_file_that_may_not_grow_is_one_line_and_nothing_is_corrupt(home: Home) -> None:
    """As over a quota: the failed write changed nothing, what was written before is there, it goes on later."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))\n"
    relief = "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))"
    told, rest = said(
        child("opened = open_database(home)\n" + limit + FILL_UP + relief + GO_ON, home)
    ).splitlines()
    assert f"the disk of {home.database}" in told
    assert "nothing was changed" in told
    assert rest == "1", "all of those before, and the one after"
    assert integrity(home) == "ok"


def test_a_full_disk_is_named_and_nothing_is_corrupt(tmp_path: Path) -> None:
    """On a disk of 1 MiB of its own, in a mount namespace of its own where the kernel lets us have one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    make = """
layout.ensure(home)
(home.root / "ballast").write_bytes(bytes(200_000))
opened = open_database(home)
"""
    relief = "(home.root / 'ballast').unlink()"
    words = [*program("database_snippet"), str(mount / "home"), make + FILL_UP + relief + GO_ON + CHECK]
    inside = f"mount -t tmpfs -o size=1m tmpfs {mount} && exec {shlex.join(words)}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", inside],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace to be had: {done.stderr.strip()}")
    told, rest, sound = done.stdout.splitlines()
    assert "no room left on the disk" in told, done.stderr
    assert (rest, sound) == ("1", "ok")


def test_a_forked_child_cannot_use_it_and_does_no_harm(home: Home) -> None:
    """A child that so much as closes an inherited connection corrupts the file under its parent."""
    told = said(
        child(
            """
            import gc, os, sys

            def use_in_child():
                global opened
                uses = (lambda: queries.list_runs(opened), lambda: add_run(opened, "c"), opened.integrity_problem)
                refused = 0
                for use in uses:
                    try:
                        use()
                    except Exception:
                        refused += 1
                del opened
                gc.collect()
                return 0 if refused == len(uses) else 1

            def fork_inside():
                Run.update(name="renamed").where(Run.id == "before").execute()
                pid = os.fork()
                if pid == 0:
                    os._exit(use_in_child())
                return pid

            opened = open_database(home)
            add_run(opened, "before")
            assert os.waitstatus_to_exitcode(os.waitpid(opened.write(fork_inside), 0)[1]) == 0
            pid = os.fork()
            if pid == 0:
                sys.exit(use_in_child())
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            for number in range(30):
                add_run(opened, f"after{number}")
            print(opened.integrity_problem(), len(queries.list_runs(opened)), queries.find_run(opened, "before").name)
            opened.close()
            """,
            home,
        )
    )
    assert told == "None 31 renamed\n"
    assert integrity(home) == "ok"


def test_two_writers_without_pauses_both_get_on(home: Home) -> None:
    create(home)
    writers = [
        child(
            f"""
            opened = open_database(home)
            for number in range(60):
                enqueue_run(opened, f"w{who}-{{number}}", "x", SPEC, 1.0, "queued")
            opened.close()
            """,
            home,
        )
        for who in range(2)
    ]
    for writer in writers:
        said(writer)
    opened = open_database(home)
    assert len(queries.list_runs(opened)) == 121
    assert opened.integrity_problem() is None
    opened.close()


def test_every_holder_goes_on_with_the_database_that_took_its_place(home: Home) -> None:
    holder = open_database(home)
    add_run(holder, "before")
    home.database.unlink()
    assert holder.replaced()
    holder.reopen(lambda: open_database(home))
    assert not holder.replaced()
    assert queries.list_runs(holder) == []
    add_run(holder, "after")
    holder.close()
    opened = open_database(home)
    assert [run.id for run in queries.list_runs(opened)] == ["after"]
    opened.close()


def test_one_that_could_not_be_opened_again_is_busy_until_it_could(home: Home) -> None:
    holder = open_database(home)

    def fail() -> Database:
        raise DatabaseBusy("no room left")

    with pytest.raises(DatabaseBusy, match="no room left"):
        holder.reopen(fail)
    with pytest.raises(DatabaseBusy, match="until it is repaired"):
        queries.list_runs(holder)
    with pytest.raises(DatabaseBusy, match="until it is repaired"):
        add_run(holder, "x")
    holder.reopen(lambda: open_database(home))
    add_run(holder, "x")
    holder.close()
