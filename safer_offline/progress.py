"""A progress bar for whatever takes longer than two seconds; silent where nobody watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """What the running work calls; made by `progress_bar`."""

    def __init__(self, display: Progress | None, task: TaskID) -> None:
        self._display = display
        self._task = task

    def advance(self, amount: float = 1, **fields: float | str) -> None:
        """Move on by `amount` and show the fields, such as losses, until the next that are given.

        Args:
            amount: Work done since the last call, in the unit of the bar's total.
            **fields: Names and values to show behind the bar.
        """
        if self._display is None:
            return
        self._display.advance(self._task, amount)
        if fields:
            texts = (
                f"{name} {value if isinstance(value, str) else f'{value:.3g}'}"
                for name, value in fields.items()
            )
            self._display.update(self._task, details="  ".join(texts))


@contextlib.contextmanager
def progress_bar(
    description: str, *, total: float, completed: int = 0, enabled: bool = True
) -> Iterator[ProgressBar]:
    """Show a bar on standard error while the context lasts, if standard error is a terminal.

    Args:
        description: What is being done, two or three words.
        total: Amount of work.
        completed: How much of it was done before, for work that resumes.
        enabled: False shows nothing.
    """
    if not (enabled and sys.stderr.isatty()):
        yield ProgressBar(None, TaskID(0))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[details]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(description, total=total, completed=completed, details="")
        yield ProgressBar(display, task)
