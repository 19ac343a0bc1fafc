"""Behaviours that were learned: actors of an actor file, driven with NumPy alone.

One network holds a whole range of drivers. It sees, beside the observation, how much a unit of cost
takes from its reward, so a penalty drawn for each episode slides along the trade-off between return
and cost, as the margins of scripted drivers do.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safer_offline.datasets.behaviors.base import (
    BehaviorFamily,
    Controller,
    ExplorationNoise,
    FloatArray,
    NoisyController,
    SwitchingController,
)
from safer_offline.datasets.behaviors.families import Draw
from safer_offline.datasets.behaviors.learned.actor_files import (
    ActorFile,
    ConditionedActor,
    load_actors,
)
from safer_offline.errors import DataError, UsageError

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""The actor files that come with the package."""

LEAST_LOG_STD, LARGEST_LOG_STD = np.float32(-20.0), np.float32(2.0)
"""Between which Stable-Baselines3 keeps the logarithm of the standard deviation."""


class ActorController:
    """An actor that drives for one penalty.

    Args:
        actor: Its networks.
        penalty: What a unit of cost shall weigh; any number within the range trained.
        generator: Draws its actions; None acts by the mean.

    Raises:
        UsageError: If nothing near the penalty was trained.
    """

    def __init__(
        self, actor: ConditionedActor, *, penalty: float, generator: np.random.Generator | None
    ) -> None:
        info = actor.info
        _require_trained(actor, penalty, penalty)
        # The penalty stays the same for the whole episode: its column becomes part of the bias.
        (weight, bias), *rest = actor.hidden
        shifted = bias + weight[:, -1] * np.float32(penalty / info.penalty_scale)
        self._hidden = ((np.ascontiguousarray(weight[:, :-1]), shifted), *rest)
        self._mean, self._log_std = actor.mean, actor.log_std
        self._generator = generator
        self._low = np.array(info.action_low, dtype=np.float32)
        self._half_range = (np.array(info.action_high, dtype=np.float32) - self._low) / 2

    def __call__(self, observation: FloatArray) -> list[float]:
        """The action, in the units of the environment."""
        features = observation
        for weight, bias in self._hidden:
            features = weight @ features
            features += bias
            np.maximum(features, 0.0, out=features)
        weight, bias = self._mean
        action = weight @ features
        action += bias
        if self._generator is not None:
            weight, bias = self._log_std
            log_std = weight @ features
            log_std += bias
            np.maximum(log_std, LEAST_LOG_STD, out=log_std)
            np.minimum(log_std, LARGEST_LOG_STD, out=log_std)
            action += np.exp(log_std) * self._generator.standard_normal(len(bias), dtype=np.float32)
        np.tanh(action, out=action)
        action += 1.0
        action *= self._half_range
        action += self._low
        numbers: list[float] = action.tolist()
        return numbers


def draw_actor(
    generator: np.random.Generator,
    actors: Sequence[ConditionedActor],
    *,
    penalties: tuple[float, float],
    deterministic_share: float,
) -> Controller:
    """The driver of one episode.

    Args:
        generator: Of the episode.
        actors: One of these drives, each equally likely.
        penalties: Range that its penalty is drawn from, evenly.
        deterministic_share: Probability that it acts by its mean instead of drawing its actions.
    """
    actor = actors[int(generator.integers(len(actors)))]
    penalty = float(generator.uniform(*penalties))
    by_mean = generator.random() < deterministic_share
    return ActorController(actor, penalty=penalty, generator=None if by_mean else generator)


def learned_family(
    name: str,
    description: str,
    actors: Sequence[ConditionedActor],
    *,
    penalties: tuple[float, float] | None = None,
    deterministic_share: float = 0.5,
    noise: float = 0.0,
    burst_rate: float = 0.0,
    switch_every: float | None = None,
    checkpoint_sha256: str | None = None,
) -> BehaviorFamily:
    """A family whose drivers differ in penalty, snapshot, and whether they draw their actions.

    Args:
        name: Stored with the dataset.
        description: How it drives, in a few words.
        actors: One of these drives, each equally likely.
        penalties: Range that an episode's penalty is drawn from; None takes all that was trained.
        deterministic_share: Share of the episodes that are driven by the mean action.
        noise: Largest scale of an episode's noise; each episode draws its own.
        burst_rate: Probability, at each step, of a burst of one random action.
        switch_every: Steps between changes of driver, on average; None keeps one an episode. Where
            penalties differ, a change from low to high shows a recovery.
        checkpoint_sha256: Hash of the file that holds the actors.

    Raises:
        UsageError: If a number is impossible, or a penalty lies outside what was trained.
    """
    trained = actors[0].info.penalties
    low, high = penalties or (trained[0], trained[-1])
    for actor in actors:
        _require_trained(actor, low, high)
    _require(0 <= deterministic_share <= 1, "deterministic_share must be between 0 and 1")
    _require(noise >= 0, "noise must not be negative")
    _require(0 <= burst_rate <= 1, "burst_rate must be between 0 and 1")
    _require(switch_every is None or switch_every >= 1, "switch_every must be at least 1")

    def draw(generator: np.random.Generator) -> Controller:
        return draw_actor(
            generator, actors, penalties=(low, high), deterministic_share=deterministic_share
        )

    def disturbed(generator: np.random.Generator) -> Controller:
        drivers = (
            draw(generator)
            if switch_every is None
            else SwitchingController(draw, generator, switch_rate=1.0 / switch_every)
        )
        if noise == 0 and burst_rate == 0:
            return drivers
        exploration = ExplorationNoise(
            scale=float(generator.uniform(0.0, noise)), burst_rate=burst_rate
        )
        return NoisyController(drivers, exploration, generator)

    return BehaviorFamily(
        name=name, description=description, draw=disturbed, checkpoint_sha256=checkpoint_sha256
    )


def packaged_names() -> list[str]:
    """The actor files that come with the package, such as `ant-run`."""
    return sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors"))


@functools.cache
def packaged_actors(name: str) -> ActorFile:
    """An actor file that comes with the package; read once.

    Raises:
        UsageError: If there is none of that name.
        DataError: If it is damaged.
    """
    if name not in packaged_names():
        raise UsageError(
            f"no checkpoint '{name}' comes with the package; there are "
            f"{', '.join(packaged_names()) or 'none'}"
        )
    return load_actors(CHECKPOINTS / f"{name}.safetensors")


def packaged_drivers(
    name: str,
    *,
    sha256: str,
    snapshots: tuple[int, ...],
    penalties: tuple[float, float],
    deterministic_share: float,
) -> Draw:
    """Draws drivers from an actor file that comes with the package.

    The file is read when somebody first drives, not when the tasks are listed.

    Args:
        name: Of the file, such as `ant-run`.
        sha256: What it must be: a dataset tells whose weights acted.
        snapshots: Training steps after which the networks were kept; one of these drives.
        penalties: See `draw_actor`.
        deterministic_share: See `draw_actor`.
    """

    def draw(generator: np.random.Generator) -> Controller:
        file = packaged_actors(name)
        if file.sha256 != sha256:
            raise DataError(
                "this is not the actor file that the package came with",
                path=file.path,
                remedy="install the package again",
            )
        return draw_actor(
            generator,
            [actor for actor in file.actors if actor.snapshot.steps in snapshots],
            penalties=penalties,
            deterministic_share=deterministic_share,
        )

    return draw


def _require_trained(actor: ConditionedActor, low: float, high: float) -> None:
    least, largest = actor.info.penalties[0], actor.info.penalties[-1]
    _require(
        least <= low <= high <= largest,
        f"the actor was trained with penalties from {least:g} to {largest:g}, not {low:g} "
        f"to {high:g}",
    )


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise UsageError(problem)
