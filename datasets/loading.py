"""Datasets, whatever they are: a file, an id of Minari, or arrays.

Minari is imported on first use: it takes half a second, which files need not wait for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, overload

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.nesting import flatten
from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import ARRAYS, INFO_PREFIX
from safer_offline.datasets.dataset.shapes import find_unfit_columns
from safer_offline.datasets.formats import Fix, Format, is_minari_id
from safer_offline.datasets.formats.d4rl import from_d4rl, to_d4rl
from safer_offline.datasets.formats.dsrl import from_dsrl, to_dsrl
from safer_offline.datasets.larger_than_memory.cache import CachedDataset, open_for_training
from safer_offline.datasets.larger_than_memory.memory import parse_size
from safer_offline.datasets.storage.contents import tell_left_out
from safer_offline.datasets.storage.hdf5 import find_file_problems, read_file, save_dataset
from safer_offline.datasets.storage.reading import open_file
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from minari import MinariDataset


Source = Union[str, Path, OfflineDataset, CachedDataset, Mapping[str, Any], "MinariDataset"]
"""Whatever a dataset can be given as; see `load_dataset`."""

MaxMemory = int | str | None


@overload
def load_dataset(source: Source) -> OfflineDataset: ...


@overload
def load_dataset(
    source: Source,
    *,
    max_memory: MaxMemory,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    tell: Callable[[str], object] | None = None,
) -> TransitionSource: ...


def load_dataset(
    source: Source,
    *,
    max_memory: MaxMemory = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    tell: Callable[[str], object] | None = None,
) -> TransitionSource:
    """A dataset from whatever it is, all of it checked.

    Args:
        source: A file (ours, or in the layout of DSRL), an id of Minari such as
            `bullet/car-circle/mixed-v1` (a file that exists wins), a `minari.MinariDataset`, a
            dict of NumPy arrays under the names of the format, or a dataset, which stays as it is.
        max_memory: Memory that a file may take, bytes or such as `4GiB`; a larger one is read
            from a cache on disk. `auto` takes half of what is free. None reads it into memory,
            unless there is a `cache_dir`.
        cache_dir: Folder for that cache; None for one beside the file.
        progress: Whether to show a progress bar while a cache is built.
        tell: Called with a sentence that says whether the file is held in memory, and why.

    Returns:
        An `OfflineDataset` in memory, or a `CachedDataset`.

    Raises:
        UsageError: If there is no such file or dataset of Minari, or `source` is none of these.
        DataError: If it is damaged or breaks the format; the message names file, array, first row
            and remedy.
    """
    if not isinstance(source, str | Path):
        return _from_object(source)
    if _is_minari(source):
        if max_memory not in (None, "auto") or cache_dir is not None:
            raise UsageError(
                f"'{source}' is a dataset of Minari, which is always read into memory: leave out "
                "max_memory and cache_dir, or `safer-offline data convert` it to a file"
            )
        from safer_offline.datasets.formats.minari import from_minari  # noqa: PLC0415

        return from_minari(str(source))
    if max_memory is None and cache_dir is None:
        return read_file(source)
    if isinstance(max_memory, str):
        max_memory = None if max_memory == "auto" else parse_size(max_memory)
    return open_for_training(
        source, max_memory=max_memory, cache_dir=cache_dir, progress=progress, tell=tell
    )


def _from_object(source: Any) -> TransitionSource:  # noqa: ANN401 - whatever a user has
    if isinstance(source, OfflineDataset | CachedDataset):
        return source
    if isinstance(source, Mapping):
        return OfflineDataset.from_arrays(_usable_arrays(source))
    # Without importing Minari: who has such a dataset has imported it.
    if type(source).__module__.partition(".")[0] == "minari":
        from safer_offline.datasets.formats.minari import from_minari  # noqa: PLC0415

        return from_minari(source)
    kind = "nothing (None)" if source is None else f"a {type(source).__name__}"
    raise UsageError(
        "a dataset is given as a file, an id of Minari, a MinariDataset, a dict of NumPy arrays, "
        f"or an OfflineDataset, not as {kind}"
    )


def _usable_arrays(source: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a dict; what nobody needs and cannot be used is left out and named."""
    arrays = {name: np.asarray(values) for name, values in flatten(source).items()}
    left_out = {
        name: "is no array of this format"
        for name in arrays
        if name not in ARRAYS and not name.startswith(INFO_PREFIX)
    }
    left_out |= {
        name: "holds something else than real numbers"
        for name, array in arrays.items()
        if name not in ARRAYS and name not in left_out and array.dtype.kind not in "fiub"
    }
    arrays = {name: array for name, array in arrays.items() if name not in left_out}
    left_out |= find_unfit_columns(arrays)
    if left_out:
        warnings.warn(tell_left_out(list(left_out.items())), stacklevel=4)
    return {name: array for name, array in arrays.items() if name not in left_out}


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
    done_from: str | None = None,
    max_episode_steps: int | None = None,
    group: str = "",
    names: Mapping[str, str] | None = None,
    fixes: Collection[Fix | str] = (),
) -> OfflineDataset:
    """Read a dataset of any format, and complete or mend it where that is asked for.

    Args:
        source: A path, or an id of Minari.
        source_format: Its format; None looks at it.
        cost_from: See `from_d4rl`, like all that follow; for Minari an entry of its infos.
        zero_costs: See there.
        done_from: See there.
        max_episode_steps: See there.
        group: See there.
        names: See there.
        fixes: Flaws of a file to mend, see `Fix`.

    Raises:
        UsageError: If an option does not go with the format or contradicts the source.
        DataError: If the source lacks or contradicts something; the message names the option that
            helps.
    """
    elsewhere = {
        "--done-from": done_from is not None,
        "--group": bool(group),
        "--map": bool(names),
    }
    made_up = {"--cost-from": cost_from is not None, "--zero-costs": zero_costs}
    chosen = source_format or detect_format(source)
    if chosen is not Format.minari and any(elsewhere.values()):
        chosen = Format.d4rl  # the seven arrays are not where they are in ours
    if chosen is Format.d4rl:
        return from_d4rl(
            source,
            cost_from=cost_from,
            zero_costs=zero_costs,
            done_from=done_from,
            max_episode_steps=max_episode_steps,
            group=group,
            names=names,
            fixes=fixes,
        )
    if chosen is Format.minari:
        from safer_offline.datasets.formats.minari import from_minari  # noqa: PLC0415

        for_files = {"--max-episode-steps": max_episode_steps is not None, "--fix": bool(fixes)}
        _require_none(elsewhere | for_files, source, chosen, "it is for files")
        return from_minari(str(source), cost_from=cost_from, zero_costs=zero_costs)
    _require_none(made_up, source, chosen, "it is for files that lack costs")
    return from_dsrl(source, max_episode_steps=max_episode_steps, fixes=fixes)


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
            raise UsageError("a dataset of Minari needs a name: --id bullet/car-circle/mixed-v1")
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


def _require_none(
    given: Mapping[str, bool], source: str | Path, chosen: Format, purpose: str
) -> None:
    if unfit := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"{source} is read as {chosen.value}, where {' and '.join(unfit)} changes nothing: "
            f"leave it out ({purpose})"
        )
