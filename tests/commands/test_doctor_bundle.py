"""`backprop doctor --bundle FILE`: one text file for a report, from which nothing secret can be read."""

import json

from backprop.scheduler.home.credentials import masked_lines
from tests.support.harness import QUIET_LIMITS, Bench
from tests.support.refusals import refused

SECRETS = ("hf_abcdefghijklmnopqrst", "hunter2-long", "sekrit", "swordfish")
PRINTS_SECRETS = f"""
    print("loading", "{SECRETS[0]}")
    print("WANDB_API_KEY={SECRETS[1]}")
    print("cloning https://me:{SECRETS[3]}@example.com/repo")
    print("\\x1b]0;title\\x07plain words", flush=True)
    raise SystemExit("no such layer")
"""


def failed_run(bench: Bench) -> str:
    bench.script("backprop.config.json", '{"gpu": {"probe": "none"}, "maxRunMinutes": 7}')
    bench.script("train.py", PRINTS_SECRETS)
    done = bench.backprop("run", "-q", "--follow", *QUIET_LIMITS, "train.py", "--", "--token", SECRETS[2])
    assert done.returncode == 20, done
    return done.stdout.split()[0]


def test_it_has_what_a_report_needs(bench: Bench) -> None:
    failed_run(bench)
    done = bench.backprop("doctor", "--bundle", "report.txt")
    assert "wrote report.txt" in done.stderr
    path = bench.project / "report.txt"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    for line in (
        "## Versions", "\nclick ", "SQLite", "## Checks", "note  terminal:", "## Settings",
        "\nmaxRunMinutes = 7   (", "## Queue", "1 run failed", "## Last segments", "segment 1: failed",
        "## Log of train (", "command  python", "  | no such layer",
    ):  # fmt: skip
        assert line in text, line
    assert "\x1b" not in text


def test_what_looks_like_a_credential_is_masked_wherever_it_stands(bench: Bench) -> None:
    bench.home.mkdir(mode=0o700)
    hook = f"curl -H x https://bot:{SECRETS[3]}@example.com/hook"
    (bench.home / "config.json").write_text(json.dumps({"hooks": {"failed": hook}}))
    failed_run(bench)
    bench.backprop("doctor", "--bundle", "report.txt")
    text = (bench.project / "report.txt").read_text()
    assert "hooks.failed = curl" in text
    for secret in SECRETS:
        assert secret not in text, secret
    assert "WANDB_API_KEY=***" in text
    assert "--token '***'" in text or "--token ***" in text


def test_the_home_directory_is_written_as_a_tilde(bench: Bench) -> None:
    bench.backprop("doctor", "--bundle", "report.txt", env={"HOME": str(bench.project.parent)})
    text = (bench.project / "report.txt").read_text()
    assert str(bench.project.parent) not in text
    assert "home: ~/home does not exist yet" in text


def test_it_overwrites_nothing_and_a_dry_run_writes_nothing(bench: Bench) -> None:
    (bench.project / "mine.txt").write_text("mine")
    done = bench.backprop("doctor", "--bundle", "mine.txt")
    assert (done.returncode, "mine.txt exists already" in done.stderr) == (6, True)
    assert (bench.project / "mine.txt").read_text() == "mine"
    assert "cannot be written" in bench.backprop("doctor", "--bundle", "none/x.txt").stderr
    bench.backprop("doctor", "--dry-run", "--bundle", "other.txt")
    assert not (bench.project / "other.txt").exists()
    assert refused(bench, 2, "doctor", "--bundle")


def test_a_home_that_is_damaged_or_missing_still_gives_a_report(bench: Bench) -> None:
    bench.home.mkdir(mode=0o700)
    (bench.home / "backprop.db").write_bytes(b"no database at all" * 100)
    done = bench.backprop("doctor", "--bundle", "report.txt")
    assert done.returncode == 24
    text = (bench.project / "report.txt").read_text()
    assert "bad   database:" in text
    assert "no database of this version" in text
    done = bench.backprop("doctor", "--bundle", "other.txt", env={"BACKPROP_HOME": "relative"})
    assert "is not an absolute path" in (bench.project / "other.txt").read_text()


def test_lines_are_masked_as_commands_are_and_keep_their_spaces() -> None:
    assert masked_lines("a  --api-key  x1\n\tAPI_KEY=y  z") == "a  --api-key  ***\n\tAPI_KEY=***  z"
    assert masked_lines("--token\nnext") == "--token\nnext", "a line is a command of its own"
    assert masked_lines("") == ""
