"""Collect a dataset: behaviour policies drive, on several processes, and a crash costs little.

The work is cut into shards of whole episodes (`shards`). After `kill -9`, the same command finds
the finished shards, collects the missing ones and ends with the same content as a run that nobody
disturbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safer_offline.datasets.collection.checks import check_behaviors
from safer_offline.datasets.collection.processes import collect_locally
from safer_offline.datasets.collection.recipe import Recipe, load_recipe
from safer_offline.datasets.collection.shards import CollectionPlan, shard_path
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.formats.minari import require_free_id, to_minari
from safer_offline.datasets.storage.hdf5 import read_file, save_dataset
from safer_offline.datasets.storage.provenance import provenance
from safer_offline.errors import DataError, OutputError, UsageError
from safer_offline.files import require_writable, write_atomically
from safer_offline.interruption import Interrupted, signal_of
from safer_offline.locking import sole_writer
from safer_offline.progress import progress_bar


def collect(
    recipe: str | Path | Recipe,
    path: str | Path,
    *,
    transitions: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> OfflineDataset:
    """Collect a dataset of benign rollouts and write it to an HDF5 file.

    Unfinished work waits in the folder `<path>.shards`; the same call continues it.

    Args:
        recipe: A recipe, its name (`car-circle-mixed`), a task (`car-circle`, whose mixed recipe
            is meant), or a recipe file (`my_recipe.toml`).
        path: File to write.
        transitions: How many to collect at least, instead of the recipe's number; the last episode
            of a shard is finished.
        seed: Instead of the recipe's. Same seed, same content, whatever `workers` and `ray` are.
        workers: Processes; None takes as many as there are cores.
        ray: Address of a Ray cluster to collect on instead, `local` to start one here.
        overwrite: Whether a file that is there already may be replaced.
        progress: Whether to show a progress bar (never where the output is no terminal).

    Returns:
        The dataset, as written.

    Raises:
        UsageError: If the recipe, environment or a behaviour is unknown, the file exists, or the
            folder of shards belongs to another plan.
        MissingSimulatorError: If the simulator is not installed.
    """
    path = Path(path)
    require_writable(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another name with -o, or say --overwrite")
    plan = _plan(recipe, transitions=transitions, seed=seed)
    folder = path.with_name(path.name + ".shards")
    with _gathered(plan, folder, workers=workers, ray=ray, progress=progress) as dataset:
        metadata = save_dataset(path, dataset, overwrite=overwrite)
    return dataclasses.replace(dataset, metadata=metadata, path=path)


def collect_to_minari(
    recipe: str | Path | Recipe,
    dataset_id: str = "",
    *,
    transitions: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
) -> OfflineDataset:
    """Collect a dataset of benign rollouts and write it as a local Minari dataset.

    Unfinished work waits in the current folder, in one named after the dataset.

    Args:
        recipe: See `collect`.
        dataset_id: Such as `bullet/car-circle/mixed-v1`; empty takes the recipe's name.
        transitions: See `collect`.
        seed: See `collect`.
        workers: See `collect`.
        ray: See `collect`.
        progress: See `collect`.

    Raises:
        UsageError: See `collect`; also if the id breaks Minari's rules or is taken.
    """
    plan = _plan(recipe, transitions=transitions, seed=seed)
    dataset_id = dataset_id or plan.recipe.name
    require_free_id(dataset_id)
    folder = Path(dataset_id.replace("/", "_") + ".shards")
    with _gathered(plan, folder, workers=workers, ray=ray, progress=progress) as dataset:
        to_minari(dataset, dataset_id)
    return dataset


def _plan(
    recipe: str | Path | Recipe, *, transitions: int | None, seed: int | None
) -> CollectionPlan:
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    return CollectionPlan.make(recipe.instead(transitions=transitions, seed=seed))


@contextlib.contextmanager
def _gathered(
    plan: CollectionPlan, folder: Path, *, workers: int | None, ray: str | None, progress: bool
) -> Iterator[OfflineDataset]:
    """The whole dataset; its shards are removed once the caller has stored it."""
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    undisturbed, begun = not folder.exists(), time.monotonic()
    if undisturbed and ray is None:
        check_behaviors(plan.recipe)
    with sole_writer(folder):
        _claim(folder, plan)
        try:
            _collect_shards(plan, folder, workers=workers, ray=ray, progress=progress)
        except KeyboardInterrupt as error:
            kept = len(list(folder.glob("shard-*.h5")))
            told = f"{kept} of {len(plan.shards)} shards are kept in {folder}" if kept else ""
            raise Interrupted(told, number=signal_of(error)) from None
        except OutputError as error:
            raise OutputError(
                error.problem,
                path=error.path,
                remedy=f"{error.remedy}; then the same command goes on where it stopped",
            ) from error
        yield _joined(plan, folder, seconds=time.monotonic() - begun if undisturbed else None)
        shutil.rmtree(folder)


def _joined(plan: CollectionPlan, folder: Path, *, seconds: float | None) -> OfflineDataset:
    """The whole dataset, of all the shards."""
    parts = [read_file(shard_path(folder, number)) for number in range(len(plan.shards))]
    dataset = OfflineDataset.concatenate(parts)
    metadata = dataclasses.replace(
        dataset.metadata,
        parents=(),
        reference_scores=plan.recipe.reference_scores or _extremes(dataset),
        build_seconds=None if seconds is None else round(seconds, 1),
        **provenance(),
    )
    return dataclasses.replace(dataset, metadata=metadata)


def _extremes(dataset: OfflineDataset) -> dict[str, float]:
    """What DSRL normalises by: the least and the most that an episode of the dataset reached."""
    episodes = dataset.episodes
    return {
        "return_min": float(episodes["return"].min()),
        "return_max": float(episodes["return"].max()),
        "cost_max": float(episodes["cost"].max()),
    }


def _claim(folder: Path, plan: CollectionPlan) -> None:
    """Make the folder of shards, or check that the one that is there is for the same plan."""
    note = folder / "plan.json"
    if note.exists():
        if note.read_text() != plan.to_json():
            raise UsageError(
                f"{folder} holds an unfinished collection with other settings: "
                f"{_first_difference(note, plan)}. Finish it with its own, or delete the folder"
            )
    else:
        write_atomically(note, plan.to_json().encode())
    for stale in folder.glob("*.tmp-*"):
        stale.unlink(missing_ok=True)


def _first_difference(note: Path, plan: CollectionPlan) -> str:
    """The first setting in which the plan of a note is another."""
    try:
        before = _flat(json.loads(note.read_text()))
    except ValueError:
        return f"{note} is damaged"
    now = _flat(json.loads(plan.to_json()))
    # What follows from other settings comes last.
    names = sorted({*before, *now}, key=lambda name: name in ("recipe.name", "recipe.description"))
    for name in names:
        if before.get(name) != now.get(name):
            place = name.removeprefix("recipe.")
            return f"{place} is {before.get(name)!r} there and {now.get(name)!r} here"
    return "they are written in another way"


def _flat(value: Any, place: str = "") -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Every entry of a JSON value by its path."""
    if not isinstance(value, dict | list):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    entries: dict[str, Any] = {}
    for name, part in items:
        entries |= _flat(part, f"{place}.{name}" if place else str(name))
    return entries


def _is_whole(path: Path) -> bool:
    try:
        read_file(path)
    except DataError:
        path.unlink(missing_ok=True)
        return False
    return True


def _collect_shards(
    plan: CollectionPlan, folder: Path, *, workers: int | None, ray: str | None, progress: bool
) -> None:
    """Collect all shards that are missing, and wait for them."""
    transitions = plan.recipe.transitions
    missing = [n for n in range(len(plan.shards)) if not _is_whole(shard_path(folder, n))]
    done = transitions - sum(plan.shards[number] for number in missing)
    if done and progress:
        print(f"{folder}: {done:,} transitions are there already", file=sys.stderr)  # noqa: T201
    if not missing:
        return
    if ray is None:
        finished = collect_locally(plan, missing, folder, workers=workers)
    else:
        # Here, because the package is an extra.
        from safer_offline.datasets.collection.cluster import collect_on_ray  # noqa: PLC0415

        finished = collect_on_ray(plan, missing, folder, address=ray)
    bar = progress_bar(
        f"collect {plan.recipe.environment.env_id}",
        total=transitions,
        completed=done,
        enabled=progress,
    )
    with bar as display, contextlib.closing(finished):
        for number in finished:
            display.advance(plan.shards[number])
