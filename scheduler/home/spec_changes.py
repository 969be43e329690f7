"""Changes what runs' folders say of them together with the database: all of it, or none.

The folders change inside the transaction, between the note of the request and its commit. Whoever dies in between
leaves a database that knows less than was asked, and its repair asks again, with what the folders say by then. Where
the transaction fails, the folders get back what they held.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.file_reading import read_regular
from backprop.scheduler.spec import RunSpec


class SpecChanges:
    """The changes of one transaction, which may be tried several times."""

    def __init__(self, folder_of: Callable[[str], Path]) -> None:
        """`folder_of`: returns the folder of a run."""
        self._folder_of = folder_of
        self._before: dict[str, bytes] = {}

    def make(
        self,
        run_id: str,
        spec: RunSpec,
        name: str | None = None,
        priority: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Change one run's folder as `run_folder.change_spec` does. Raises OSError, naming the file; ValueError,
        KeyError where it is damaged."""
        folder = self._folder_of(run_id)
        path = folder / "spec.json"
        try:
            if run_id not in self._before:
                self._before[run_id] = read_regular(path)
            run_folder.change_spec(folder, spec, name, priority, environment)
        except OSError as error:
            error.filename = str(path)
            raise

    def take_back(self) -> None:
        """Give every folder back what it held. Raises OSError."""
        for run_id, content in self._before.items():
            run_folder.restore_spec(self._folder_of(run_id), content)
