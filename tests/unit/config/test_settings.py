"""Configuration: what wins, what a checkout may not say, and one clear line for everything refused."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backprop.scheduler.config.keys import KEYS
from backprop.scheduler.config.settings import (
    DEFAULTS,
    Effective,
    GpuMemoryLimit,
    load,
    parse_gpu_memory_limit,
)
from backprop.scheduler.errors import BadConfig


class Place:
    """A project directory and a home, both real and empty."""

    def __init__(self, root: Path) -> None:
        self.cwd, self.home = root / "project", root / "home"
        self.cwd.mkdir()
        self.home.mkdir()

    def project(self, text: str | dict[str, object], name: str = "backprop.config.json") -> Path:
        path = self.cwd / name
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    def user(self, values: dict[str, object]) -> Path:
        path = self.home / "config.json"
        path.write_text(json.dumps(values))
        return path

    def load(self, config: str | None = None, **flags: object) -> Effective:
        return load(self.cwd, self.home, None if config is None else Path(config), flags)

    def refusal(self, config: str | None = None, **flags: object) -> str:
        with pytest.raises(BadConfig) as caught:
            self.load(config, **flags)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_any_file_the_defaults_apply(place: Place) -> None:
    effective = place.load()
    assert effective.settings == DEFAULTS
    assert (DEFAULTS.timebox_s, DEFAULTS.max_parallel, DEFAULTS.min_free_ram_mib) == (600, 2, 4096)
    assert (DEFAULTS.gpu_min_vram_mib, DEFAULTS.gpu_max_temp_c, DEFAULTS.stop_signal) == (2500, 85, "INT")
    assert {source.where for source in effective.sources.values()} == {"default"}
    assert set(effective.sources) == set(DEFAULTS.__struct_fields__)


def test_flag_beats_project_beats_user_beats_default(place: Place) -> None:
    user = place.user({"maxRunMinutes": 1, "maxParallel": 3, "graceSeconds": 5})
    project = place.project({"maxRunMinutes": 2, "maxParallel": 4})
    effective = place.load(maxRunMinutes=0.1, retries=None)
    settings, sources = effective.settings, effective.sources
    assert (settings.timebox_s, settings.max_parallel, settings.grace_s, settings.retries) == (6, 4, 5, 0)
    assert sources["timebox_s"].where == "--max-run-minutes"
    assert sources["max_parallel"].where == str(project)
    assert sources["grace_s"].where == str(user)
    assert [sources[field].layer for field in ("timebox_s", "max_parallel", "grace_s", "retries")] == [
        "flag",
        "project",
        "user",
        "default",
    ]


def test_every_key_in_our_units(place: Place) -> None:
    place.user(
        {
            "maxRunMinutes": 0.5,
            "maxParallel": 7,
            "gpuMemoryLimit": "80%",
            "minFreeRamGB": 0.1,
            "checkpointEveryMinutes": 2,
            "framework": "pytorch",
            "gpu": {"probe": "nvidia-smi", "minFreeVramMB": 8000, "maxTempC": 79.9},
            "autoResume": False,
            "maxSegments": 9,
            "maxTotalMinutes": 600,
            "graceSeconds": 0,
            "stopSignal": "sigusr1",
            "retries": 3,
            "maxCpuLoad": 1.5,
            "minFreeDiskGB": 2.5,
            "resumeArg": "--resume={checkpoint}",
            "python": "/opt/py/bin/python",
            "checkpointRoots": ["/data/out", "~/models"],
        }
    )
    got = place.load().settings
    assert (got.timebox_s, got.max_parallel, got.gpu_memory_limit) == (30, 7, "80%")
    assert (got.min_free_ram_mib, got.min_free_disk_mib) == (103, 2560), "floors are rounded up"
    assert got.gpu_max_temp_c == 79, "limits are rounded down"
    assert (got.checkpoint_every_s, got.max_total_s, got.grace_s) == (120, 36000, 0)
    assert (got.framework, got.gpu_probe, got.stop_signal) == ("pytorch", "nvidia-smi", "USR1")
    assert (got.auto_resume, got.max_segments, got.retries, got.max_cpu_load) == (False, 9, 3, 1.5)
    assert (got.resume_arg, got.python) == ("--resume={checkpoint}", Path("/opt/py/bin/python"))
    assert got.checkpoint_roots == (Path("/data/out"), Path("~/models").expanduser())


def test_the_ram_floor_has_the_originals_second_name(place: Place) -> None:
    place.project({"gpu": {"minFreeRamGB": 8}})
    assert place.load().settings.min_free_ram_mib == 8192
    place.project({"gpu": {"minFreeRamGB": 8}, "minFreeRamGB": 8})
    assert "given twice" in place.refusal()


@pytest.mark.parametrize(
    ("names", "wins"),
    [
        (["backprop.config.json", ".backprop.json", "pyproject.toml"], "backprop.config.json"),
        ([".backprop.json", "pyproject.toml"], ".backprop.json"),
        (["pyproject.toml"], "pyproject.toml"),
    ],
)
def test_the_first_project_file_found_is_the_only_one_read(place: Place, names: list[str], wins: str) -> None:
    for count, name in enumerate(names, start=1):
        toml = f"[tool.backprop]\nmaxParallel = {count}\ngpu.probe = 'none'\n"
        place.project(toml if name.endswith("toml") else {"maxParallel": count}, name)
    effective = place.load()
    assert effective.settings.max_parallel == 1
    assert effective.sources["max_parallel"].where == str(place.cwd / wins)


def test_the_parent_directory_is_not_searched(place: Place) -> None:
    (place.cwd.parent / "backprop.config.json").write_text('{"maxParallel": 9}')
    assert place.load().settings.max_parallel == 2


def test_a_pyproject_that_is_not_about_us_is_left_alone(place: Place) -> None:
    place.project("[tool.black]\nthis is not TOML").chmod(0o666)
    (place.cwd / "backprop.config.json").unlink()
    place.project("this is not TOML", "pyproject.toml").chmod(0o666)
    place.load()
    place.project("[project]\ndependencies = ['backprop-scheduler']", "pyproject.toml").chmod(0o666)
    place.load()


def test_config_names_the_project_file(place: Place) -> None:
    place.project({"maxParallel": 5})
    place.project({"maxParallel": 6}, "other.json")
    place.project("[tool.backprop]\nmaxParallel = 7", "other.toml")
    place.project("[tool.other]\nx = 'backprop'", "empty.toml")
    assert place.load(config="other.json").settings.max_parallel == 6
    assert place.load(config="other.toml").settings.max_parallel == 7
    assert "does not exist" in place.refusal(config="missing.json")
    assert "no [tool.backprop] table" in place.refusal(config="empty.toml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resumeArg", "auto"),
        ("python", "/usr/bin/python3"),
        ("checkpointRoots", ["/data"]),
        ("snapshotCode", True),
    ],
)
def test_a_project_file_sets_nothing_that_runs_or_is_read(place: Place, key: str, value: object) -> None:
    path = place.project({key: value})
    message = place.refusal()
    assert str(path) in message
    assert key in message
    assert str(place.home / "config.json") in message
    path.unlink()
    place.user({key: value})
    place.load()
    layers = {source.layer for source in place.load(**{key: value}).sources.values()}
    assert layers == {"flag", "default"}, "a flag may say it too, and wins"


def test_what_the_original_ran_from_its_file_is_noted_and_ignored(place: Place) -> None:
    path = place.project({"trainingScriptPath": "evil.py", "runId": 7, "name": None, "maxParallel": 3})
    effective = place.load()
    assert effective.settings.max_parallel == 3
    assert effective.notes[0] == (
        f"{path}: trainingScriptPath is ignored: a project file names no command; give SCRIPT"
    )
    assert len(effective.notes) == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"maxRunMinutes": 0}, "maxRunMinutes: expected minutes: a number above 0"),
        ({"maxRunMinutes": -1}, "got -1"),
        ({"maxRunMinutes": "10"}, 'got "10"'),
        ({"maxRunMinutes": True}, "got true"),
        ({"maxParallel": None}, "got null"),
        ({"maxRunMinutes": 10**400}, "maxRunMinutes: expected"),
        ({"maxParallel": 0}, "maxParallel: expected a whole number from 1"),
        ({"maxParallel": 1.0}, "got 1.0"),
        ({"maxParallel": True}, "got true"),
        ({"gpuMemoryLimit": "0%"}, "gpuMemoryLimit: expected a share"),
        ({"gpuMemoryLimit": 8192}, "gpuMemoryLimit: expected"),
        ({"gpuMemoryLimit": False}, "gpuMemoryLimit: expected"),
        ({"minFreeRamGB": -0.1}, "minFreeRamGB: expected GB"),
        ({"checkpointEveryMinutes": 0}, "checkpointEveryMinutes: expected"),
        ({"framework": "jax"}, "framework: expected pytorch, tensorflow or auto"),
        ({"gpu": 3}, "gpu: expected an object"),
        ({"gpu": {"probe": "nvml"}}, "gpu.probe: expected auto, nvidia-smi, rocm or none"),
        ({"gpu": {"minFreeVramMB": 2.5}}, "gpu.minFreeVramMB: expected MB: a whole number"),
        ({"gpu": {"maxTempC": 300}}, "gpu.maxTempC: expected degrees Celsius"),
        ({"autoResume": "yes"}, "autoResume: expected true or false"),
        ({"autoResume": 1}, "autoResume: expected true or false"),
        ({"maxSegments": 0}, "maxSegments: expected"),
        ({"stopSignal": "KILL"}, "stopSignal: expected one of INT"),
        ({"retries": -1}, "retries: expected"),
        ({"maxCpuLoad": 0}, "maxCpuLoad: expected"),
        ({"maxparallel": 1}, '"maxparallel" is not a setting; did you mean maxParallel?'),
        ({"minFreeVramMB": 1}, "did you mean gpu.minFreeVramMB?"),
        ({"gpu": {"prob": "none"}}, '"gpu.prob" is not a setting; did you mean gpu.probe?'),
        ({"checkpointRoot": []}, "did you mean checkpointRoots?"),
        ({"zzz\x1b[2J\n": 1}, '"zzz\\u001b[2J\\n" is not a setting; `backprop config` lists'),
        ({"retries": "\x1b[2J" + "a" * 5000}, 'got "\\u001b[2Jaaa'),
    ],
)
def test_one_line_names_file_key_and_what_was_expected(
    place: Place, values: dict[str, object], said: str
) -> None:
    path = place.project(values)
    message = place.refusal()
    assert message.startswith(f"{path}: ")
    assert said in message
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"resumeArg": "--resume"}, "resumeArg: expected auto, none, or a text with {checkpoint}"),
        ({"resumeArg": "--resume {checkpoint}\n"}, "resumeArg"),
        ({"python": "bin/python"}, "python: expected an absolute path"),
        ({"python": "~nobody-of-that-name/python"}, "python: expected an absolute path"),
        ({"python": "/bin/\x00"}, "python: expected an absolute path"),
        ({"checkpointRoots": "/data"}, "checkpointRoots: expected a list"),
        ({"checkpointRoots": ["out"]}, "checkpointRoots: expected a list of absolute paths"),
    ],
)
def test_the_users_own_file_is_checked_too(place: Place, values: dict[str, object], said: str) -> None:
    path = place.user(values)
    message = place.refusal()
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_bad_flag_names_the_option(place: Place) -> None:
    assert place.refusal(maxParallel=0).startswith("--max-parallel: expected a whole number")
    assert place.refusal(**{"gpu.probe": "x"}).startswith("--gpu-probe: ")
    assert place.refusal(**{"gpu.minFreeVramMB": -1}).startswith("--gpu-min-vram: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", ":1:2: not JSON: "),
        ('{\n "maxParallel" 1\n}', ":2:16: not JSON: "),
        ("", ":1:1: not JSON: "),
        ("[]", "expected an object of settings; got []"),
        ('{"maxParallel": 1, "maxParallel": 2}', '"maxParallel" is given twice'),
        ('{"gpu": {"probe": "none"}, "gpu.probe": "none"}', '"gpu.probe" is given twice'),
        ('{"maxRunMinutes": NaN}', "NaN is not a number JSON knows"),
        ('{"maxRunMinutes": 1e999}', "maxRunMinutes: expected"),
        ('{"maxRunMinutes": ' + "9" * 5000 + "}", "a number too long"),
        ("[" * 100_000, "too deep"),
        (" " * (1024 * 1024 + 1), "larger than 1024 KiB"),
    ],
)
def test_broken_json_is_one_line(place: Place, text: str, said: str) -> None:
    path = place.project(text)
    message = place.refusal()
    assert message.startswith(str(path))
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.backprop]\nmaxParallel = ", "not TOML: Invalid value (at "),
        ("[tool.backprop]\nmaxParallel = 1\nmaxParallel = 2", "not TOML: "),
        ("[tool.backprop]\nmaxRunMinutes = nan", "maxRunMinutes: expected"),
        ("[tool.backprop]\nmaxRunMinutes = 2024-01-01", 'got "2024-01-01"'),
        ("[tool]\nbackprop = 3", "expected an object of settings; got 3"),
        ("[tool.backprop]\nx = " + "[" * 100_000, "too deep"),
    ],
)
def test_broken_toml_is_one_line(place: Place, text: str, said: str) -> None:
    path = place.project(text, "pyproject.toml")
    message = place.refusal()
    assert message.startswith(str(path))
    assert said in message


def test_a_byte_order_mark_is_no_fault(place: Place) -> None:
    (place.cwd / ".backprop.json").write_bytes(b'\xef\xbb\xbf{"maxParallel": 4}')
    assert place.load().settings.max_parallel == 4


def test_what_is_not_a_readable_file_is_refused(place: Place) -> None:
    path = place.cwd / "backprop.config.json"
    path.mkdir()
    assert "not a regular file" in place.refusal()
    path.rmdir()
    os.mkfifo(path)
    assert "not a regular file" in place.refusal()
    path.unlink()
    path.symlink_to(path)
    assert "cannot be read: Too many levels of symbolic links" in place.refusal()
    path.unlink()
    path.write_bytes(b'{"framework": "\xff"}')
    assert "not UTF-8 (byte 15)" in place.refusal()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(place: Place) -> None:
    place.project({}).chmod(0)
    assert "cannot be read: Permission denied" in place.refusal()


@pytest.mark.parametrize("name", ["backprop.config.json", "pyproject.toml"])
def test_a_file_that_others_could_have_written_is_refused(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.project("[tool.backprop]" if name == "pyproject.toml" else "{}", name)
    path.chmod(0o646)
    assert f"chmod o-w {path}" in place.refusal()
    path.chmod(0o664)
    place.load()
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "not by you or root" in place.refusal()


def test_describe_shows_users_units_and_sources(place: Place) -> None:
    user = place.user({"gpu": {"maxTempC": 80}, "checkpointRoots": ["/a", "/b"], "autoResume": False})
    rows = {key: (value, source) for key, value, source in place.load(maxRunMinutes=0.1).describe()}
    assert list(rows) == [key.name for key in KEYS]
    assert rows["maxRunMinutes"] == ("0.1", "--max-run-minutes")
    assert rows["gpu.maxTempC"] == ("80", str(user))
    assert rows["checkpointRoots"] == ("/a, /b", str(user))
    assert rows["autoResume"] == ("false", str(user))
    assert rows["maxSegments"] == ("none", "default")
    assert rows["maxCpuLoad"] == ("4", "default")


def test_null_is_a_value_where_there_may_be_none(place: Place) -> None:
    place.user({"maxSegments": 3})
    place.project({"maxSegments": None})
    effective = place.load()
    assert effective.settings.max_segments is None
    assert effective.sources["max_segments"].layer == "project"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("80%", GpuMemoryLimit(percent=80)),
        ("12.5 %", GpuMemoryLimit(percent=12.5)),
        ("8", GpuMemoryLimit(mib=8192)),
        ("7.5GB", GpuMemoryLimit(mib=7680)),
        ("8GiB", GpuMemoryLimit(mib=8192)),
        ("8192mb", GpuMemoryLimit(mib=8192)),
        (" 8192MiB ", GpuMemoryLimit(mib=8192)),
    ],
)
def test_gpu_memory_limits(text: str, limit: GpuMemoryLimit) -> None:
    assert parse_gpu_memory_limit(text) == limit


@pytest.mark.parametrize(
    "text", ["", "0", "0%", "0.0001MB", "100.1%", "-1", "1e3", "8192", "8TB", "nan", "٨"]
)
def test_gpu_memory_limits_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not "):
        parse_gpu_memory_limit(text)


def test_a_limit_on_a_given_gpu() -> None:
    assert parse_gpu_memory_limit("80%").of(24_000) == 19_200
    assert parse_gpu_memory_limit("8").of(24_000) == 8192
    assert parse_gpu_memory_limit("80GB").of(24_000) == 24_000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([key.name for key in KEYS] + ["gpu", "x"]), _json, max_size=5))
def test_any_json_is_settings_or_one_refusal(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    place = Place(tmp_path_factory.mktemp("any"))
    place.user(values)
    try:
        place.load()
    except BadConfig as error:
        assert "\n" not in str(error)
