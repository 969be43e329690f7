"""A home that knows a Slurm of two nodes as `lab`, for tests of runs that go there."""

import json
import shutil
from pathlib import Path

from tests.support.harness import SCRIPTS, Bench, wait_until
from tests.support.slurm_cluster import SlurmCluster

LEASE_S = 12


class Lab:
    """A bench whose runs may go to a Slurm of its own. `folder`: what the nodes see."""

    def __init__(self, bench: Bench, slurm: SlurmCluster, folder: Path) -> None:
        self.bench = bench
        self.slurm = slurm
        self.folder = folder
        bench.environment |= slurm.environment
        bench.home.mkdir(mode=0o700, exist_ok=True)
        self.configure()

    def configure(self, **changes: object) -> None:
        """Write the user's configuration, with further keys of the cluster."""
        lab = {
            "engine": "slurm",
            "folder": str(self.folder),
            "pollSeconds": 1,
            "leaseSeconds": LEASE_S,
        } | changes
        (self.bench.home / "config.json").write_text(json.dumps({"clusters": {"lab": lab}}))

    def queue(self, *words: str) -> str:
        """Queue a run for the cluster, without a GPU."""
        return self.bench.queue("--on", "lab", "--gpus", "0", *words)

    def script(self, name: str = "steps.py") -> Path:
        """Put the training script of these tests into the project."""
        return Path(shutil.copy(SCRIPTS / name, self.bench.project))

    def job(self, run: str) -> str:
        """Return the number of the run's newest job, once it is known."""
        found: list[str] = []

        def known() -> bool:
            found[:] = [one for one in [self.bench.show(run)["segments"][-1].get("job")] if one]
            return bool(found)

        wait_until(lambda: self.bench.show(run)["segments"] and known(), saw=lambda: self.bench.output())
        return found[-1]

    def steps(self, run: str) -> list[tuple[int, str]]:
        """Return the steps that the run's leaders have done, in order, each with its segment. Raises AssertionError
        for a step that does not follow from the one before."""
        folder = self.bench.project / f"steps-{run}"
        found: list[tuple[int, str]] = []
        for path in sorted(folder.glob("[0-9]*.json"), key=lambda path: int(path.stem)):
            if not (text := path.read_text()):
                continue  # it is being written
            step = json.loads(text)
            found.append((int(path.stem), step["segment"]))
        return found
