"""Whatever we create is closed to others, under an umask that would leave everything open."""

import stat
from pathlib import Path

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench

OPEN = ("sh", "-c", 'umask 000; exec "$0" "$@"', str(COMMAND))
SAVES = """
    import json, os, sys
    name = os.environ["BACKPROP_RUN_ID"] + ".ckpt"
    with open(name, "w") as file:
        file.write(os.environ["BACKPROP_SEGMENT"])
    print(json.dumps({"event": "checkpoint_saved", "path": name, "step": int(os.environ["BACKPROP_SEGMENT"])}))
    sys.exit(75 if os.environ["BACKPROP_SEGMENT"] == "1" else 0)
"""


def open_to_others(home: Path) -> list[str]:
    """Return what in the home is not its owner's alone. A link has no mode of its own."""
    return [
        f"{path.relative_to(home)} {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in sorted(home.rglob("*"))
        if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]


def test_every_file_we_make_is_its_owners_alone(bench: Bench) -> None:
    """A chain, hooks, copies of the code for one run, a resumed one and a batch, kept checkpoints, a kept text."""
    bench.home.mkdir(mode=0o700)
    (bench.home / "config.json").write_text('{"hooks": {"completed": "echo heard", "queue_empty": "exit 3"}}')
    (bench.home / "config.json").chmod(0o600)
    bench.script("train.py", SAVES)
    bench.script("pkg/other.py", "")
    one = bench.queue("--snapshot-code", "train.py", command=OPEN)
    held = bench.queue("--hold", "train.py", command=OPEN)
    done = bench.backprop(
        "run", *QUIET_LIMITS, "--snapshot-code", "--grid", "x=1,2", "train.py", "--", "{x}", command=OPEN
    )
    assert done.returncode == 0, done.stderr
    assert open_to_others(bench.home) == []
    editor = bench.script("editor", "#!/bin/sh\necho 'nonsense =' >> \"$1\"\n")
    editor.chmod(0o755)
    assert bench.backprop("edit", held, env={"EDITOR": str(editor)}, command=OPEN).returncode == 6
    assert bench.worker("--drain", command=OPEN).wait(timeout=60) == 0
    assert bench.state(one) == "completed"
    assert bench.backprop("resume", held, command=OPEN).returncode in (0, 10)
    assert bench.backprop("prune", "--keep-last", "0", "--compress-logs", command=OPEN).returncode == 0
    made = {path.name for path in bench.home.rglob("*")}
    assert made >= {"hooks.log", "code.json", "code", "batches", "edits", "backups", "spec.json", "log"}
    assert open_to_others(bench.home) == []
