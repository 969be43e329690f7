"""Scripts in interpreters that our folder of integrations is on the path of, with stubs of the frameworks."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from backprop.worker.environment.integrations import FOLDER


class Script:
    """A script beside a stub of a framework, started as a run's process is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segment = folder / "run" / "1"
        self.segment.mkdir(parents=True)
        self.checkpoint = folder / "checkpoint-3"

    def module(self, name: str, text: str) -> None:
        """Put a module of a stub where its scripts import it: `transformers/trainer.py`."""
        path = self.folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([FOLDER, str(self.folder / "site")])
        inside = {
            "BACKPROP_RUN_ID": "r",
            "BACKPROP_SEGMENT": "1",
            "BACKPROP_EVENTS": str(self.segment / "events.jsonl"),
            "BACKPROP_INTEGRATIONS": "r:1:abc",
            "BACKPROP_RESUME_FROM": str(self.checkpoint),
        }
        return {"PATH": os.environ["PATH"], "PYTHONPATH": path, **inside, **more}

    def run(self, text: str, *options: str, environment: Mapping[str, str] | None = None) -> tuple[str, str]:
        """Return what a script of this text printed, and what stands in its errors."""
        path = self.folder / "train.py"
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, *options, str(path)],
            env=dict(environment) if environment is not None else self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    @property
    def notes(self) -> set[str]:
        return {path.name for path in self.segment.iterdir()}
