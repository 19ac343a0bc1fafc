"""One thing that is wrong with a dataset, in words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safer_offline.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a dataset.

    Args:
        field: The array or attribute at fault; None for the file as a whole.
        index: First offending row, where there is one.
        problem: What is wrong.
        remedy: What the user can do about it; FILE stands for the path of the dataset.
        severity: An error makes the dataset unusable, a warning does not.
    """

    field: str | None
    problem: str
    remedy: str
    index: int | None = None
    severity: Literal["error", "warning"] = "error"

    def to_error(self, *, path: str | Path | None) -> DataError:
        """The exception that says the same."""
        remedy = self.remedy
        if path is not None:
            remedy = remedy.replace(" FILE ", f" {shlex.quote(str(path))} ")
        return DataError(self.problem, path=path, field=self.field, index=self.index, remedy=remedy)
