"""Actors that reinforcement learning made, and the file that holds them.

One file holds one training: the networks at several moments of it (early ones drive worse, which a
dataset wants, too), the spaces, and how they were trained and measured. It is read with NumPy
alone, runs no code, and proves its own health with a digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from safer_offline.datasets.behaviors.base import FloatArray
from safer_offline.errors import DataError
from safer_offline.files import make_folder, write_atomically

FORMAT = "safer-offline/actor/1"
HEADER = "actor"
"""The one entry of the safetensors metadata; with several, the library would shuffle them."""

REMEDY = "get the file again, or train another with `safer-offline behaviors train`"

Layer = tuple[FloatArray, FloatArray]
"""Weight (outputs, inputs) and bias (outputs,)."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How an actor did under one penalty, in episodes in which it acted by its mean.

    Attributes:
        penalty: What a unit of cost took from its reward.
        episodes: How many were driven.
        mean_return: Task reward of an episode, without penalty and shaping.
        mean_cost: Cost of an episode.
        mean_length: Steps of an episode.
    """

    penalty: float
    episodes: int
    mean_return: float
    mean_cost: float
    mean_length: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of the training whose networks the file holds.

    Attributes:
        steps: Environment steps trained until then.
        scores: How it did, one entry a penalty; empty if nobody measured.
    """

    steps: int
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ActorInfo:
    """What the file tells beside the weights.

    Attributes:
        env_id: Environment that it was trained in.
        observation_size: Numbers in an observation, without the penalty.
        action_low: Lower bound of each action.
        action_high: Upper bound of each action.
        hidden_sizes: Hidden layers, each followed by a ReLU.
        penalties: Those that it was trained with, ascending.
        snapshots: The moments held, ascending.
        algorithm: What trained it.
        training: Settings and seed, for the record and for repeating it.
        versions: Of the packages that took part.
    """

    env_id: str
    observation_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden_sizes: tuple[int, ...]
    penalties: tuple[float, ...]
    snapshots: tuple[Snapshot, ...]
    algorithm: str = "SAC"
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bounds = (self.action_low, self.action_high)
        problems = {
            "there are no action bounds": not self.action_low,
            "the action bounds differ in number": len(self.action_low) != len(self.action_high),
            "an action bound is not finite": not np.isfinite(bounds[0] + bounds[1]).all(),
            "a lower action bound is not below the upper": any(
                low >= high for low, high in zip(*bounds, strict=False)
            ),
            "the observation size is not positive": self.observation_size < 1,
            "there is no hidden layer": not self.hidden_sizes or min(self.hidden_sizes) < 1,
            "the penalties are not ascending numbers >= 0": not _ascending(self.penalties, 0.0),
            "the snapshots are not ascending": not _ascending(
                [snapshot.steps for snapshot in self.snapshots], 0
            ),
        }
        for problem, holds in problems.items():
            if holds:
                raise ValueError(problem)

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return len(self.action_low)

    @property
    def penalty_scale(self) -> float:
        """What a penalty is divided by where the network sees it."""
        return penalty_scale(self.penalties)


def penalty_scale(penalties: Sequence[float]) -> float:
    """The largest penalty, or 1 where nothing is ever penalised."""
    return max(penalties) or 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionedActor:
    """A squashed Gaussian policy that takes the observation and the penalty it shall drive for.

    Attributes:
        info: Of the whole file.
        snapshot: Which moment of the training this is.
        hidden: Hidden layers; the last input of the first is the scaled penalty.
        mean: Layer of the mean, before the tanh.
        log_std: Layer of the logarithm of the standard deviation, before the tanh.
    """

    info: ActorInfo
    snapshot: Snapshot
    hidden: tuple[Layer, ...]
    mean: Layer
    log_std: Layer

    @classmethod
    def load(cls, path: str | Path, *, snapshot: int = -1) -> ConditionedActor:
        """The actor of one moment, by its place in the file; the last unless told otherwise."""
        return load_actors(path).actors[snapshot]

    def arrays(self) -> dict[str, FloatArray]:
        """The weights by the names that the file gives them."""
        layers = {f"hidden.{place}": layer for place, layer in enumerate(self.hidden)}
        layers |= {"mean": self.mean, "log_std": self.log_std}
        return {
            f"{self.snapshot.steps}.{name}.{part}": array
            for name, layer in layers.items()
            for part, array in zip(("weight", "bias"), layer, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class ActorFile:
    """The actors of one training, ascending by steps.

    Attributes:
        info: Spaces and provenance.
        actors: One a snapshot.
        sha256: Hash of the whole file, as `sha256sum` prints it.
        path: The file.
    """

    info: ActorInfo
    actors: tuple[ConditionedActor, ...]
    sha256: str
    path: Path


def save_actors(path: str | Path, actors: Sequence[ConditionedActor]) -> ActorFile:
    """Write the actors of one training, whole or not at all; equal actors make equal files.

    Args:
        path: File to write.
        actors: One for each snapshot that their common `info` lists, in that order.
    """
    path, info = Path(path), actors[0].info
    arrays = {name: array for actor in actors for name, array in actor.arrays().items()}
    told = dataclasses.asdict(info)
    header = {"format": FORMAT, "info": told, "sha256": _digest(told, arrays)}
    content = to_bytes(arrays, metadata={HEADER: json.dumps(header, sort_keys=True)})
    make_folder(path.parent)
    write_atomically(path, content)
    return load_actors(path)


def is_actor_file(path: Path) -> bool:
    """Whether this safetensors file says that it holds actors; it may be damaged still."""
    try:
        with safe_open(path, framework="numpy") as file:
            return HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_actors(path: str | Path) -> ActorFile:
    """Read and check an actor file; code hidden in the file is never run.

    Raises:
        DataError: If it is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("there is no such actor file", path=path, remedy=REMEDY)
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DataError(f"the file cannot be read ({error})", path=path, remedy=REMEDY) from error
    if HEADER not in metadata:
        raise DataError("the file holds no actors of safer-offline", path=path, remedy=REMEDY)
    try:
        header = json.loads(metadata[HEADER])
        if header["format"] != FORMAT:
            raise DataError(
                f"the file has format '{header['format']}', this version reads '{FORMAT}'",
                path=path,
                remedy="update safer-offline to the version that wrote the file",
            )
        if _digest(header["info"], arrays) != header["sha256"]:
            raise DataError("the file is damaged (its digest differs)", path=path, remedy=REMEDY)
        info = _read_info(header["info"])
        actors = tuple(_take_actor(info, snapshot, arrays) for snapshot in info.snapshots)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"the weights do not fit what the file says ({error})", path=path, remedy=REMEDY
        ) from error
    return ActorFile(info=info, actors=actors, sha256=sha256, path=path)


def _take_actor(
    info: ActorInfo, snapshot: Snapshot, arrays: Mapping[str, np.ndarray[Any, Any]]
) -> ConditionedActor:
    """The actor of one snapshot, every array of the shape that `info` asks for."""

    def layer(name: str, outputs: int, inputs: int) -> Layer:
        parts = []
        for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            array = arrays[f"{snapshot.steps}.{name}.{part}"]
            if array.dtype != np.float32 or array.shape != shape:
                raise ValueError(
                    f"{snapshot.steps}.{name}.{part} is {array.dtype}{list(array.shape)}, not "
                    f"float32{list(shape)}"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{snapshot.steps}.{name}.{part} is not finite")
            parts.append(array)
        return parts[0], parts[1]

    sizes = (info.observation_size + 1, *info.hidden_sizes)
    hidden = tuple(
        layer(f"hidden.{place}", sizes[place + 1], sizes[place])
        for place in range(len(info.hidden_sizes))
    )
    return ConditionedActor(
        info=info,
        snapshot=snapshot,
        hidden=hidden,
        mean=layer("mean", info.action_size, sizes[-1]),
        log_std=layer("log_std", info.action_size, sizes[-1]),
    )


def _read_info(values: Mapping[str, Any]) -> ActorInfo:
    """Inverse of `dataclasses.asdict`: JSON has lists for tuples."""
    settings = dict(values)
    for name in ("action_low", "action_high", "penalties"):
        settings[name] = tuple(float(number) for number in settings[name])
    settings["hidden_sizes"] = tuple(int(size) for size in settings["hidden_sizes"])
    settings["snapshots"] = tuple(
        Snapshot(
            steps=int(snapshot["steps"]),
            scores=tuple(Score(**score) for score in snapshot["scores"]),
        )
        for snapshot in settings["snapshots"]
    )
    return ActorInfo(**settings)


def _ascending(numbers: Sequence[float], least: float) -> bool:
    return (
        len(numbers) > 0
        and bool(np.isfinite(numbers).all())
        and numbers[0] >= least
        and bool((np.diff(numbers) > 0).all())
    )


def _digest(told: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """SHA-256 of the information and of every array's name, type, shape and bytes."""
    sha256 = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha256.update(f"{name}{array.dtype}{array.shape}".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()
