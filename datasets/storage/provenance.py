"""Where a dataset comes from: when, by which command, from which source tree and which files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.storage.hdf5 import save_dataset
from safer_offline.errors import DataError, UsageError
from safer_offline.files import require_writable, writing

MAX_HISTORY = 15_000
"""Characters of history that a file keeps: an attribute holds 64,000 bytes, a character takes 4."""

_THEN = " && "


def provenance() -> dict[str, Any]:
    """When, how and from which source tree; none of it enters the content hash."""
    source = Path(__file__).resolve().parents[2]
    commit = ""
    if (source / ".git").exists():  # else we are installed, perhaps inside another repository
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(
                ["git", "-C", str(source), "rev-parse", "HEAD"],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout.strip()
    return {
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": commit,
    }


def join_histories(commands: Sequence[str]) -> str:
    """The commands that several datasets were made by, each once, as a shell would take them.

    Args:
        commands: `Metadata.command` of each, or one command; empty ones are skipped.
    """
    steps = [step for command in commands for step in command.split(_THEN) if step]
    history = _THEN.join(dict.fromkeys(steps))
    if len(history) <= MAX_HISTORY:
        return history
    # The first steps say where the data come from and the last what was done: keep both ends.
    half = MAX_HISTORY // 2
    return f"{history[:half]} [...] {history[-half:]}"


def require_new_files(
    outputs: Sequence[Path], *, inputs: Sequence[Path], overwrite: bool = False
) -> None:
    """Check before any work that the files to write are nobody else's.

    Args:
        outputs: Files to be written.
        inputs: Files that they are made from; these are never replaced, because the new files
            name them as their parents.
        overwrite: Whether other files may be replaced.

    Raises:
        UsageError: If there is something at a path that must not be replaced.
        OutputError: If nothing could be written there.
    """
    for output in outputs:
        require_writable(output)
        if output.is_dir():
            raise UsageError(f"{output} is a folder; name a file in it, such as {output / 'a.h5'}")
        for path in inputs:
            if output.exists() and path.exists() and output.samefile(path):
                raise UsageError(
                    f"{output} is read by this command and must not be replaced by what comes out; "
                    "name another file with -o"
                )
        if output.exists() and not overwrite:
            raise UsageError(f"{output} exists; name another with -o, or say --overwrite")


def save_derived(
    datasets: Mapping[Path, OfflineDataset], *, overwrite: bool = False
) -> dict[Path, OfflineDataset]:
    """Write datasets that were made from others, all or none of them, with the running command.

    `created_at`, `command` and `git_commit` become those of now; `command` goes on from the
    history that the datasets bring along.

    Args:
        datasets: What to write to which file; all files lie in one folder, which is made.
        overwrite: Whether files that are there already may be replaced.

    Returns:
        The same datasets as they were written.

    Raises:
        UsageError: If a file exists and must not be replaced.
        DataError: If a dataset breaks the format, or the disk is full. No file has changed then.
    """
    require_new_files(list(datasets), inputs=(), overwrite=overwrite)
    now = provenance()
    first = next(iter(datasets))
    # Parts of one split must not mix with those of an older one, so they are written whole in a
    # folder beside and then moved at once.
    staging = first.parent / f"{first.name}.tmp-{os.getpid()}"
    written = {}
    with writing(first.parent, remedy="name another place, where you may write"):
        staging.mkdir(parents=True)
    try:
        for path, dataset in datasets.items():
            history = join_histories([dataset.metadata.command, now["command"]])
            metadata = dataclasses.replace(dataset.metadata, **now | {"command": history})
            stamped = dataclasses.replace(dataset, metadata=metadata)
            try:
                saved = save_dataset(staging / path.name, stamped)
            except DataError as error:  # which names the staging folder, of which nobody knows
                raise type(error)(
                    error.problem,
                    path=path,
                    field=error.field,
                    index=error.index,
                    remedy=error.remedy,
                ) from error
            written[path] = dataclasses.replace(stamped, metadata=saved, path=path)
        require_new_files(list(datasets), inputs=(), overwrite=overwrite)
        for path in datasets:
            (staging / path.name).replace(path)
        folder = os.open(first.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new names survive a power cut, too
        finally:
            os.close(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written
