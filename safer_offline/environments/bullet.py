"""Deterministic safety environments: the Bullet tasks, with their seeding repaired.

The Bullet tasks ignore `reset(seed)`, draw from NumPy's global generator and let the last motor
command of one episode act in the reset of the next. `SafetyEnvironment` repairs all of that: an
episode is a function of its seed and its actions, bit for bit, in every process and whatever ran
before. Training code must never import this module; a test holds that wall.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.base import FloatArray, Step
from safer_offline.environments.tasks import resolve_environment
from safer_offline.errors import MissingSimulatorError


class SafetyEnvironment:
    """One Bullet safety task whose episodes depend on nothing but seed and actions.

    Args:
        env_id: An id such as `SafetyCarCircle-v0` or a short name such as `car-circle`.
        max_episode_steps: Step limit of an episode; None takes the task's own.

    Raises:
        UsageError: If the id is unknown.
        MissingSimulatorError: If the simulator is not installed.
    """

    def __init__(self, env_id: str, *, max_episode_steps: int | None = None) -> None:
        self.env_id = resolve_environment(env_id)
        with _simulator_output():
            _require_simulator()
            with _without_visuals():
                environment = gymnasium.make(self.env_id, disable_env_checker=True)
        assert environment.spec is not None
        assert environment.spec.max_episode_steps is not None
        self.max_episode_steps = max_episode_steps or environment.spec.max_episode_steps
        self.spec: dict[str, Any] | None = json.loads(environment.spec.to_json())
        self._environment = cast("Any", environment.unwrapped)
        _bind_functions(self._environment.bc)
        self.observation_space = cast("gymnasium.spaces.Box", environment.observation_space)
        self.action_space = cast("gymnasium.spaces.Box", environment.action_space)
        self._elapsed = 0
        # The first reset differs from all later ones (it stores the state that they restore).
        self.reset(0)

    def reset(self, seed: int) -> FloatArray:
        """Start the episode that `seed` names.

        Returns:
            The first observation, shape (observation size,).
        """
        # Motor targets survive restoreState and would act in reset's own physics step: make them
        # the same for every history. The extra step consumes the external forces that go with them.
        self._environment.agent.apply_action(np.zeros(self.action_space.shape))
        self._environment.bc.stepSimulation()
        with _global_generators_seeded(seed):
            observation, _ = self._environment.reset()
        self._elapsed = 0
        return np.asarray(observation, dtype=np.float32)

    def step(self, action: NDArray[Any]) -> Step:
        """Act once. `action` has shape (action size,) and is clipped to [-1, 1] by the task."""
        observation, reward, terminated, _, info = self._environment.step(action)
        self._elapsed += 1
        return Step(
            observation=np.asarray(observation, dtype=np.float32),
            reward=float(reward),
            cost=float(info["cost"]),
            terminated=bool(terminated),
            truncated=not terminated and self._elapsed >= self.max_episode_steps,
        )

    def close(self) -> None:
        """Disconnect from the physics engine."""
        self._environment.close()


@contextlib.contextmanager
def _global_generators_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that the simulator draws from, and give them back unchanged."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _require_simulator() -> None:
    try:
        importlib.import_module("bullet_safety_gym")  # registers the environments
    except ImportError as error:
        raise MissingSimulatorError(
            f"simulation needs the package 'bullet-safety-gym' ({error}). Its physics engine, "
            "pybullet, has wheels for Python 3.10 and 3.11 only: use one of these to collect and "
            "evaluate. Training and everything about datasets works without it."
        ) from error


@contextlib.contextmanager
def _without_visuals() -> Iterator[None]:
    """Let the simulator load bodies without the meshes that only a renderer would need.

    The physics stays the same, bit for bit (a test compares), but a race car takes 26 MB instead
    of 92 and is built four times as fast.
    """
    pybullet = importlib.import_module("pybullet")
    client = importlib.import_module("pybullet_utils.bullet_client").BulletClient

    def load(self: Any, *args: Any, **settings: Any) -> int:  # noqa: ANN401 - as pybullet has it
        flags = settings.pop("flags", 0) | pybullet.URDF_IGNORE_VISUAL_SHAPES
        body: int = pybullet.loadURDF(*args, flags=flags, physicsClientId=self._client, **settings)
        return body

    # Clients look up pybullet's functions when they are called; an attribute of the class is first.
    client.loadURDF = load
    try:
        yield
    finally:
        del client.loadURDF


def _bind_functions(client: Any) -> None:  # noqa: ANN401 - pybullet has no types
    """Look up all of pybullet's functions for this client once, instead of at every call.

    A step calls some twenty; for the ball, finding them takes a good part of the step.
    """
    pybullet = importlib.import_module("pybullet")
    for name, function in vars(pybullet).items():
        # Not disconnect: there the client must notice that it has no server any more.
        if inspect.isbuiltin(function) and name != "disconnect":
            setattr(client, name, functools.partial(function, physicsClientId=client._client))


@contextlib.contextmanager
def _simulator_output() -> Iterator[None]:
    """Make room for the simulator's way with the standard streams, and hide pybullet's banner.

    It looks up C streams by the names of Python's, which fails where these are replaced, as in
    notebooks and under pytest. The banner comes from C, so it is the file descriptor that must go.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        with contextlib.redirect_stdout(sys.__stdout__), contextlib.redirect_stderr(sys.__stderr__):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
