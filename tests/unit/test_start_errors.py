"""An error of a start is the run's own where it was met at the run's directory or program, else the machine's."""

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backprop.scheduler.store.reads import queries
from backprop.worker.executor.segment_files import ExitRecord, OrderFile
from backprop.worker.segments.ends.result import result_of
from tests.support.store_rows import add_run, claimed

OURS = "/somebodys/home/.backprop/runs/r/1/log"


@pytest.mark.parametrize(
    ("number", "where", "passes"),
    [
        (errno.EACCES, None, True),  # a look at what was open already
        (errno.EACCES, OURS, True),
        (errno.EPERM, OURS, True),
        (errno.EACCES, "program", False),
        (errno.EACCES, "cwd", False),
        (errno.E2BIG, "program", False),
        (errno.ENOEXEC, "program", False),
        (errno.ENOMEM, "program", True),
        (errno.ENOTCONN, "program", True),
        (errno.ETIMEDOUT, "cwd", True),
        (errno.ELOOP, OURS, False),  # a link was planted there
        (errno.ENOENT, OURS, False),
        (None, None, False),  # a value that the system takes in no case
    ],
)
def test_whose_fault_an_error_of_a_start_is(
    tmp_path: Path, database: Any, number: int | None, where: str | None, passes: bool
) -> None:
    run, program = claimed(database, add_run(database, "r")), tmp_path / "train"
    program.touch()
    order = OrderFile(
        spec="", program=str(program), argv=(), cwd=str(tmp_path), umask=0, environment={}, cookie=(),
        timebox_s=1.0, grace_s=1.0, stop_signal=2,
    )  # fmt: skip
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))
    path = {"program": str(program), "cwd": str(tmp_path)}.get(where or "", where)
    why = os.strerror(number) if number is not None else "embedded null byte"
    end = ExitRecord(could_not_start=why, errno=number, path=path, ended_at_s=1.0)
    result = result_of(run, queries.segments(database, run.id)[0], end, tmp_path)
    assert result.could_not_start == why
    assert result.passing is passes
    assert not result.missing
