"""Episodes of an environment that nobody trusts yet: everything is recorded, nothing assumed."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import gymnasium
import numpy as np

from safer_offline.environments.gymnasium_adapter import as_number, step_problem
from safer_offline.environments.source import EnvironmentSource
from safer_offline.importing import failure_of

Replayed = tuple[list[bytes], tuple[str, str] | None]
"""Fingerprints of an episode's steps; problem and remedy if it failed."""


class Missing(Enum):
    """What stands where something is missing; other than an object, it survives copies."""

    COST = "no cost in info"


@dataclass
class Trace:
    """What happened in one episode, or in the beginning of one.

    Attributes:
        seed: Of the reset.
        actions: All actions, in order.
        observations: All observations, the one of the reset first.
        rewards: As the environment returned them.
        costs: As `info` held them, or `Missing.COST`.
        infos: A value for each key that `info` ever had.
        both: Steps that terminated and truncated.
        ended: Whether the environment itself or its step limit ended the episode.
        seconds: Time that reset and steps took.
        failure: Problem and remedy, if the interface was broken.
    """

    seed: int
    actions: list[Any] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    rewards: list[Any] = field(default_factory=list)
    costs: list[Any] = field(default_factory=list)
    infos: dict[str, Any] = field(default_factory=dict)
    both: int = 0
    ended: bool = False
    seconds: float = 0.0
    failure: tuple[str, str] | None = None

    @property
    def length(self) -> int:
        """Steps."""
        return len(self.rewards)

    def prints(self) -> list[bytes]:
        """A fingerprint of the reset and of each step; equal episodes have equal ones."""
        reset = [np.asarray(one).tobytes() for one in self.observations[:1]]
        return reset + [
            np.asarray(observation).tobytes() + repr((as_number(reward), as_number(cost))).encode()
            for observation, reward, cost in zip(
                self.observations[1:], self.rewards, self.costs, strict=True
            )
        ]


def draw_actions(space: gymnasium.Space[Any], *, seed: int, bold: bool) -> Iterator[Any]:
    """Random actions without end.

    Args:
        space: Where they come from.
        seed: Same seed, same actions.
        bold: Hold each for a while, at the border of the space; small random actions cancel one
            another out and meet little of what can happen.
    """
    if bold and isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        generator = np.random.default_rng(seed)
        while True:
            corner = np.where(generator.random(space.shape) < 0.5, space.low, space.high)
            yield from itertools.repeat(corner.astype(space.dtype), int(generator.integers(5, 40)))
    space.seed(seed)
    while True:
        yield space.sample()


def run_episode(
    environment: Any,  # noqa: ANN401
    actions: Iterator[Any],
    *,
    seed: int,
    cost_key: str,
    step_limit: int | None,
    most_steps: int,
    seconds: float = float("inf"),
) -> Trace:
    """Run one episode and record it.

    Args:
        environment: Whatever claims to be one.
        actions: What to do; the episode is left when they run out.
        seed: Of the reset.
        cost_key: Where `info` should hold the cost.
        step_limit: The episode has ended after so many steps, if the environment does not count.
        most_steps: The episode is left after so many steps.
        seconds: The episode is left after so long.
    """
    trace = Trace(seed=seed)
    start = time.perf_counter()
    try:
        answer = environment.reset(seed=seed)
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
            trace.failure = (
                f"reset returned {type(answer).__name__}, not (observation, info)",
                "return (observation, {}) from reset; the observation alone is the interface of "
                "the old package gym",
            )
            return trace
        # Copies: many environments write into the same array at every step.
        trace.observations.append(copy.deepcopy(answer[0]))
        for action in itertools.islice(actions, most_steps):
            trace.actions.append(action)
            answer = environment.step(copy.deepcopy(action))
            trace.failure = step_problem(answer)
            if trace.failure:
                return trace
            observation, reward, terminated, truncated, info = answer
            trace.observations.append(copy.deepcopy(observation))
            trace.rewards.append(reward)
            trace.costs.append(copy.deepcopy(info.get(cost_key, Missing.COST)))
            trace.infos.update(info)
            trace.both += bool(terminated) and bool(truncated)
            trace.ended = bool(terminated or truncated or trace.length == step_limit)
            if trace.ended or time.perf_counter() - start > seconds:
                break
    except Exception as error:
        what = "step" if trace.observations else "reset"
        remedy = "mend it"
        if isinstance(error, TypeError) and "seed" in str(error):
            remedy = "write `def reset(self, *, seed=None, options=None)` and call "
            remedy += "super().reset(seed=seed) first"
        trace.failure = (f"{what} raised {failure_of(error)}", remedy)
    finally:
        trace.seconds = time.perf_counter() - start
    return trace


def replay(
    source: EnvironmentSource, seed: int, actions: list[Any], step_limit: int | None
) -> Replayed:
    """An episode in an environment that is made for it, without what that prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        environment = source.make_gymnasium()
        try:
            trace = run_episode(
                environment,
                iter(actions),
                seed=seed,
                cost_key=source.cost_key,
                step_limit=step_limit,
                most_steps=len(actions),
            )
        finally:
            environment.close()
    return trace.prints(), trace.failure
