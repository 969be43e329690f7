"""What a start adds to a run's environment so that our integrations are attached."""

import msgspec
import pytest

from backprop.scheduler.spec import Plan
from backprop.scheduler.store.connection import Database
from backprop.worker.environment.integrations import FOLDER, integration_environment
from tests.support.store_rows import SPEC, add_run

PLAN = Plan(resumes="none", integration="transformers")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, FOLDER),
        ("", FOLDER),
        (":", FOLDER),
        ("/a:/b", f"{FOLDER}:/a:/b"),
        ("/a::/b", f"{FOLDER}:/a::/b"),
        (f"{FOLDER}:/a", f"{FOLDER}:/a"),
    ],
    ids=str,
)
def test_our_folder_comes_first_and_no_empty_entry_is_made(
    database: Database, given: str | None, expected: str
) -> None:
    run = add_run(database, "r", spec=msgspec.structs.replace(SPEC, plan=PLAN))
    added = integration_environment(run, 3, {} if given is None else {"PYTHONPATH": given})
    assert added["PYTHONPATH"] == expected
    assert added["BACKPROP_INTEGRATIONS"].startswith("r:3:")


@pytest.mark.parametrize(
    "changes",
    [
        {"integrations": False},
        {"plan": Plan(speaks="events")},
        {"plan": Plan(resumes="append")},
        {"plan": None},
    ],
    ids=str,
)
def test_nothing_is_added_where_nothing_is_attached(database: Database, changes: dict[str, object]) -> None:
    spec = msgspec.structs.replace(SPEC, **{"plan": PLAN, **changes})
    assert integration_environment(add_run(database, "r", spec=spec), 1, {"PYTHONPATH": "/a"}) == {}
