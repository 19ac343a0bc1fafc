"""Errors that a user can mend: each says where the trouble is and what to do about it."""

from __future__ import annotations

from pathlib import Path


class SaferOfflineError(Exception):
    """Base of every error that this package raises on purpose.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(SaferOfflineError):
    """The request itself is wrong: an unknown name, an impossible value. Exit code 2."""

    exit_code = 2


class MissingSimulatorError(SaferOfflineError):
    """Simulation was asked for on a machine without the simulator."""


class DataError(SaferOfflineError):
    """A file holds something that must not be used.

    Args:
        problem: What is wrong, in one sentence without the file's name.
        path: The file.
        field: The array or attribute at fault.
        index: First offending row.
        remedy: What the user can do now.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        field: str | None = None,
        index: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.path = None if path is None else Path(path)
        self.field = field
        self.index = index
        self.remedy = remedy
        where = [str(path)] if path is not None else []
        if field is not None:
            where.append(f"'{field}'")
        if index is not None:
            where.append(f"row {index}")
        message = f"{', '.join(where)}: {problem}" if where else problem
        super().__init__(f"{message}\n  Remedy: {remedy}" if remedy else message)


class OutputError(DataError):
    """A result cannot be written: no room, no permission, a name in the way."""


class CheckpointError(DataError):
    """A checkpoint or policy file is damaged, foreign, or of another algorithm."""
