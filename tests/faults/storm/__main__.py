"""Have storms: python -m tests.faults.storm --minutes 5 --seed 1

Ends with 1 and keeps the folder when a promise was broken. The same seed deals the same blows at the same times; what
they hit depends on the machine. The home gets a small disk of its own where the kernel lets us mount one (as root, or
in a user namespace); without, no disk is filled. The wall clock is moved where gcc is installed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.storm.conductor import rage

DISK_MIB = 64
"""Room for everything that a storm leaves behind, and soon filled."""
INSIDE = "--on-disk"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument(
        "--folder", type=Path, help="where to work; default: a new one, removed if all was well"
    )
    parser.add_argument(INSIDE, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="storm-"))
    if options.on_disk is None and (code := _on_a_disk(folder, options)) is not None:
        return code
    if options.on_disk is None:
        print("no disk of its own to be had: no disk is filled", flush=True)
    print(f"seed {options.seed}, {options.minutes:g} min, in {folder}", flush=True)
    faults = rage(
        folder,
        options.seed,
        options.minutes * 60,
        options.runs,
        options.on_disk,
        lambda line: print(line, flush=True),
    )
    for fault in faults:
        print(f"FAULT {fault}", flush=True)
    if faults and options.on_disk is not None:
        shutil.copytree(
            options.on_disk, folder / "kept", ignore=shutil.ignore_patterns("*.wake")
        )  # the disk goes
    if not faults and options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if faults else 0


def _on_a_disk(folder: Path, options: argparse.Namespace) -> int | None:
    """The whole storm again in a mount namespace with a small disk; None where that cannot be had."""
    disk = folder / "disk"
    disk.mkdir(parents=True, exist_ok=True)
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={DISK_MIB}m,mode=700 tmpfs '{disk}'"
    if shutil.which("unshare") is None or subprocess.run([*probe, mount], capture_output=True).returncode:
        return None
    words = [
        sys.executable,
        "-m",
        "tests.faults.storm",
        "--minutes",
        str(options.minutes),
        "--seed",
        str(options.seed),
    ]
    words += ["--runs", str(options.runs), "--folder", str(folder), INSIDE, str(disk)]
    quoted = " ".join(f"'{word}'" for word in words)
    code = subprocess.run([*probe, f"{mount} && exec {quoted}"], check=False, env=os.environ).returncode
    if code == 0 and options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
