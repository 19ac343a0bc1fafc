"""Exchange with Minari: `to_minari` and `from_minari` are inverse to each other.

Minari has no convention for costs. They travel as `infos["cost"]`, like every info with one entry
more than there are steps: entry t + 1 belongs to step t, entry 0 to the reset.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari import EpisodeData
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from safer_offline.context import BoxSpace
from safer_offline.datasets.dataset.constants import find_constant_problems
from safer_offline.datasets.dataset.in_memory import OfflineDataset, as_columns
from safer_offline.datasets.dataset.nesting import flatten, nest
from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import INFO_PREFIX, Metadata
from safer_offline.datasets.dataset.validation import find_problems, raise_first_error
from safer_offline.datasets.formats import is_minari_id
from safer_offline.datasets.formats.minari_folder import (
    MinariFolder,
    read_folder,
    read_opened,
)
from safer_offline.datasets.storage.layouts import find_costs
from safer_offline.errors import DataError, UsageError
from safer_offline.files import require_writable, writing

METADATA_KEY = "safer_offline"
COST = "cost"
SEED = INFO_PREFIX + "seed"
ROOT_VARIABLE = "MINARI_DATASETS_PATH"


def to_minari(
    dataset: OfflineDataset,
    dataset_id: str,
    *,
    description: str | None = None,
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
) -> Path:
    """Write a dataset into Minari's local folder, whole or not at all.

    Args:
        dataset: What to write.
        dataset_id: Its name, such as `bullet/car-circle/mixed-v1`. A new version needs a new id.
        description: For the readers of Minari's listings, like the three that follow; None takes
            the one in the metadata.
        author: Who made it; None takes the author in the metadata.
        author_email: How to reach them.
        code_permalink: The code that made it.

    Returns:
        The folder of the new dataset.

    Raises:
        UsageError: If the id is malformed or taken.
        DataError: If the dataset breaks our format, if a next observation is not the observation
            that follows, which Minari could not store, or if the disk is full.
    """
    require_free_id(dataset_id)
    root = _root()
    metadata = dataset.metadata
    raise_first_error(find_problems(dataset.to_arrays(), metadata), path=dataset.path)
    environment = _EnvironmentStandIn(dataset)
    with writing(root / dataset_id, what="the dataset"):
        _require_room(root, dataset)
        with _staging_root(root) as staging, warnings.catch_warnings():
            # Minari warns about each description that is left out: that is the caller's choice.
            warnings.simplefilter("ignore", UserWarning)
            created = minari.create_dataset_from_buffers(
                dataset_id,
                buffer=list(_episode_buffers(dataset)),
                env=environment,
                algorithm_name=", ".join(entry.name for entry in metadata.behavior_policies)
                or None,
                author=author or metadata.author or None,
                author_email=author_email,
                code_permalink=code_permalink,
                description=description or metadata.description or None,
                data_format="hdf5",
            )
            # Without the hashes: Minari's own tools can append to what they describe.
            attributes = metadata.without_content().to_attributes()
            created.storage.update_metadata({METADATA_KEY: attributes})
            _publish(staging, root, dataset_id)
    return root / dataset_id


def _require_room(root: Path, dataset: OfflineDataset) -> None:
    """Minari stores arrays as they are, and HDF5 crashes the process where the disk is full."""
    needed = sum(array.nbytes for array in dataset.to_arrays().values())
    home = next(place for place in (root, *root.parents) if place.exists())
    if shutil.disk_usage(home).free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: it takes {needed:,} bytes")


def require_free_id(dataset_id: str) -> None:
    """Check, before hours are spent, that a dataset of this name could be written.

    Raises:
        UsageError: If the id is malformed or taken.
    """
    _require_well_formed(dataset_id)
    require_writable(_root() / dataset_id)
    if (_root() / dataset_id).exists():
        raise UsageError(
            f"the Minari dataset '{dataset_id}' exists already in {_root()} and was left as it "
            f"is; give the new one another version, such as '{_next_version(dataset_id)}'"
        )


def from_minari(
    source: str | minari.MinariDataset, *, cost_from: str | None = None, zero_costs: bool = False
) -> OfflineDataset:
    """Read a dataset from Minari's local folder, or one that Minari has opened.

    The last step of an episode that carries neither flag counts as a timeout, since Minari's
    episodes end there. What Minari's own loader trips over is no obstacle where the data can be
    read without it: what the environment's specification or a space says is then unknown. What
    cannot be kept is reported with `warnings.warn`.

    Args:
        source: Its name, such as `bullet/car-circle/mixed-v1`, or the dataset, of which some
            episodes may have been chosen.
        cost_from: The info that holds the costs, if it is not called `cost`; of an info within
            another, both names: `safety/cost`.
        zero_costs: Every cost is 0.

    Raises:
        UsageError: If the id is malformed, there is no such dataset on this machine, or the costs
            have two sources.
        DataError: If it has no costs, observations that are no vectors, or breaks our format.
    """
    if cost_from is not None and zero_costs:
        raise UsageError("--cost-from and --zero-costs exclude each other; give one of them")
    found = _read(source, cost_from=cost_from, zero_costs=zero_costs)
    for note in found.notes:
        warnings.warn(f"{found.folder}: {note}", stacklevel=2)
    return OfflineDataset.from_arrays(found.arrays, metadata=found.metadata, path=found.folder)


def find_minari_problems(dataset_id: str) -> list[Problem]:
    """Everything that is wrong with a dataset, worst first; nothing is raised for bad data.

    Raises:
        UsageError: If the id is malformed or there is no such dataset on this machine.
    """
    try:
        found = _read(dataset_id)
    except DataError as error:
        return [
            Problem(
                field=error.field,
                index=error.index,
                problem=error.problem,
                remedy=error.remedy or "get or make it anew",
            )
        ]
    columns = as_columns(found.arrays)
    problems = find_problems(columns, found.metadata)
    if not any(problem.severity == "error" for problem in problems):
        problems += find_constant_problems(columns)
    return problems + [
        Problem(
            field=None,
            problem=note,
            remedy="the rest can be used; `safer-offline data convert` writes what was read",
            severity="warning",
        )
        for note in found.notes
    ]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a dataset of Minari holds, not checked yet, and what is to be said about it."""

    arrays: dict[str, NDArray[Any]]
    metadata: Metadata
    folder: Path
    notes: tuple[str, ...]


def _local_folder(dataset_id: str) -> Path:
    """Where Minari keeps a dataset."""
    _require_well_formed(dataset_id)
    folder = _root() / dataset_id
    if not folder.exists():
        near = difflib.get_close_matches(dataset_id, _local_ids(), n=1, cutoff=0.0)
        raise UsageError(
            f"there is no Minari dataset '{dataset_id}' in {_root()}"
            + (f"; did you mean '{near[0]}'?" if near else ", nor any other")
            + f"\n  Remedy: a public one comes with `minari download {dataset_id}`"
        )
    return folder


def _read(
    source: str | minari.MinariDataset, *, cost_from: str | None = None, zero_costs: bool = False
) -> _Found:
    if isinstance(source, str):
        label, folder = source, _local_folder(source)
        read = read_folder(folder)
    else:
        label, folder = source.id, Path(source.storage.data_path).parent
        read = read_opened(source, folder)
    names = {name for episode in read.episodes for name in flatten(episode.infos)}
    costs = _find_cost_info(names, label, folder=folder, cost_from=cost_from, zero_costs=zero_costs)
    episodes = [_episode_arrays(one, path=folder, cost_from=costs) for one in read.episodes]
    shared = set.intersection(*(set(episode) for episode in episodes))
    arrays = {name: np.concatenate([part[name] for part in episodes]) for name in sorted(shared)}
    if SEED not in arrays and None not in read.seeds:
        arrays[SEED] = np.repeat(np.array(read.seeds), [len(part["rewards"]) for part in episodes])
    notes = list(read.notes)
    metadata = _read_metadata(read, path=folder, notes=notes)
    kept = {name.removeprefix(INFO_PREFIX) for name in arrays} | {COST, costs}
    if lost := sorted(names - kept):
        notes.append(
            "not read, because they are no numbers, not one a step, or not in every episode: "
            f"infos {', '.join(lost)}"
        )
    if costs != COST:
        done = (
            "all costs are 0, because the source holds none"
            if costs is None
            else f"costs taken from the info '{costs}'"
        )
        notes.append(done)
        definition = f"the info '{costs}'" if costs else "always 0: the source holds no costs"
        metadata = dataclasses.replace(
            metadata.without_content(),
            cost_key=costs,
            cost_definition=metadata.cost_definition or definition,
            description=f"{metadata.description}\n\nChanged on import: {done}.".strip(),
        )
    return _Found(arrays=arrays, metadata=metadata, folder=folder, notes=tuple(notes))


def _find_cost_info(
    names: set[str], dataset_id: str, *, folder: Path, cost_from: str | None, zero_costs: bool
) -> str | None:
    """The name of the info that holds the costs; None if all of them are 0.

    Raises:
        UsageError: If an option contradicts the source.
        DataError: If no info is called `cost` and nothing was said of it.
    """
    if COST in names:
        if zero_costs or cost_from not in (None, COST, INFO_PREFIX + COST):
            raise UsageError(
                f"{dataset_id} holds costs already, as infos['cost']; leave --cost-from and "
                "--zero-costs out"
            )
        return COST
    listed = ", ".join(sorted(names)) or "none"
    if zero_costs:
        return None
    if cost_from is not None:
        wanted = cost_from.removeprefix(INFO_PREFIX)
        if wanted not in names:
            raise UsageError(f"--cost-from: {dataset_id} has no info '{wanted}'; it has {listed}")
        return wanted
    likely = find_costs(names)
    raise DataError(
        f"there are no costs (infos: {listed})",
        path=folder,
        field="infos/cost",
        remedy="safe learning needs the cost of each step: `safer-offline data convert "
        f"{dataset_id} --cost-from {likely or 'NAME'} --to hdf5 -o NEW.h5` takes an info of "
        "another name, --zero-costs says that nothing was unsafe",
    )


def _local_ids() -> list[str]:
    """The ids of all datasets in Minari's folder, whether Minari can read them or not."""
    ids = []
    for folder, subfolders, _ in os.walk(_root()):
        if "data" in subfolders:
            ids.append(Path(folder).relative_to(_root()).as_posix())
            subfolders.clear()
    return ids


def _episode_buffers(dataset: OfflineDataset) -> Iterator[EpisodeBuffer]:
    """One Minari episode after the other; Minari stores s_0 ... s_T and derives the next ones."""
    arrays = dataset.to_arrays()
    observations, following = arrays["observations"], arrays["next_observations"]
    if any(name == COST or name.startswith(f"{COST}/") for name in dataset.infos):
        raise DataError(
            "Minari keeps the costs under this name",
            path=dataset.path,
            field="infos/cost",
            remedy="rename the column",
        )
    table = dataset.episodes
    for start, length in zip(table["start"], table["length"], strict=True):
        rows = slice(start, start + length)
        differs = (following[rows][:-1] != observations[rows][1:]).any(axis=1)
        if differs.any():
            raise DataError(
                "differs from 'observations' of the next row, and Minari stores only one of them",
                path=dataset.path,
                field="next_observations",
                index=int(start + differs.argmax()),
                remedy="set next_observations[i] = observations[i + 1] within episodes",
            )
        columns = {COST: arrays["costs"], **dataset.infos}
        before = {name: column[start : start + 1] for name, column in dataset.infos.items()}
        before[COST] = np.zeros(1, np.float32)
        yield EpisodeBuffer(
            seed=int(dataset.infos["seed"][start]) if "seed" in dataset.infos else None,
            observations=np.concatenate([observations[rows], following[rows][-1:]]),
            actions=arrays["actions"][rows],
            rewards=arrays["rewards"][rows],
            terminations=arrays["terminals"][rows],
            truncations=arrays["timeouts"][rows],
            infos=nest(
                {
                    name: np.concatenate([before[name], column[rows]])
                    for name, column in columns.items()
                }
            ),
        )


def _episode_arrays(
    episode: EpisodeData, *, path: Path, cost_from: str | None
) -> dict[str, NDArray[Any]]:
    """Our arrays of one Minari episode of T steps; columns that are not one per step stay out."""
    steps = len(episode.rewards)
    infos = {
        name: values
        for name, values in flatten(episode.infos).items()
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and values.ndim
    }

    def error(field: str, problem: str, remedy: str) -> DataError:
        return DataError(
            f"in episode {episode.id} {problem}", path=path, field=field, remedy=remedy
        )

    if cost_from is None:
        costs: NDArray[Any] = np.zeros(steps + 1, np.float32)
    elif cost_from not in infos:
        raise error(
            f"infos/{cost_from}",
            "there are no costs",
            "safe learning needs a number for each step of every episode",
        )
    else:
        costs = infos[cost_from]
    if len(costs) != steps + 1:
        raise error(
            f"infos/{cost_from}",
            f"there are {len(costs)} costs for {steps} steps",
            f"store one for the reset and one for each step, {steps + 1} in all",
        )
    observations, actions = episode.observations, episode.actions
    for name, values, rows in (
        ("observations", observations, steps + 1),
        ("actions", actions, steps),
    ):
        if not isinstance(values, np.ndarray) or values.ndim != 2 or len(values) != rows:
            shape = getattr(values, "shape", type(values).__name__)
            choices = name == "actions" and isinstance(values, np.ndarray) and values.ndim == 1
            if choices and values.dtype.kind in "iub":
                raise error(
                    name,
                    f"there are whole numbers, {shape}: discrete actions, for which there is no "
                    "learner here",
                    "use a dataset of continuous actions",
                )
            raise error(
                name,
                f"there is {shape} instead of vectors, ({rows}, size)",
                "flatten dictionaries and images to vectors before you import them",
            )
    timeouts = episode.truncations.astype(bool)
    timeouts[-1] |= not episode.terminations[-1]
    per_step = {
        INFO_PREFIX + name: values[1:]
        for name, values in infos.items()
        if len(values) == steps + 1 and name != COST
    }
    return per_step | {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": actions,
        "rewards": episode.rewards,
        "costs": costs[1:],
        "terminals": episode.terminations,
        "timeouts": timeouts,
    }


def _read_metadata(read: MinariFolder, *, path: Path, notes: list[str]) -> Metadata:
    ours = read.metadata.get(METADATA_KEY)
    if isinstance(ours, dict):
        return Metadata.from_attributes(ours, path=path)
    spec = read.environment(notes)
    steps, kwargs = spec.get("max_episode_steps"), spec.get("kwargs")
    return Metadata(
        env_id=str(spec.get("id") or ""),
        env_spec=spec or None,
        env_kwargs=kwargs if isinstance(kwargs, dict) else {},
        cost_key=COST,
        max_episode_steps=steps if isinstance(steps, int) and steps > 0 else None,
        observation_space=_vector_space(read.observation_space),
        action_space=_vector_space(read.action_space),
    )


def _vector_space(space: gymnasium.Space[Any] | None) -> BoxSpace | None:
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return BoxSpace.from_gymnasium(space)
    return None


class _EnvironmentStandIn(gymnasium.Env[Any, Any]):
    """Tells Minari the specification and spaces: making the real one would need the simulator."""

    def __init__(self, dataset: OfflineDataset) -> None:
        metadata = dataset.metadata
        unbounded = (-np.inf,) * dataset.observation_size, (np.inf,) * dataset.observation_size
        known = metadata.observation_space
        low, high = (known.low, known.high) if known else unbounded
        self.observation_space = gymnasium.spaces.Box(
            np.array(low, np.float32), np.array(high, np.float32)
        )
        self.action_space = gymnasium.spaces.Box(
            dataset.action_low.numpy(), dataset.action_high.numpy()
        )
        if metadata.env_spec is not None:
            # Gymnasium's versions differ in what a specification holds.
            known_keys = {entry.name for entry in dataclasses.fields(EnvSpec) if entry.init}
            entries = {key: metadata.env_spec[key] for key in known_keys & set(metadata.env_spec)}
            try:
                self.spec = EnvSpec.from_json(json.dumps({"additional_wrappers": [], **entries}))
            except Exception as error:
                warnings.warn(
                    "Minari gets no specification of the environment: this version of Gymnasium "
                    f"does not understand the one in the metadata ({error})",
                    stacklevel=3,
                )


def _root() -> Path:
    default = Path.home() / ".minari" / "datasets"
    return Path(os.environ.get(ROOT_VARIABLE, default))


@contextlib.contextmanager
def _staging_root(root: Path) -> Iterator[Path]:
    """Let Minari write into a hidden folder beside its datasets, removed in the end."""
    root.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(ROOT_VARIABLE)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=root) as staging:
        os.environ[ROOT_VARIABLE] = staging
        try:
            yield Path(staging)
        finally:
            os.environ.pop(ROOT_VARIABLE)
            if before is not None:
                os.environ[ROOT_VARIABLE] = before


def _publish(staging: Path, root: Path, dataset_id: str) -> None:
    """Move a finished dataset to where Minari looks for it, in one step."""
    for namespace in staging.rglob("namespace_metadata.json"):
        target = root / namespace.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            namespace.replace(target)
    (staging / dataset_id).replace(root / dataset_id)


def _require_well_formed(dataset_id: str) -> None:
    if not is_minari_id(dataset_id):
        raise UsageError(
            f"'{dataset_id}' is no Minari dataset id. An id is made of parts joined by '/', each "
            "of two or more letters, digits, '-' and '_', and ends in its version: "
            "bullet/car-circle/mixed-v1"
        )


def _next_version(dataset_id: str) -> str:
    name, version = dataset_id.rsplit("-v", 1)
    return f"{name}-v{int(version) + 1}"
