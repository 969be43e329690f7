"""`backprop status`: the machine, the workers and the queue at a glance; with RUN, the same as `show`."""

from typing import TYPE_CHECKING, Any

import click

from backprop.cli.session import need_existing, open_existing

if TYPE_CHECKING:
    from backprop.scheduler.home import Home
    from backprop.scheduler.records import RunRecord, SegmentRecord, WorkerRecord
    from backprop.scheduler.snapshot import Gpu, Snapshot


@click.command(name="status")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(run: str | None, as_json: bool) -> None:
    """Show host, GPUs, workers and queue; or one RUN."""
    if run is not None:
        from backprop.cli.commands.show_ import show

        show(*need_existing(), run, as_json)
        return
    from backprop.cli.machine import look
    from backprop.scheduler import reads
    from backprop.scheduler.lifecycle import State
    from backprop.worker.locks import worker_alive

    home, database = open_existing()
    snapshot = look(home)
    if database is None:
        workers: list[WorkerRecord] = []
        counts: dict[State, int] = {}
        alive: list[SegmentRecord] = []
        live: list[RunRecord] = []
    else:
        workers = [one for one in reads.workers(database) if worker_alive(home.locks, one.id)]
        counts = reads.state_counts(database)
        alive = reads.live_segments(database)[1]
        live = reads.live_runs(database)
    if as_json:
        _print_json(home, snapshot, workers, counts, alive)
    else:
        _print(home, snapshot, workers, counts, alive, live)


def _print_json(
    home: "Home",
    snapshot: "Snapshot",
    workers: "list[WorkerRecord]",
    counts: dict[Any, int],
    alive: "list[SegmentRecord]",
) -> None:
    import msgspec

    from backprop.cli.views import iso, print_json

    gpus: list[dict[str, Any]] = [
        msgspec.to_builtins(gpu)
        | {"promised_to": {one.run_id: one.promised_mib for one in alive if gpu.uuid in one.gpu_uuids}}
        for gpu in snapshot.gpus
    ]
    print_json(
        {
            "home": str(home.root),
            "host": msgspec.to_builtins(snapshot.host),
            "gpu_source": snapshot.source,
            "gpu_problem": snapshot.problem,
            "gpus": gpus,
            "workers": [
                {
                    "id": one.id,
                    "pid": one.pid,
                    "max_parallel": one.max_parallel,
                    "started_at": iso(one.started_at_s),
                }
                for one in workers
            ],
            "queue": {state.value: count for state, count in counts.items()},
        }
    )


def _print(
    home: "Home",
    snapshot: "Snapshot",
    workers: "list[WorkerRecord]",
    counts: dict[Any, int],
    alive: "list[SegmentRecord]",
    live: "list[RunRecord]",
) -> None:
    from backprop.cli.table import print_pairs, print_table
    from backprop.cli.views import clock
    from backprop.scheduler.governor import amount
    from backprop.scheduler.lifecycle import State

    host = snapshot.host
    load = "cannot be read" if host.load_1m is None else f"{host.load_1m:.2f} on {host.cores} cores"
    told = [
        f"worker {one.id}, pid {one.pid}, at most {one.max_parallel} runs, since {clock(one.started_at_s)}"
        for one in workers
    ]
    queue = ", ".join(f"{counts[state]} {state}" for state in State if state in counts) or "empty"
    no_gpu = f"none can be read: {snapshot.problem}" if snapshot.problem else "none: GPU rules do not apply"
    print_pairs(
        [
            ("RAM", f"{_mib(host.ram_free_mib)} free of {_mib(host.ram_total_mib)}"),
            ("load", load),
            ("disk", f"{_mib(host.disk_free_mib)} free at {home.root}"),
            ("GPUs", f"{len(snapshot.gpus)}, read by {snapshot.source}" if snapshot.gpus else no_gpu),
            *[("worker" if not at else "", line.removeprefix("worker ")) for at, line in enumerate(told)],
            *([] if workers else [("worker", "none is running; start one with: backprop worker")]),
            ("queue", queue),
        ]
    )
    if snapshot.gpus:
        click.echo()
        rows = [
            _gpu_row(gpu, sum(one.promised_mib for one in alive if gpu.uuid in one.gpu_uuids))
            for gpu in snapshot.gpus
        ]
        columns = ("GPU", "FREE", "TOTAL", "PROMISED", "TEMP", "UTIL", "NAME")
        print_table(columns, rows, columns[:-1])
    if live:
        click.echo()
        names = {run.id: run for run in live}
        rows = [
            (
                run.id,
                run.name,
                run.state.value,
                str(run.segment),
                amount(promised) if promised else "-",
                run.reason,
            )
            for run in names.values()
            for promised in [sum(one.promised_mib for one in alive if one.run_id == run.id)]
        ]
        print_table(("RUN", "NAME", "STATE", "SEG", "PROMISED", "REASON"), rows, ("SEG", "PROMISED"))


def _gpu_row(gpu: "Gpu", promised_mib: int) -> tuple[str, ...]:
    temp = "-" if gpu.temp_c is None else f"{gpu.temp_c} °C"
    use = "-" if gpu.utilisation_pct is None else f"{gpu.utilisation_pct} %"
    name = gpu.name if gpu.error is None else f"{gpu.name}: not used: {gpu.error}"
    return str(gpu.index), _mib(gpu.free_mib), _mib(gpu.total_mib), _mib(promised_mib), temp, use, name


def _mib(value: int | None) -> str:
    from backprop.scheduler.governor import amount

    return "-" if value is None else amount(value)
