"""Datasets by name, whatever they are stored as: a file, or an id of Minari.

Minari is imported on first use: it takes half a second, which files need not wait for.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.dataset.validation import Problem
from safer_offline.datasets.formats import Fix, Format, is_minari_id
from safer_offline.datasets.formats.d4rl import from_d4rl, to_d4rl
from safer_offline.datasets.formats.dsrl import from_dsrl, to_dsrl
from safer_offline.datasets.storage.hdf5 import find_file_problems, load_dataset, save_dataset
from safer_offline.datasets.storage.reading import open_file
from safer_offline.errors import UsageError


def open_dataset(source: str | Path) -> OfflineDataset:
    """Read a dataset from a file, or from Minari's local folder.

    Args:
        source: A path, or an id such as `bullet/car-circle/mixed-v0`. A file that exists wins.

    Raises:
        UsageError: If there is neither such a file nor such a dataset of Minari.
        DataError: If it is damaged or breaks the format.
    """
    if _is_minari(source):
        from safer_offline.datasets.formats.minari import from_minari  # noqa: PLC0415

        return from_minari(str(source))
    return load_dataset(source)


def find_source_problems(source: str | Path) -> list[Problem]:
    """Everything that is wrong with a file or a dataset of Minari, worst first.

    Raises:
        UsageError: If there is no such dataset of Minari.
    """
    if _is_minari(source):
        from safer_offline.datasets.formats.minari import find_minari_problems  # noqa: PLC0415

        return find_minari_problems(str(source))
    return find_file_problems(source)


def default_run_name(source: str | Path) -> str:
    """What to call things made from a dataset: the file's name, or the id on one level."""
    return str(source).replace("/", "-") if _is_minari(source) else Path(source).stem


def detect_format(source: str | Path) -> Format:
    """What a source is: a dataset of Minari, a file with all arrays, or one as D4RL has them.

    Raises:
        DataError: If the file is missing or cannot be opened.
    """
    if _is_minari(source):
        return Format.minari
    with open_file(Path(source)) as file:
        return Format.hdf5 if set(ARRAYS) <= set(file) else Format.d4rl


def read_dataset(
    source: str | Path,
    *,
    source_format: Format | None = None,
    cost_from: str | None = None,
    zero_costs: bool = False,
    max_episode_steps: int | None = None,
    fixes: Collection[Fix | str] = (),
) -> OfflineDataset:
    """Read a dataset of any format, and complete or mend it where that is asked for.

    Args:
        source: A path, or an id of Minari.
        source_format: Its format; None looks at it.
        cost_from: See `from_d4rl`, like the two that follow.
        zero_costs: See there.
        max_episode_steps: See there.
        fixes: Flaws of a file to mend, see `Fix`.

    Raises:
        UsageError: If an option does not go with the format or contradicts the source.
        DataError: If the source lacks or contradicts something; the message names the option that
            helps.
    """
    chosen = source_format or detect_format(source)
    given = {
        "--cost-from": cost_from is not None,
        "--zero-costs": zero_costs,
        "--max-episode-steps": max_episode_steps is not None,
        "--fix": bool(fixes),
    }
    if chosen is Format.d4rl:
        return from_d4rl(
            source,
            cost_from=cost_from,
            zero_costs=zero_costs,
            max_episode_steps=max_episode_steps,
            fixes=fixes,
        )
    if chosen is not Format.minari:
        given["--fix"] = False
    if unfit := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"{source} is read as {chosen.value}, where {' and '.join(unfit)} changes nothing: "
            "leave it out (it is for files that lack costs, timeouts or next observations)"
        )
    if chosen is Format.minari:
        from safer_offline.datasets.formats.minari import from_minari  # noqa: PLC0415

        return from_minari(str(source))
    return from_dsrl(source, fixes=fixes)


def write_dataset(
    dataset: OfflineDataset,
    target_format: Format,
    *,
    out: str | Path | None = None,
    dataset_id: str | None = None,
) -> Path:
    """Write a dataset in any format, whole or not at all.

    Args:
        dataset: What to write.
        target_format: The format.
        out: The file, for all but Minari; for DSRL also a folder, see `to_dsrl`.
        dataset_id: The id, for Minari; None takes the name in the metadata.

    Returns:
        The file, or the folder of the dataset of Minari.

    Raises:
        UsageError: If the target is missing, taken, or does not go with the format.
        DataError: If the format cannot hold the dataset, or the disk is full.
    """
    if target_format is Format.minari:
        name = dataset_id or dataset.metadata.name
        if out is not None:
            raise UsageError(
                "Minari keeps datasets by their ids in one folder, which MINARI_DATASETS_PATH "
                "names; leave --out out and give an --id"
            )
        if not name:
            raise UsageError("a dataset of Minari needs a name: --id bullet/car-circle/mixed-v0")
        from safer_offline.datasets.formats.minari import to_minari  # noqa: PLC0415

        return to_minari(dataset, name)
    if dataset_id is not None:
        raise UsageError(f"--id is for Minari; {target_format.value} is a file: --out FILE")
    if out is None:
        raise UsageError(f"{target_format.value} is a file; say where to write it: --out FILE")
    if target_format is Format.dsrl:
        return to_dsrl(dataset, out)
    if target_format is Format.d4rl:
        return to_d4rl(dataset, out)
    save_dataset(out, dataset)
    return Path(out)


def _is_minari(source: str | Path) -> bool:
    return is_minari_id(str(source)) and not Path(source).exists()
