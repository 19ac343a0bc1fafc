"""What an evaluation has done so far, so that an interrupted one goes on where it was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from safer_offline.errors import OutputError
from safer_offline.evaluation.rendering import as_standard_json
from safer_offline.files import write_atomically
from safer_offline.interruption import Interrupted, signal_of

FILE = "unfinished.json"


class UnfinishedEvaluation:
    """The tables of the waves that are done, kept in a file until `forget_unfinished`.

    Args:
        folder: Where to keep them; None keeps nothing.
        identity: What they depend on; those of another evaluation are not used.
        waves: How many there will be.

    Attributes:
        tables: One for each wave so far, those of an interrupted evaluation first.
    """

    def __init__(self, folder: Path | None, *, identity: Mapping[str, Any], waves: int) -> None:
        self.tables: list[pd.DataFrame] = []
        self._path = None if folder is None else folder / FILE
        self._identity = json.loads(json.dumps(as_standard_json(identity)))
        self._waves = waves
        if self._path is not None and self._path.exists():
            self.tables = self._read(self._path)

    def add(self, table: pd.DataFrame) -> None:
        """One more wave is done."""
        self.tables.append(table)
        if self._path is None:
            return
        # JSON keeps numbers to the last bit.
        columns = [table.to_dict("list") for table in self.tables]
        content = json.dumps({"identity": self._identity, "waves": columns})
        # With the last wave there is something to show, before anybody hears of a full disk.
        last = len(self.tables) == self._waves
        with contextlib.suppress(*(OutputError,) if last else ()):
            write_atomically(self._path, content.encode())

    @contextlib.contextmanager
    def kept_if_interrupted(self) -> Iterator[None]:
        """Say what is kept if somebody interrupts.

        Raises:
            Interrupted: For every `KeyboardInterrupt`.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            kept = ""
            if self._path is not None and self.tables:
                count = f"{len(self.tables)} of {self._waves} batches of episodes"
                kept = f"{count} are kept in {self._path.parent}"
            raise Interrupted(kept, number=signal_of(error)) from None

    def _read(self, path: Path) -> list[pd.DataFrame]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["identity"] != self._identity:
                return []
            return [pd.DataFrame(columns) for columns in content["waves"][: self._waves]]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # damaged: begin anew


def forget_unfinished(folder: Path) -> None:
    """The report is written: nothing has to be kept any more."""
    (folder / FILE).unlink(missing_ok=True)
