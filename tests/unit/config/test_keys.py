"""One table of settings: whatever else knows the settings is derived from it."""

import ast
import json
import tomllib
from pathlib import Path
from typing import get_args

import click
import pytest

from backprop.cli.main import backprop
from backprop.cli.submit import edit_text
from backprop.cli.submit.edit_values import by_dotted_key, in_units
from backprop.cli.submit.submission import SubmissionRequest, spec_of
from backprop.scheduler.config.keys import KEYS, Command, SettingKey
from backprop.scheduler.config.settings import Settings, load
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import Database
from tests.support import sources
from tests.support.harness import ROOT, Bench
from tests.support.store_rows import add_run
from tools.docs.settings import PAGE, page

TABLE = ROOT / "scheduler" / "config" / "keys.py"
BY_OPTION = [key for key in KEYS if key.flags]


def sample(key: SettingKey) -> object:
    """A value that is not the default, in the user's units."""
    if key.kind is bool:
        return not key.default
    if key.kind in (int, float):
        return 40 if key.name != "keepCheckpoints" else 4
    samples: dict[str, object] = {
        "gpuMemoryLimit": "7",
        "framework": "pytorch",
        "gpu.probe": "none",
        "stopSignal": "TERM",
        "signalTo": "leader",
        "atTimebox": "end",
        "suspend": "never",
        "activeHours": "22:00-08:00",
        "resumeArg": "--load {checkpoint}",
        "python": "/usr/bin/python3",
        "on": "lab",
        "gpuType": "a100",
        "submit": "--qos=long",
        "secrets": "scrub",
        "keepMetric": "val_acc:max",
    }
    return samples[key.name]


CLUSTERS = '{"clusters": {"lab": {"engine": "slurm", "folder": "/share"}}}'


def words(key: SettingKey) -> list[str]:
    """The option with the sample."""
    long = key.flags[-1]
    if key.kind is bool:
        yes, _, no = long.partition("/")
        return [yes if sample(key) else no]
    return [long, str(sample(key))]


def test_each_row_is_a_typed_field_of_the_settings() -> None:
    assert [key.field for key in KEYS if key.field not in Settings.__struct_fields__] == []
    assert sorted(key.field for key in KEYS) == sorted(Settings.__struct_fields__)
    assert len({key.name for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize("name", get_args(Command))
def test_a_command_has_the_options_of_its_rows_and_no_other(name: Command) -> None:
    command = backprop.get_command(click.Context(backprop), name)
    assert command is not None
    options = {
        (*option.opts, *option.secondary_opts): option.help or ""
        for option in command.params
        if isinstance(option, click.Option)
    }
    for key in BY_OPTION:
        spellings = tuple(part for flag in key.flags for part in flag.split("/"))
        assert (spellings in options) == key.taken_by(name), key.name
        assert options.get(spellings, key.help).startswith(key.help)


def test_a_row_without_an_option_is_taken_by_no_command() -> None:
    for key in KEYS:
        assert bool(key.flags) == bool(key.commands) == bool(key.help), key.name
        assert key.help or key.docs, f"{key.name} is explained nowhere"


def test_the_text_of_edit_offers_what_run_takes_and_the_run_keeps(database: Database) -> None:
    offered = by_dotted_key(tomllib.loads(edit_text.to_text(add_run(database, "r1"))))
    for key in KEYS:
        expected = "run" in key.commands and key.field in RunSpec.__struct_fields__
        assert (key.name in offered) == expected, key.name


@pytest.mark.parametrize("key", [key for key in KEYS if key.editable], ids=lambda key: key.name)
def test_every_setting_can_be_edited_in_the_units_of_its_key(database: Database, key: SettingKey) -> None:
    run = add_run(database, "r1")
    value = sample(key)
    edited = edit_text.from_text(f"{key.name} = {json.dumps(value)}", run, "").spec
    assert getattr(edited, key.field) == key.read(value) != getattr(run.spec, key.field)
    assert in_units(getattr(edited, key.field), key.scale) == value


def test_a_new_run_keeps_every_setting_that_its_specification_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(CLUSTERS)
    effective = load(tmp_path, tmp_path, None, {key.name: sample(key) for key in BY_OPTION})
    spec = spec_of(("true",), "/usr/bin/true", None, tmp_path, effective, SubmissionRequest())
    for key in BY_OPTION:
        if key.stays_with_run:
            assert getattr(spec, key.field) == key.read(sample(key)), key.name
    default = load(tmp_path, tmp_path, None, {})
    spec = spec_of(("true",), "/usr/bin/true", None, tmp_path, default, SubmissionRequest())
    assert [key.name for key in KEYS if key.worker_limit and getattr(spec, key.field) is not None] == []


def test_resume_changes_what_the_rows_say(bench: Bench) -> None:
    keys = [key for key in KEYS if "resume" in key.commands]
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py", "--hold")
    (bench.home / "config.json").write_text(CLUSTERS)
    done = bench.backprop("resume", run, *(word for key in keys for word in words(key)))
    assert done.returncode == 0, done.stderr
    spec = json.loads(str(bench.column(run, "spec")))
    kept = [key for key in keys if key.stays_with_run]
    assert {key.name: spec[key.field] for key in kept} == {key.name: key.read(sample(key)) for key in kept}
    assert [key.name for key in keys if key not in kept] == ["snapshotCode"]
    assert Path(spec["code"]).is_dir()


def test_the_table_in_the_docs_is_current() -> None:
    assert PAGE.read_text() == page(PAGE.read_text()), "run: python -m tools.docs.settings"


def test_no_other_module_names_a_key_or_declares_its_option() -> None:
    """Such a list would have to be kept up with the table. Keys that are ordinary words are looked for as options."""
    known = {key.name for key in KEYS if key.name != key.name.lower()}
    known |= {key.name for key in KEYS if "." in key.name}
    known |= {flag for key in KEYS for flag in key.flags if flag.startswith("--")}
    named = {
        (str(path.relative_to(ROOT)), node.value)
        for folder in ("cli", "scheduler", "worker")
        for path in (ROOT / folder).rglob("*.py")
        if path != TABLE
        for node in ast.walk(sources.tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known
    }
    assert named == set()
