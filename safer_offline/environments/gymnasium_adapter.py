"""A Gymnasium environment with a cost, held to what the rest of the package relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.base import FloatArray, Step
from safer_offline.errors import SaferOfflineError, UsageError


class GymnasiumEnvironment:
    """A Gymnasium environment whose `info` holds the cost of each step.

    Args:
        environment: An environment with flat Box spaces.
        env_id: Its name in metadata.
        cost_key: Where `info` holds the cost of a step.
        max_episode_steps: Step limit of an episode; None takes the environment's own.
        spec: Its specification as JSON.

    Raises:
        UsageError: If its spaces do not fit, or nobody says how long an episode may be.
    """

    def __init__(
        self,
        environment: gymnasium.Env[Any, Any],
        *,
        env_id: str,
        cost_key: str = "cost",
        max_episode_steps: int | None = None,
        spec: dict[str, Any] | None = None,
    ) -> None:
        self.env_id = env_id
        self.spec = spec
        self._environment: Any = environment
        self._cost_key = cost_key
        for problem, remedy in space_problems(environment):
            raise UsageError(f"{env_id}: {problem}. Remedy: {remedy}")
        self.observation_space = cast("gymnasium.spaces.Box", environment.observation_space)
        self.action_space = cast("gymnasium.spaces.Box", environment.action_space)
        limits = [n for n in (max_episode_steps, own_step_limit(environment)) if n is not None]
        if not limits:
            raise UsageError(
                f"{env_id} does not say how many steps an episode may have. Remedy: "
                f"{STEP_LIMIT_REMEDY}"
            )
        self.max_episode_steps = min(limits)
        self._elapsed = 0

    def reset(self, seed: int) -> FloatArray:
        """Start the episode that `seed` names. Returns the first observation, shape (ds,)."""
        answer = self._environment.reset(seed=int(seed))
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise SaferOfflineError(f"{self.env_id}: reset must return (observation, info)")
        self._elapsed = 0
        return self._observation(answer[0])

    def step(self, action: NDArray[Any]) -> Step:
        """Act once. `action` has shape (da,) and is clipped to the bounds of the space."""
        space = self.action_space
        # A copy always: an environment may keep its action.
        clipped = np.minimum(np.maximum(action, space.low), space.high).astype(space.dtype)
        answer = self._environment.step(clipped)
        if problem := step_problem(answer):
            raise SaferOfflineError(f"{self.env_id}: {problem[0]}. Remedy: {problem[1]}")
        observation, reward, terminated, truncated, info = answer
        self._elapsed += 1
        number = as_number(reward)
        if number is None or not math.isfinite(number):
            raise SaferOfflineError(
                f"{self.env_id}: the reward of step {self._elapsed} is {reward!r}"
            )
        return Step(
            observation=self._observation(observation),
            reward=number,
            cost=self._cost(info),
            terminated=bool(terminated),
            truncated=not terminated
            and (bool(truncated) or self._elapsed >= self.max_episode_steps),
        )

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    def _observation(self, observation: object) -> FloatArray:
        # A copy always: many environments write the next observation into the same array.
        array = np.array(observation, dtype=np.float32)
        if array.shape != self.observation_space.shape:
            raise SaferOfflineError(
                f"{self.env_id}: an observation has shape {array.shape}, but the observation space "
                f"says {self.observation_space.shape}"
            )
        if not np.isfinite(array).all():
            raise SaferOfflineError(
                f"{self.env_id}: an observation is not finite: {array}, after {self._elapsed} steps"
            )
        return array

    def _cost(self, info: Mapping[str, Any]) -> float:
        if self._cost_key not in info:
            keys = ", ".join(f"'{key}'" for key in info) or "nothing"
            raise SaferOfflineError(
                f"{self.env_id}: 'info' has no '{self._cost_key}' after step {self._elapsed}; "
                f"it holds {keys}. Name the key of the cost with --cost-key (cost_key=), or put "
                "the cost there in every step"
            )
        cost = as_number(info[self._cost_key])
        if cost is None:
            raise SaferOfflineError(
                f"{self.env_id}: info['{self._cost_key}'] is no number: {info[self._cost_key]!r}"
            )
        if not 0 <= cost < math.inf:
            raise SaferOfflineError(
                f"{self.env_id}: the cost of a step must be finite and not negative, but "
                f"info['{self._cost_key}'] is {cost}"
            )
        return cost


# What is wrong with an environment, and what to do about it. The checker says the same.

STEP_LIMIT_REMEDY = (
    "give max_episode_steps (--max-episode-steps), or wrap the environment in "
    "gymnasium.wrappers.TimeLimit"
)


def as_number(value: object) -> float | None:
    """A number of any library as a float; None if it is none (text, or an array)."""
    if isinstance(value, float):
        return value
    if value is None or isinstance(value, str | bytes) or np.ndim(cast("Any", value)) > 0:
        return None
    try:
        return float(cast("Any", value))
    except (TypeError, ValueError):
        return None


def own_step_limit(environment: gymnasium.Env[Any, Any]) -> int | None:
    """Steps that an environment, its wrappers or its specification allow."""
    limits = []
    layer: Any = environment
    while isinstance(layer, gymnasium.Wrapper):
        limits.append(vars(layer).get("_max_episode_steps"))  # of TimeLimit
        layer = layer.env
    limits += [getattr(layer, name, None) for name in ("max_episode_steps", "_max_episode_steps")]
    stated = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    if stated:
        return min(stated)
    return None if environment.spec is None else environment.spec.max_episode_steps


def space_problems(environment: gymnasium.Env[Any, Any]) -> Iterator[tuple[str, str]]:
    """Problem and remedy for each space that is none that we can use."""
    observations: Any = getattr(environment, "observation_space", None)
    actions: Any = getattr(environment, "action_space", None)
    if not isinstance(observations, gymnasium.spaces.Box) or len(observations.shape) != 1:
        yield (
            f"the observation space must be a Box of one dimension, not {observations}",
            "wrap the environment in gymnasium.wrappers.FlattenObservation",
        )
    if not isinstance(actions, gymnasium.spaces.Box) or len(actions.shape) != 1:
        yield (
            f"the action space must be a Box of one dimension, not {actions}",
            "policies here act in real numbers: give the environment an action space of this kind, "
            "or a wrapper (gymnasium.ActionWrapper) that turns such actions into its own",
        )
    elif not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        yield (
            f"the action space must have finite bounds, not {actions}",
            "state the true bounds of the actions; if there are none, bound them in a wrapper "
            "(gymnasium.ActionWrapper) whose action_space is such a Box",
        )


def step_problem(answer: object) -> tuple[str, str] | None:
    """Problem and remedy if `step` did not return what Gymnasium says, else None."""
    if isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], Mapping):
        return None
    what = f"{len(answer)} values" if isinstance(answer, tuple) else type(answer).__name__
    remedy = "return (observation, reward, terminated, truncated, info) from step"
    if isinstance(answer, tuple) and len(answer) == 4:
        remedy += "; (observation, reward, done, info) is the interface of the old package gym"
    if isinstance(answer, tuple) and len(answer) == 6:
        remedy += (
            "; wrap a safety_gymnasium environment in "
            "safety_gymnasium.wrappers.SafetyGymnasium2Gymnasium"
        )
    elif isinstance(answer, tuple) and len(answer) == 5:
        what = f"{what}, of which the last, info, is a {type(answer[4]).__name__} and no dict"
    return f"step returned {what}", remedy
