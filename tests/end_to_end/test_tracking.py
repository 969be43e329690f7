"""What trackers and caches see: all segments of a run are one, until the user starts it again from the beginning."""

import json
import sqlite3
from pathlib import Path

import pytest

from backprop.worker.environment import mlflow
from tests.support.harness import Bench

OURS = ("WANDB_", "MLFLOW_", "TENSORBOARD_", "TORCHINDUCTOR_", "BACKPROP_TRACKING", "BACKPROP_TENSORBOARD")
TRAIN = """
    import json, os, pathlib, sys
    number = int(os.environ["BACKPROP_SEGMENT"])
    ours = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
    pathlib.Path(f"env-{os.environ['BACKPROP_RUN_ID']}-{number}").write_text(json.dumps(ours))
    pathlib.Path("last.ckpt").write_text(str(number))
    print(json.dumps({"event": "checkpoint_saved", "path": "last.ckpt", "step": number}), flush=True)
    sys.exit(75 if number % 3 else 0)
""".replace("OURS", repr(OURS))
SCHEMA = """
    CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL, lifecycle_stage VARCHAR(20),
                       CONSTRAINT run_pk PRIMARY KEY (run_uuid));
    CREATE TABLE tags (key VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL,
                       CONSTRAINT tag_pk PRIMARY KEY (key, run_uuid));
"""


def chain(bench: Bench, *words: str) -> tuple[str, list[dict[str, str]]]:
    """Queue the script and run it to its end; its id, and what it was given in each segment."""
    bench.script("train.py", TRAIN)
    run = bench.queue(*words, "train.py")
    return run, drain(bench, run)


def drain(bench: Bench, run: str) -> list[dict[str, str]]:
    assert bench.worker("--drain").wait(timeout=60) == 0, bench.output()
    assert bench.state(run) == "completed", bench.show(run)
    kept = sorted(bench.project.glob(f"env-{run}-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return [json.loads(path.read_text()) for path in kept]


def test_a_chain_is_one_run_to_trackers_and_from_scratch_another(bench: Bench) -> None:
    run, given = chain(bench)
    assert len(given) == 3
    assert given[0] == given[1] == given[2]
    first = given[0]
    assert first["WANDB_RUN_ID"] == first["BACKPROP_TRACKING_ID"]
    assert first["WANDB_RUN_ID"].startswith(f"{run}-")
    assert first["WANDB_RESUME"] == "allow"
    assert first["TENSORBOARD_LOGGING_DIR"] == first["BACKPROP_TENSORBOARD_DIR"]
    assert Path(first["BACKPROP_TENSORBOARD_DIR"]).parent == bench.project / "runs"
    assert not (bench.project / "runs").exists(), "a script without TensorBoard gets no folder"
    assert Path(first["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(bench.home)
    assert "MLFLOW_RUN_ID" not in first, "no MLflow run exists that could be named"

    assert bench.backprop("resume", run, "--from-scratch").returncode == 0
    again = drain(bench, run)[3:]
    assert len(again) == 3
    assert again[0] == again[1] == again[2]
    assert again[0]["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]
    assert again[0]["BACKPROP_TENSORBOARD_DIR"] != first["BACKPROP_TENSORBOARD_DIR"]
    assert again[0]["TORCHINDUCTOR_CACHE_DIR"] == first["TORCHINDUCTOR_CACHE_DIR"]

    assert bench.backprop("resume", run).returncode == 0
    assert drain(bench, run)[6] == again[0], "a plain resume goes on with the curve there is"


def test_another_run_is_another_one_but_shares_what_was_compiled(bench: Bench) -> None:
    _, one = chain(bench)
    _, other = chain(bench)
    assert one[0]["WANDB_RUN_ID"] != other[0]["WANDB_RUN_ID"]
    assert one[0]["TORCHINDUCTOR_CACHE_DIR"] == other[0]["TORCHINDUCTOR_CACHE_DIR"]


def test_what_the_user_set_stays(bench: Bench) -> None:
    theirs = {
        "WANDB_RUN_ID": "mine",
        "MLFLOW_RUN_ID": "0" * 32,
        "TENSORBOARD_LOGGING_DIR": "/elsewhere",
        "TORCHINDUCTOR_CACHE_DIR": "/fast",
    }
    _, given = chain(bench, *(word for pair in theirs.items() for word in ("--env", "=".join(pair))))
    for one in given:
        assert theirs.items() <= one.items()
        assert one["BACKPROP_TENSORBOARD_DIR"] == "/elsewhere"
        assert one["WANDB_RESUME"] == "allow"
        assert "MLFLOW_RUN_CONTEXT" not in one
    _, given = chain(bench, "--env", "WANDB_RESUME=must")
    assert "WANDB_RUN_ID" not in given[0], "who resumes W&B runs in a way of their own is left alone"


def test_mlflows_run_is_named_from_the_second_segment_on(bench: Bench) -> None:
    """The script writes what `mlflow.start_run` writes into its default store, without a run id or with one."""
    bench.script(
        "mlflow_like.py",
        f"""
        import json, os, sqlite3
        def start_run():
            store = sqlite3.connect("mlflow.db")
            store.executescript({SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS")!r})
            known = os.environ.get("MLFLOW_RUN_ID")
            if known:
                assert store.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (known,)).fetchone(), "unknown run"
                return
            store.execute("INSERT INTO runs VALUES ('feed', 'active')")
            for name, value in json.loads(os.environ["MLFLOW_RUN_CONTEXT"]).items():
                store.execute("INSERT INTO tags VALUES (?, ?, 'feed')", (name, value))
            store.commit()
        """,
    )
    bench.script("train.py", "import mlflow_like; mlflow_like.start_run()\n" + TRAIN.replace("\n    ", "\n"))
    run = bench.queue("train.py")
    given = drain(bench, run)
    assert [one.get("MLFLOW_RUN_ID") for one in given] == [None, "feed", "feed"]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("a", "active", False)], "a"),
        ([], None),
        ([("a", "deleted", False)], None),
        ([("a", "active", False), ("b", "active", False)], None),
        ([("a", "active", False), ("b", "active", True)], "a"),
        ([("a", "deleted", False), ("b", "active", False)], "b"),
    ],
    ids=["one", "none", "deleted", "one a fold", "with a child", "one that was deleted"],
)
def test_which_of_mlflows_runs_is_meant(
    tmp_path: Path, runs: list[tuple[str, str, bool]], expected: str | None
) -> None:
    store = sqlite3.connect(tmp_path / "mlflow.db")
    store.executescript(SCHEMA)
    for name, stage, child in runs:
        store.execute("INSERT INTO runs VALUES (?, ?)", (name, stage))
        store.execute("INSERT INTO tags VALUES (?, 'me', ?)", (mlflow.TAG, name))
        if child:
            store.execute("INSERT INTO tags VALUES (?, 'a', ?)", (mlflow.PARENT_TAG, name))
        tags = tmp_path / "files" / "0" / name / "tags"
        tags.mkdir(parents=True)
        (tags.parent / "meta.yaml").write_text(f"lifecycle_stage: {stage}\n")
        (tags / mlflow.TAG).write_text("me")
        if child:
            (tags / mlflow.PARENT_TAG).write_text("a")
    store.execute("INSERT INTO runs VALUES ('other', 'active')")
    store.execute("INSERT INTO tags VALUES (?, 'somebody else', 'other')", (mlflow.TAG,))
    store.commit()
    store.close()
    assert mlflow.run_of("me", tmp_path, {}) == expected
    assert (
        mlflow.run_of("me", Path("/"), {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}) == expected
    )
    assert mlflow.run_of("me", tmp_path, {"MLFLOW_TRACKING_URI": "file:files"}) == expected
    assert mlflow.run_of("me", tmp_path, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}) is None


def test_a_store_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    assert mlflow.run_of("me", tmp_path, {}, known="before") == "before"
    assert mlflow.run_of("me", tmp_path, {}) is None
