"""Environments by name: tasks of ours, any Gymnasium id, or a function of the user's own.

An `EnvironmentSource` says which environment is meant and can be sent to other processes; its
`make` gives a `SimulatedEnvironment`, which is all that collection and evaluation know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium

from safer_offline.context import BoxSpace, EnvironmentContext
from safer_offline.environments.base import SimulatedEnvironment
from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.gymnasium_adapter import GymnasiumEnvironment
from safer_offline.environments.names import find_factory, is_factory, resolve_name
from safer_offline.environments.tasks import BULLET_IDS, ENVIRONMENT_IDS, deciding_packages
from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.importing import failure_of
from safer_offline.machine import installed_versions
from safer_offline.registration import registered_id


@dataclass(frozen=True, kw_only=True)
class EnvironmentSource:
    """Which environment is meant; equal sources make equal environments, in every process.

    Attributes:
        name: A task of ours (`car-circle`, `ant-velocity`), a Gymnasium id (`module:Id-v0` imports
            the module first), or `module:factory`, where the module may lie in the current
            directory.
        kwargs: Arguments for `gymnasium.make` or the factory; values that JSON knows.
        cost_key: Where `info` holds the cost of a step.
        max_episode_steps: Step limit of an episode; None takes the environment's own.

    Raises:
        UsageError: If an argument is impossible. A wrong name shows when it is first used.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    cost_key: str = "cost"
    max_episode_steps: int | None = None

    def __post_init__(self) -> None:
        try:
            json.dumps(dict(self.kwargs), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the arguments of {self.name} must be values that JSON knows: {error}. "
                "Let a factory of your own build what is more than that"
            ) from None
        if not self.cost_key:
            raise UsageError("the cost key must not be empty")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise UsageError(f"max_episode_steps must be at least 1, not {self.max_episode_steps}")

    def __hash__(self) -> int:
        # The generated one would fail on the mapping.
        kwargs = json.dumps(dict(self.kwargs), sort_keys=True)
        return hash((self.name, kwargs, self.cost_key, self.max_episode_steps))

    @property
    def env_id(self) -> str:
        """The name for metadata: the id of a task of ours, a Gymnasium id, or `module:factory`.

        Raises:
            UsageError: If there is no such environment; the message names the nearest one.
        """
        return resolve_name(self.name)

    def make(self) -> SimulatedEnvironment:
        """Build the environment.

        Raises:
            UsageError: If there is no such environment, or its spaces or step limit do not fit.
            SaferOfflineError: If building it fails.
            MissingSimulatorError: If it is a task of ours and its simulator is not installed.
        """
        env_id = self.env_id
        if env_id in BULLET_IDS:
            self._require_plain(env_id)
            return SafetyEnvironment(env_id, max_episode_steps=self.max_episode_steps)
        environment: Any = self.make_gymnasium()
        try:
            return GymnasiumEnvironment(
                environment,
                env_id=env_id,
                cost_key=self.cost_key,
                max_episode_steps=self.max_episode_steps,
                # What a factory wraps around an environment is not in the specification.
                spec=None if is_factory(env_id) else _spec_as_json(environment),
            )
        except SaferOfflineError:
            environment.close()
            raise

    def context_of(self, environment: SimulatedEnvironment) -> EnvironmentContext:
        """What `make` made, for those who shall make it again."""
        return EnvironmentContext(
            env_id=environment.env_id,
            kwargs=dict(self.kwargs),
            cost_key=self.cost_key,
            max_episode_steps=environment.max_episode_steps,
            observation_space=BoxSpace.from_gymnasium(environment.observation_space),
            action_space=BoxSpace.from_gymnasium(environment.action_space),
            versions=installed_versions(deciding_packages(environment.env_id)),
        )

    def make_gymnasium(self) -> gymnasium.Env[Any, Any]:
        """Build the environment as its author wrote it.

        Raises:
            UsageError: If there is no such environment, what the factory returns is none, or it is
                a Bullet task and told what it cannot be told.
            SaferOfflineError: If building it fails.
            MissingSimulatorError: If it is a task of ours and its simulator is not installed.
        """
        env_id, kwargs = self.env_id, dict(self.kwargs)
        if env_id in BULLET_IDS:
            self._require_plain(env_id)
        try:
            if is_factory(env_id):
                environment = find_factory(env_id, kwargs)(**kwargs)
            else:
                environment = gymnasium.make(
                    registered_id(env_id) if env_id in ENVIRONMENT_IDS else env_id,
                    max_episode_steps=self.max_episode_steps,
                    disable_env_checker=True,
                    **kwargs,
                )
        except SaferOfflineError:
            raise
        except Exception as error:
            raise SaferOfflineError(f"making {self.name} failed: {failure_of(error)}") from error
        if not isinstance(environment, gymnasium.Env):
            raise UsageError(_not_an_environment(self.name, environment))
        return environment

    def _require_plain(self, env_id: str) -> None:
        """Refuse what a Bullet task cannot be told."""
        if self.kwargs:
            raise UsageError(f"{env_id} takes no arguments, but got {', '.join(self.kwargs)}")
        if self.cost_key != "cost":
            raise UsageError(f"the cost key of {env_id} is 'cost', not '{self.cost_key}'")


def _not_an_environment(name: str, made: object) -> str:
    kind = type(made)
    text = f"{name} made a {kind.__module__}.{kind.__qualname__}, which is no gymnasium.Env"
    if any(base.__module__.split(".")[0] == "gym" for base in kind.__mro__):
        text += (
            ". It is of the old package gym: derive it from gymnasium.Env instead, or wrap it with "
            "shimmy.GymV21CompatibilityV0"
        )
    elif made is None:
        text += ". Does the function lack a return?"
    return text


def _spec_as_json(environment: gymnasium.Env[Any, Any]) -> dict[str, Any] | None:
    if environment.spec is None:
        return None
    try:
        return cast("dict[str, Any]", json.loads(environment.spec.to_json()))
    except (TypeError, ValueError):
        return None  # an entry point or argument that JSON does not know
