"""Where checkpoints that no script announces are looked for, and what a look may cost."""

import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.spec import Plan
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints import directory_scan, glob_walk, scanner
from backprop.worker.checkpoints.candidate import step_in
from backprop.worker.checkpoints.resume import picks_itself
from backprop.worker.checkpoints.seen.baseline import Beginning
from tests.support.store_rows import SPEC
from tests.support.unannounced_run import CLEAN, Watched, names
from tests.support.watched_checkpoints import looks


def test_outside_of_what_was_named_nothing_is_taken(watched: Watched, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.pt").write_text("weights")
    watched.start()
    (watched.out / "link.pt").symlink_to(elsewhere / "a.pt")
    (found,) = watched.scanner().final_scan(CLEAN)
    assert "outside the run's folders" in str(found.record.refused)
    watched.store([found])
    watched.store(watched.scanner().final_scan(CLEAN))
    assert len(queries.checkpoints(watched.database, "r1")) == 1, "said once"


def test_the_folder_of_a_pattern_may_be_anywhere(watched: Watched, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    watched.start(globs=(f"{elsewhere}/*.pt",))
    (elsewhere / "a.pt").write_text("weights")
    (found,) = watched.scanner().final_scan(CLEAN)
    assert found.record.refused is None


def test_the_queue_itself_is_never_opened(watched: Watched) -> None:
    """Closing a second descriptor of the database would drop the locks of the first."""
    watched.start(globs=(f"{watched.home.parent}/**/*.db", f"{watched.out}/*"))
    (watched.out / "a.db").write_text("weights")
    assert names(watched.scanner().final_scan(CLEAN)) == ["a.db"]


def test_twenty_thousand_files_are_looked_at_in_bounded_steps(
    watched: Watched, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20_000):
        (watched.out / f"{number}.dat").touch()
        os.utime(watched.out / f"{number}.dat", (1, 1))
    watched.start()
    (watched.out / "new.pt").write_text("weights")
    worker = watched.scanner()
    longest_s, found, count = 0.0, list[str](), 0
    while not found:
        began_s = time.monotonic()
        found = names(worker.scan())
        longest_s = max(longest_s, time.monotonic() - began_s)
        count += 1
        assert count < 200
        time.sleep(0.01)
    assert found == ["new.pt"]
    assert longest_s < 2.0, "its own bound is a quarter of a second; a loaded machine adds to it"
    entries: list[str | None] = []

    def counted(pattern: str) -> Iterator[str | None]:
        for entry in glob_walk.walk(pattern):
            entries.append(entry)
            yield entry

    monkeypatch.setattr(directory_scan, "walk", counted)
    one = directory_scan.DirectoryScan((f"{watched.out}/*",), Beginning(time.time() - 60), watched.home)
    began_s = time.monotonic()
    assert not one.step(entries=1000, within_s=60)
    cost_s = time.monotonic() - began_s
    assert len(entries) == 1000
    with capsys.disabled():
        print(f"\n1,000 entries {cost_s * 1000:.1f} ms; longest of {count} looks {longest_s * 1000:.0f} ms")


def test_a_slow_look_is_followed_by_a_long_pause(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "COST_SHARE", 1e-6)
    watched.start()
    (watched.out / "a.pt").write_text("weights")
    assert looks(watched.scanner(), 0.4) == [], "the second look is far away"


@pytest.mark.parametrize(
    "pattern",
    [
        "a/*.pt",
        "a/**/*.pt",
        "**",
        "*/b/../b/*",
        "a/[bc]/1.pt",
        "a/b/1.pt",
        "a/.h/*",
        "**/b",
        "no/*",
        "a/?/*.pt",
    ],
)
def test_patterns_mean_what_they_mean_to_glob(tmp_path: Path, pattern: str) -> None:
    for name in ("a/1.pt", "a/b/1.pt", "a/b/2.txt", "a/c/d/1.pt", "a/.h/1.pt", "a/.x.pt", "e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    full = os.path.normpath(f"{glob.escape(str(tmp_path))}/{pattern}")
    found = {path for path in glob_walk.walk(full) if path is not None}
    expected = {os.path.normpath(path) for path in glob.glob(full, recursive=True)}  # noqa: PTH207
    assert found - {str(tmp_path)} == expected - {str(tmp_path)}
    assert all(glob_walk.matches(path, full) for path in found)
    assert not glob_walk.matches(f"{tmp_path}/zzz/zzz/zzz", full) or pattern == "**"
    assert glob_walk.fixed_folder("/x/y/a-*/b.pt") == Path("/x/y")
    assert glob_walk.fixed_folder("/x/y/b.pt") == Path("/x/y")


@pytest.mark.parametrize(
    ("path", "pattern", "step"),
    [
        ("/out/checkpoint-120", r"checkpoint-(\d+)", 120),
        ("/out/step_7/model.pt", r"step_(\d+)", 7),
        ("/out/step_7/step_9.pt", r"step_(\d+)", 9),
        ("/out/last.pt", r"step_(\d+)", None),
        ("/out/last.pt", None, None),
        ("/out/last.pt", "(", None),
        ("/out/last.pt", "last", None),
        ("/out/x-a.pt", "x-(.)", None),
    ],
)
def test_the_step_in_a_name(path: str, pattern: str | None, step: int | None) -> None:
    assert step_in(path, pattern) == step


@pytest.mark.parametrize(
    ("resume_arg", "plan", "picks"),
    [
        ("auto", {"resumes": "rerun"}, True),
        ("auto", {"resumes": "append", "resume_words": ["--resume", "{checkpoint}"]}, False),
        ("auto", {"resumes": "append", "resume_words": ["--resume=auto"]}, True),
        ("auto", {"resumes": "none"}, False),
        ("--load {checkpoint}", {"resumes": "rerun"}, False),
        ("none", {"resumes": "unknown"}, True),
        ("auto", None, False),
    ],
)
def test_who_chooses_the_checkpoint(resume_arg: str, plan: dict[str, object] | None, picks: bool) -> None:
    made = msgspec.convert(plan, Plan) if plan is not None else None
    spec = msgspec.structs.replace(SPEC, resume_arg=resume_arg, plan=made)
    assert picks_itself(spec) is picks
