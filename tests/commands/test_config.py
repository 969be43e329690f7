"""`backprop config`: what would apply in this directory, and who said so."""

import json

from tests.support.harness import Bench
from tests.support.refusals import refused


def shown(bench: Bench, *words: str) -> dict[str, tuple[object, str]]:
    """Value and source by key."""
    done = bench.backprop("config", "--json", *words)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert all(set(row) == {"key", "value", "source"} for row in rows)
    return {row["key"]: (row["value"], row["source"]) for row in rows}


def test_defaults(bench: Bench) -> None:
    found = shown(bench)
    assert found["maxRunMinutes"] == (10, "default")
    assert found["maxParallel"] == (2, "default")
    assert found["minFreeRamGB"] == (4, "default")
    assert found["gpu.probe"] == ("auto", "default")
    assert found["gpu.minFreeVramMB"] == (2500, "default")
    assert found["gpu.maxTempC"] == (85, "default")
    assert found["graceSeconds"] == (30, "default")
    assert found["stopSignal"] == ("INT", "default")
    assert found["gpuMemoryLimit"] == (None, "default")
    assert found["autoResume"] == (True, "default")
    assert found["checkpointRoots"] == ([], "default")
    assert not bench.home.exists(), "looking creates nothing"


def test_each_value_names_the_file_it_comes_from(bench: Bench) -> None:
    bench.home.mkdir(mode=0o700)
    user = bench.home / "config.json"
    user.write_text('{"maxParallel": 5, "graceSeconds": 9, "checkpointRoots": ["/data"]}')
    project = bench.script(
        "backprop.config.json", '{"maxParallel": 7, "gpu": {"maxTempC": 70}, "runId": "x"}'
    )
    found = shown(bench)
    assert found["maxParallel"] == (7, str(project))
    assert found["gpu.maxTempC"] == (70, str(project))
    assert found["graceSeconds"] == (9, str(user))
    assert found["checkpointRoots"] == (["/data"], str(user))
    other = bench.script("other.json", '{"maxParallel": 3}')
    assert shown(bench, "--config", "other.json")["maxParallel"] == (3, str(other))
    done = bench.backprop("config")
    assert "runId is ignored" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["KEY", "VALUE", "SOURCE"]
    assert ["maxParallel", "7", str(project)] in rows
    assert len(rows) == len(found) + 1


def test_a_bad_file_is_one_line_that_names_file_key_and_what_was_expected(bench: Bench) -> None:
    project = bench.script("backprop.config.json", '{"maxRunMinutes": "ten"}')
    said = refused(bench, 5, "config")
    assert (
        f'{project}: maxRunMinutes: expected minutes: a number above 0 and at most 5256000, or null; got "ten"'
        in said
    )
