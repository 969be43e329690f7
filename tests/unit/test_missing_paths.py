"""What is missing, how often it is looked for, and when a missing checkpoint is one that was removed."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backprop.scheduler.governor.decide import Rule
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.admission.missing_paths import LOOK_AGAIN_S, MissingPaths
from backprop.worker.checkpoints.resume import choose
from backprop.worker.clock import Clock
from backprop.worker.environment import presence
from backprop.worker.environment.presence import UNMOUNTED, Absence, checkpoint_away
from backprop.worker.user_files import UserFiles
from tests.support.store_rows import SPEC, add_run, checkpoint


class HandClock(Clock):
    """A clock that a test sets."""

    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture
def run(database: Database, tmp_path: Path) -> RunRecord:
    return replace(
        add_run(database, "r1"),
        spec=msgspec.structs.replace(SPEC, cwd=str(tmp_path), program="/bin/sh", script=None),
    )


def moved(run: RunRecord, number: int, folder: Path) -> RunRecord:
    return replace(run, id=f"r{number}", spec=msgspec.structs.replace(run.spec, cwd=str(folder)))


def test_an_interpreter_that_env_looks_for_is_waited_for_wherever_it_comes_back(
    run: RunRecord, tmp_path: Path
) -> None:
    program = tmp_path / "train"
    program.write_text("#!/usr/bin/env -S mython3 -u\n")
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    environment = {"PATH": ":".join(map(str, folders))}
    absence = presence.missing_named_interpreter(str(program), environment)
    assert absence is not None
    clock = HandClock()
    paths = MissingPaths(clock)
    assert (
        paths.wait_for(run, absence)
        .sentence()
        .startswith("waits for its program: mython3 is not on its PATH")
    )
    assert paths.refusal(run) is not None
    (folders[1] / "mython3").write_text("")
    (folders[1] / "mython3").chmod(0o755)
    clock.now_s += LOOK_AGAIN_S
    paths.look_again()
    assert paths.refusal(run) is None
    assert presence.missing_named_interpreter(str(program), environment) is None
    program.write_text("#!/usr/bin/env VAR=1 mython4\n")
    assert presence.missing_named_interpreter(str(program), environment) is None, "that is not ours to tell"


def test_a_thousand_runs_below_a_missing_folder_cost_one_look_a_second(
    run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    look = presence.trouble_with
    monkeypatch.setattr(presence, "trouble_with", lambda path: (looks.append(path), look(path))[1])
    clock = HandClock()
    paths = MissingPaths(clock, UserFiles())
    runs = [moved(run, number, tmp_path / "gone" / "proj") for number in range(1000)]

    def refused() -> set[str]:
        looks.clear()
        paths.look_again()
        return {
            decision.denials[0].path or ""
            for one in runs
            if (decision := paths.refusal(one)) is not None and decision.denials[0].rule is Rule.PATH
        }

    assert refused() == {str(tmp_path / "gone")}
    assert len(looks) == 3, "the folder, and what is above it"
    assert refused()
    assert looks == []
    clock.now_s += LOOK_AGAIN_S
    assert refused() == {str(tmp_path / "gone")}
    assert looks == [str(tmp_path / "gone")]
    (tmp_path / "gone" / "proj").mkdir(parents=True)
    clock.now_s += LOOK_AGAIN_S
    assert refused() == set()
    assert len(looks) == 3, "the folder that was missing, that of the runs, and their program"


def test_looks_in_a_round_are_bounded(
    run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    paths = MissingPaths(clock, UserFiles())
    for number in range(1000):
        assert paths.refusal(moved(run, number, tmp_path / f"gone-{number}")) is not None
    looks: list[str] = []
    monkeypatch.setattr(presence, "trouble_with", lambda path: looks.append(path) or "is not there")
    clock.now_s += LOOK_AGAIN_S
    seen: set[str] = set()
    for _ in range(4):
        paths.look_again()
        assert len(looks) <= 256
        seen |= set(looks)
        looks.clear()
    assert len(seen) == 1000, "each in its turn"


def test_one_that_waits_for_a_checkpoint_is_looked_at_by_that_alone(run: RunRecord, tmp_path: Path) -> None:
    clock = HandClock()
    paths = MissingPaths(clock, UserFiles())
    gone = Absence("its checkpoint", str(tmp_path / "saved"), "is not there")
    assert paths.wait_for(run, gone).denials[0].path == gone.path
    assert paths.refusal(run) is not None
    assert paths.refusal(replace(run, segment=run.segment + 1)) is None, "it has started since then"
    paths.wait_for(run, gone)
    (tmp_path / "saved").mkdir()
    clock.now_s += LOOK_AGAIN_S
    paths.look_again()
    assert paths.refusal(run) is None


def test_a_folder_that_cannot_be_looked_at_is_no_missing_one(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    found = presence.missing("its directory", str(loop / "proj"))
    assert found is not None
    assert (found.path, "cannot be looked at" in found.trouble) == (str(loop), True)


def test_a_checkpoint_that_is_gone_alone_was_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert checkpoint_away(str(tmp_path / "run" / "1.pt")) is None
    away = checkpoint_away(str(tmp_path / "disk" / "run" / "1.pt"))
    assert away is not None
    assert away.path == str(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    linked = checkpoint_away(str(tmp_path / "link" / "1.pt"))
    assert linked is not None
    assert linked.path == str(tmp_path / "link")


def test_one_folder_of_several_was_removed_with_its_checkpoint(tmp_path: Path) -> None:
    """Where each checkpoint has a folder of its own, the others show that the disk is there."""
    paths = [str(tmp_path / "out" / f"step-{step}" / "model.pt") for step in (1, 2)]
    assert checkpoint_away(paths[1], beside=paths) is not None
    Path(paths[0]).parent.mkdir(parents=True)
    Path(paths[0]).write_text("weights")
    assert checkpoint_away(paths[1], beside=paths) is None


def test_a_mount_that_is_gone_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "1.pt")
    assert checkpoint_away(path, noted=["/", "/proc"]) is None
    away = checkpoint_away(path, noted=["/proc", str(tmp_path)])
    assert away == Absence("its disk", str(tmp_path), UNMOUNTED)
    assert away.lasts
    assert presence.empty_mount_point(str(tmp_path), [str(tmp_path)]) == away
    (tmp_path / "1.pt").write_text("weights")
    assert checkpoint_away(path, noted=[str(tmp_path)]) is None, "moved to another disk, at the same path"
    assert presence.empty_mount_point(str(tmp_path), [str(tmp_path)]) is None


def test_the_mounts_of_paths_are_noted_but_for_the_root(tmp_path: Path) -> None:
    presence.note_mounts(tmp_path, ["/"])
    assert not list(tmp_path.iterdir())
    presence.note_mounts(tmp_path, ["/proc/self/status", "/"])
    presence.note_mounts(tmp_path, ["/sys/kernel"])
    assert presence.noted_mounts(tmp_path) == ("/proc", "/sys")
    (tmp_path / presence.MOUNTS).write_text("{")
    assert presence.noted_mounts(tmp_path) == ()


def test_a_newer_checkpoint_that_is_away_is_waited_for(run: RunRecord, tmp_path: Path) -> None:
    near, far = tmp_path / "1.pt", tmp_path / "disk" / "2.pt"
    far.parent.mkdir()
    for path in (near, far):
        path.write_text("weights")
    records = [checkpoint("r1", far, segment=2), checkpoint("r1", near, segment=1)]
    hidden = far.parent.rename(tmp_path / "away")
    found = choose(run, records)
    assert (found.checkpoint, found.problem) == (None, None)
    assert found.waits_for == Absence("its checkpoint", str(far.parent), "is not there")
    hidden.rename(far.parent)
    assert choose(run, records).checkpoint == str(far)
    far.unlink()
    assert choose(run, records).checkpoint == str(near), "gone alone"
