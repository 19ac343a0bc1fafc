"""Deterministic safety environments, alone or many at once on several processes.

The Bullet tasks ignore `reset(seed)`, draw from NumPy's global generator and let the last motor
command of one episode act in the reset of the next. `SafetyEnvironment` repairs all of that: an
episode is a function of its seed and its actions, bit for bit, in every process and whatever ran
before. Training code must never import this module; a test holds that wall.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import itertools
import json
import multiprocessing
import os
import random
import re
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.errors import MissingSimulatorError, SaferOfflineError, UsageError

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

ENVIRONMENT_IDS = tuple(
    f"Safety{agent}{task}-v0"
    for task in ("Circle", "Run")
    for agent in ("Car", "Ball", "Drone", "Ant")
)


def short_name(env_id: str) -> str:
    """`SafetyCarCircle-v0` -> `car-circle`, the name the command line uses."""
    words = re.findall(r"[A-Z][a-z]+", env_id)
    return "-".join(word.lower() for word in words if word != "Safety")


def resolve_environment(name: str) -> str:
    """The environment id behind an id or a short name (`car-circle`).

    Raises:
        UsageError: If no environment has that name; the message names the nearest one.
    """
    by_name = {short_name(env_id): env_id for env_id in ENVIRONMENT_IDS}
    by_name.update({env_id.lower(): env_id for env_id in ENVIRONMENT_IDS})
    found = by_name.get(name.lower().replace("_", "-"))
    if found is not None:
        return found
    nearest = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.0)[0]
    raise UsageError(
        f"unknown environment '{name}'; the nearest known one is '{by_name[nearest]}'. "
        f"Known: {', '.join(ENVIRONMENT_IDS)}"
    )


class Step(NamedTuple):
    """What one step of one environment returned."""

    observation: FloatArray
    reward: float
    cost: float
    terminated: bool
    truncated: bool


class SafetyEnvironment:
    """One Bullet safety task whose episodes depend on nothing but seed and actions.

    Args:
        env_id: An id such as `SafetyCarCircle-v0` or a short name such as `car-circle`.

    Raises:
        UsageError: If the id is unknown.
        MissingSimulatorError: If the simulator is not installed.
    """

    def __init__(self, env_id: str) -> None:
        self.env_id = resolve_environment(env_id)
        with _simulator_output():
            _require_simulator()
            with _without_visuals():
                environment = gymnasium.make(self.env_id, disable_env_checker=True)
        assert environment.spec is not None
        assert environment.spec.max_episode_steps is not None
        self.max_episode_steps: int = environment.spec.max_episode_steps
        self.spec: dict[str, Any] = json.loads(environment.spec.to_json())
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


class Steps(NamedTuple):
    """What one step of a batch of B environments returned; finished rows hold zeros."""

    observations: FloatArray
    """(B, observation size); a finished row keeps its last observation."""
    rewards: FloatArray
    costs: FloatArray
    terminated: BoolArray
    truncated: BoolArray


class VectorEnvironment:
    """A batch of B `SafetyEnvironment`s of one task, stepped on several processes.

    Rows whose episode has ended are left alone until the next `reset`, so the statistics of an
    episode are exact. The rows of a batch do not influence one another: which row runs on which
    process changes nothing.

    Args:
        env_id: Id or short name of the task.
        num_envs: Rows B of the batch.
        workers: Processes to step on; None takes as many as there are cores, 0 steps in this one.
    """

    def __init__(self, env_id: str, *, num_envs: int, workers: int | None = None) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, not {num_envs}")
        if workers is not None and workers < 0:
            raise UsageError(f"workers must not be negative, but is {workers}")
        self.env_id = resolve_environment(env_id)
        self.num_envs = num_envs
        workers = min(available_cores() if workers is None else workers, num_envs)
        self._done = np.ones(num_envs, dtype=np.bool_)
        self._groups: list[_LocalGroup | _RemoteGroup] = []
        if workers == 0:
            self._rows = [slice(0, num_envs)]
            self._groups.append(_LocalGroup(self.env_id, num_envs))
        else:
            edges = np.linspace(0, num_envs, workers + 1).astype(int)
            self._rows = [slice(a, b) for a, b in itertools.pairwise(edges)]
            self._groups.extend(_RemoteGroup(self.env_id, r.stop - r.start) for r in self._rows)
        description = self._groups[0].describe()
        self.observation_space: gymnasium.spaces.Box = description[0]
        self.action_space: gymnasium.spaces.Box = description[1]
        self.max_episode_steps: int = description[2]
        self._last = np.zeros((num_envs, *(self.observation_space.shape or ())), dtype=np.float32)

    def reset(self, seeds: Sequence[int]) -> FloatArray:
        """Start one episode a row, the one that its seed names. Returns (B, observation size)."""
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        for rows, group in zip(self._rows, self._groups, strict=True):
            group.send("reset", [int(seed) for seed in seeds[rows]])
        self._last = np.concatenate([group.receive() for group in self._groups])
        self._done[:] = False
        return self._last.copy()

    def step(self, actions: NDArray[Any]) -> Steps:
        """Act once in every row whose episode still runs. `actions` has shape (B, action size)."""
        actions = np.asarray(actions)
        for rows, group in zip(self._rows, self._groups, strict=True):
            group.send("step", (actions[rows], ~self._done[rows]))
        parts = [group.receive() for group in self._groups]
        observations, rewards, costs, terminated, truncated = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        running = ~self._done
        self._last[running] = observations[running]
        self._done |= terminated | truncated
        return Steps(self._last.copy(), rewards, costs, terminated, truncated)

    @property
    def done(self) -> BoolArray:
        """Which rows' episodes have ended, shape (B,)."""
        return self._done.copy()

    def close(self) -> None:
        """End the processes."""
        for group in self._groups:
            group.close()
        self._groups = []

    def __enter__(self) -> VectorEnvironment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _LocalGroup:
    """Some rows of a batch, stepped one after the other in this process."""

    def __init__(self, env_id: str, num_envs: int) -> None:
        self._environments = [SafetyEnvironment(env_id) for _ in range(num_envs)]
        self._answer: Any = None

    def describe(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box, int]:
        first = self._environments[0]
        return first.observation_space, first.action_space, first.max_episode_steps

    def send(self, command: str, argument: Any) -> None:  # noqa: ANN401 - mirrors the pipe
        self._answer = getattr(self, f"_{command}")(argument)

    def receive(self) -> Any:  # noqa: ANN401
        return self._answer

    def _reset(self, seeds: list[int]) -> FloatArray:
        return np.stack(
            [env.reset(seed) for env, seed in zip(self._environments, seeds, strict=True)]
        )

    def _step(self, argument: tuple[NDArray[Any], BoolArray]) -> tuple[NDArray[Any], ...]:
        actions, running = argument
        count = len(self._environments)
        shape = self._environments[0].observation_space.shape or ()
        observations = np.zeros((count, *shape), dtype=np.float32)
        rewards, costs = np.zeros(count, np.float32), np.zeros(count, np.float32)
        terminated, truncated = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for row in np.flatnonzero(running):
            step = self._environments[row].step(actions[row])
            observations[row], rewards[row], costs[row] = step.observation, step.reward, step.cost
            terminated[row], truncated[row] = step.terminated, step.truncated
        return observations, rewards, costs, terminated, truncated

    def close(self) -> None:
        for environment in self._environments:
            environment.close()


class _RemoteGroup:
    """Some rows of a batch, stepped in a process of their own."""

    def __init__(self, env_id: str, num_envs: int) -> None:
        # Not fork: a forked child would inherit this process's physics servers and threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, remote = context.Pipe()
        self._process = context.Process(
            target=_serve_group, args=(remote, env_id, num_envs), daemon=True
        )
        self._process.start()
        remote.close()

    def describe(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box, int]:
        self.send("describe", None)
        answer: tuple[gymnasium.spaces.Box, gymnasium.spaces.Box, int] = self.receive()
        return answer

    def send(self, command: str, argument: Any) -> None:  # noqa: ANN401
        with contextlib.suppress(OSError):  # of a process that died; `receive` tells
            self._pipe.send((command, argument))

    def receive(self) -> Any:  # noqa: ANN401
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            raise SaferOfflineError(
                f"a simulation process died (exit code {self._process.exitcode}); "
                "out of memory? Try fewer episodes at once or fewer workers. In a script of your "
                "own, call what simulates under `if __name__ == '__main__':`"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError, OSError):
            self._pipe.send(("close", None))
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
        self._pipe.close()


def _serve_group(pipe: Connection, env_id: str, num_envs: int) -> None:
    """Body of a simulation process: answer commands until told to close."""
    try:
        group = _LocalGroup(env_id, num_envs)
        while True:
            command, argument = pipe.recv()
            if command == "close":
                break
            if command == "describe":
                pipe.send(group.describe())
            else:
                group.send(command, argument)
                pipe.send(group.receive())
    except (EOFError, KeyboardInterrupt):
        pass  # the parent has gone
    except Exception as error:
        pipe.send(error)


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
