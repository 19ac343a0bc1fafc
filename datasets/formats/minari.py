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
from safer_offline.datasets.dataset.schema import INFO_PREFIX, Metadata
from safer_offline.datasets.dataset.validation import Problem, find_problems, raise_first_error
from safer_offline.datasets.formats import is_minari_id
from safer_offline.errors import DataError, UsageError
from safer_offline.files import require_writable, writing

METADATA_KEY = "safer_offline"
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
        dataset_id: Its name, such as `bullet/car-circle/mixed-v0`. A new version needs a new id.
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
    with writing(root / dataset_id, what="the dataset"):
        _require_room(root, dataset)
        with _staging_root(root) as staging, warnings.catch_warnings():
            # Minari warns about each description that is left out: that is the caller's choice.
            warnings.simplefilter("ignore", UserWarning)
            created = minari.create_dataset_from_buffers(
                dataset_id,
                buffer=list(_episode_buffers(dataset)),
                env=_EnvironmentStandIn(dataset),
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


def from_minari(source: str | minari.MinariDataset) -> OfflineDataset:
    """Read a dataset from Minari's local folder, or one that Minari has opened.

    The last step of an episode that carries neither flag counts as a timeout, since Minari's
    episodes end there.

    Args:
        source: Its name, such as `bullet/car-circle/mixed-v0`, or the dataset, of which some
            episodes may have been chosen.

    Raises:
        UsageError: If the id is malformed or there is no such dataset on this machine.
        DataError: If it has no costs, observations that are no vectors, or breaks our format.
    """
    arrays, metadata, folder = _read(source)
    return OfflineDataset.from_arrays(arrays, metadata=metadata, path=folder)


def find_minari_problems(dataset_id: str) -> list[Problem]:
    """Everything that is wrong with a dataset, worst first; nothing is raised for bad data.

    Raises:
        UsageError: If the id is malformed or there is no such dataset on this machine.
    """
    try:
        arrays, metadata, _ = _read(dataset_id)
    except DataError as error:
        return [
            Problem(
                field=error.field,
                index=error.index,
                problem=error.problem,
                remedy=error.remedy or "get or make it anew",
            )
        ]
    columns = as_columns(arrays)
    problems = find_problems(columns, metadata)
    if not any(problem.severity == "error" for problem in problems):
        problems += find_constant_problems(columns)
    return problems


def _local_folder(dataset_id: str) -> Path:
    """Where Minari keeps a dataset."""
    _require_well_formed(dataset_id)
    folder = _root() / dataset_id
    if not folder.exists():
        local = minari.list_local_datasets()
        near = difflib.get_close_matches(dataset_id, local, n=1, cutoff=0.0)
        raise UsageError(
            f"there is no Minari dataset '{dataset_id}' in {_root()}"
            + (f"; did you mean '{near[0]}'?" if near else ", nor any other")
            + f"\n  Remedy: a public one comes with `minari download {dataset_id}`"
        )
    return folder


def _read(
    source: str | minari.MinariDataset,
) -> tuple[dict[str, NDArray[Any]], Metadata, Path]:
    """Arrays and metadata, not checked yet, and the folder they come from."""
    if isinstance(source, str):
        folder = _local_folder(source)
    else:
        folder = Path(source.storage.data_path).parent
    try:
        opened = minari.load_dataset(source) if isinstance(source, str) else source
        episodes = [_episode_arrays(episode, path=folder) for episode in opened.iterate_episodes()]
        details = list(opened.storage.get_episode_metadata(opened.episode_indices))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"Minari cannot read the dataset ({error})", path=folder, remedy="get or make it anew"
        ) from error
    if not episodes:
        raise DataError("there are no episodes", path=folder, remedy="export or collect it anew")
    shared = set.intersection(*(set(episode) for episode in episodes))
    arrays = {name: np.concatenate([part[name] for part in episodes]) for name in sorted(shared)}
    seeds = [entry.get("seed") for entry in details]
    if SEED not in arrays and None not in seeds:
        arrays[SEED] = np.repeat(np.array(seeds), [len(part["rewards"]) for part in episodes])
    return arrays, _read_metadata(opened, path=folder), folder


def _episode_buffers(dataset: OfflineDataset) -> Iterator[EpisodeBuffer]:
    """One Minari episode after the other; Minari stores s_0 ... s_T and derives the next ones."""
    arrays = dataset.to_arrays()
    observations, following = arrays["observations"], arrays["next_observations"]
    if "cost" in dataset.infos:
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
        columns = {"cost": arrays["costs"], **dataset.infos}
        before = {name: column[start : start + 1] for name, column in dataset.infos.items()}
        before["cost"] = np.zeros(1, np.float32)
        yield EpisodeBuffer(
            seed=int(dataset.infos["seed"][start]) if "seed" in dataset.infos else None,
            observations=np.concatenate([observations[rows], following[rows][-1:]]),
            actions=arrays["actions"][rows],
            rewards=arrays["rewards"][rows],
            terminations=arrays["terminals"][rows],
            truncations=arrays["timeouts"][rows],
            infos={
                name: np.concatenate([before[name], column[rows]])
                for name, column in columns.items()
            },
        )


def _episode_arrays(episode: EpisodeData, *, path: Path) -> dict[str, NDArray[Any]]:
    """Our arrays of one Minari episode of T steps; columns that are not one per step stay out."""
    steps = len(episode.rewards)
    infos = {
        name: values
        for name, values in (episode.infos or {}).items()
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and values.ndim
    }

    def error(field: str, problem: str, remedy: str) -> DataError:
        return DataError(
            f"in episode {episode.id} {problem}", path=path, field=field, remedy=remedy
        )

    if "cost" not in infos:
        raise error(
            "infos/cost", "there are no costs", "safe learning needs infos['cost'] for each step"
        )
    if len(infos["cost"]) != steps + 1:
        raise error(
            "infos/cost",
            f"there are {len(infos['cost'])} costs for {steps} steps",
            f"store one for the reset and one for each step, {steps + 1} in all",
        )
    observations, actions = episode.observations, episode.actions
    for name, values, rows in (
        ("observations", observations, steps + 1),
        ("actions", actions, steps),
    ):
        if not isinstance(values, np.ndarray) or values.ndim != 2 or len(values) != rows:
            shape = getattr(values, "shape", type(values).__name__)
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
        if len(values) == steps + 1 and name != "cost"
    }
    return per_step | {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": actions,
        "rewards": episode.rewards,
        "costs": infos["cost"][1:],
        "terminals": episode.terminations,
        "timeouts": timeouts,
    }


def _read_metadata(source: minari.MinariDataset, *, path: Path) -> Metadata:
    ours = source.storage.metadata.get(METADATA_KEY)
    if isinstance(ours, dict):
        return Metadata.from_attributes(ours, path=path)
    spec = source.env_spec
    return Metadata(
        env_id=spec.id if spec else "",
        env_spec=json.loads(spec.to_json()) if spec else None,
        env_kwargs=spec.kwargs if spec else {},
        cost_key="cost",
        max_episode_steps=spec.max_episode_steps if spec else None,
        observation_space=_vector_space(source.observation_space),
        action_space=_vector_space(source.action_space),
    )


def _vector_space(space: gymnasium.Space[Any]) -> BoxSpace | None:
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
            self.spec = EnvSpec.from_json(json.dumps({"additional_wrappers": [], **entries}))


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
            "bullet/car-circle/mixed-v0"
        )


def _next_version(dataset_id: str) -> str:
    name, version = dataset_id.rsplit("-v", 1)
    return f"{name}-v{int(version) + 1}"
