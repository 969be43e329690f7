"""The way of a checkpoint from its event to the next segment's arguments leads through few hands.

A worker is traced while it chains two segments: which functions had a checkpoint's path, or a record with it, in a
variable. A module that is neither on the way nor known to stand beside it fails the test: put it where it belongs.
"""

import json
import subprocess
from pathlib import Path

from tests.support.harness import SCRIPTS, Bench, program

WAY = {
    "segments.events": "parses the line",
    "segments.log_reader": "reads it from the log",
    "segments.live": "asks for it once per tick",
    "checkpoints.validation": "checks the file, when announced and again before use",
    "store.writes.progress": "stores it",
    "store.reads.queries": "returns what is stored",
    "checkpoints.start_point": "adds backups, and decides",
    "checkpoints.resume": "takes the newest good one, and builds the arguments",
    "admission.preparation": "takes the run's lock for it",
    "admission.start": "claims, and orders the segment",
}
BESIDE = {
    "store.rows": "turns any row into its record",
    "store.writes.claims": "keeps a copy in the segment's row, for people",
    "checkpoints.formats": "looks into the file",
    "checkpoints.suspects": "leaves out what a segment failed with at once",
    "checkpoints.fallback": "asks whether a segment failed with it at once",
    "checkpoints.rotation.choice": "asks whether older ones may go",
    "checkpoints.rotation.judging": "asks whether older ones may go",
    "checkpoints.rotation.rotator": "has older ones removed",
    "checkpoints.roots": "says where files may lie",
    "checkpoints.manager": "remembers what the segment began with, to know what it saved itself",
    "checkpoints.scanner": "finds it on disk as well",
    "checkpoints.fingerprint": "compares it with what the segment began with",
    "checkpoints.candidate": "checks what was found on disk",
    "checkpoints.directory_scan": "looks at what was found on disk",
    "checkpoints.open_files": "asks whether it is being written",
    "checkpoints.content.results": "compares it with earlier saves",
    "checkpoints.content.torch_file": "looks into the file",
    "checkpoints.seen.attribution": "says who wrote it",
    "checkpoints.seen.baseline": "tells it from what lay there before",
    "checkpoints.seen.company": "asks who wrote it",
    "checkpoints.seen.evidence": "asks who wrote it",
    "checkpoints.seen.finder": "finds it on disk as well",
    "checkpoints.seen.overseer": "asks who wrote it, and says so",
    "checkpoints.seen.looks_like": "looks at its name",
    "checkpoints.seen.noted": "notes it for a database put together anew",
    "checkpoints.seen.places": "compares it with where runs save",
    "checkpoints.seen.witness": "sees it open",
    "store.reads.company": "returns who wrote it",
    "store.reads.disk_use": "adds up what it takes on disk",
    "admission.admission": "hands on what preparation returns",
    "admission.promises": "hands on what preparation returns",
    "environment.leader": "puts it into a variable as well",
    "environment.nodes": "names it as the nodes of a cluster see it",
    "environment.presence": "notes the disk it lies on",
    "executor.base": "holds the arguments",
    "executor.local": "holds the arguments",
    "executor.segment_files": "writes the arguments",
    "segments.cadence": "asks when it was saved",
    "segments.boxes.facts": "asks when it was saved",
    "segments.boxes.keeper": "takes what it saved for a sign of life",
    "segments.boxes.known": "asks whether a segment went on from it",
    "segments.boxes.suspender": "is handed the row of the segment",
    "segments.boxes.segment_boxes": "hands it on to the decision",
    "segments.boxes.pulse": "takes what it saved for a sign of life",
    "segments.hang.guard": "asks the segments before it for their rhythm",
    "segments.timebox": "asks when it was saved",
    "segments.ends.chain": "asks whether any is good",
    "segments.ends.result": "asks when it was saved",
    "segments.finalize": "asks whether there is one",
    "segments.tracker": "prints an order that failed",
    "console.console": "prints the line that names it",
    "console.pane": "lays that line out",
    "machine.state": "reads the segment's row",
    "machine.monitor": "reads the segment's row",
    "machine.gpu_usage": "reads the segment's row",
    "governor.need": "reads the segment's row",
    "console": "prints it",
    "home.file_reading": "opens the file",
    "user_files": "hands on what a look returns",
}
HOLDERS = {
    "CheckpointEvent",
    "CheckpointFile",
    "CheckpointRecord",
    "SegmentReport",
    "StartPoint",
    "PreparedRun",
}
OTHER_HOLDERS = {
    "_Heard": "what a look hands on",
    "Written": "who wrote it",
    "Attributed": "what is known to be its own",
    "RunRows": "what is stored, as a look is given it",
    "Saves": "what a live segment has saved",
    "SeenSaves": "the newest, for the end of a box",
    "Look": "a sign of life",
    "Pulse": "a sign of life",
    "_Line": "the parser's own, before the event",
    "_Round": "what admission hands on",
    "Claim": "the copy for people",
    "SegmentRecord": "the same, read back",
    "MachineState": "the rows of what is live",
    "SegmentOrder": "the arguments",
    "OrderFile": "the arguments",
    "BeforeFile": "what lay there before",
}


def test_few_modules_and_records_pass_it_on(bench: Bench, tmp_path: Path) -> None:
    assert (len(WAY), len(HOLDERS)) == (10, 6)
    run = bench.queue(str(SCRIPTS / "trainer.py"), "-m", "0.05", "--", "--steps", "240")
    out = tmp_path / "way.json"
    done = subprocess.run(
        [*program("trace_value"), str(out), r"ckpt-\d+"],
        env=bench.environment, cwd=bench.project, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bench.show(run)["segments"][-1]["checkpoint_used"] is not None
    traced = json.loads(out.read_text())
    modules = {name.removeprefix("backprop.").split(".", 1)[1] for name in traced["modules"]}
    assert modules >= set(WAY)
    assert modules - set(WAY) <= set(BESIDE)
    assert set(traced["holders"]) >= HOLDERS
    assert set(traced["holders"]) - HOLDERS <= set(OTHER_HOLDERS)
