"""Many environments of one source at once, on several processes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from safer_offline.environments.base import FloatArray
from safer_offline.environments.processes import ChildProcess, failures_told
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import UsageError
from safer_offline.machine import available_cores

BoolArray = NDArray[np.bool_]


class Steps(NamedTuple):
    """What one step of a batch of B environments returned; finished rows hold zeros."""

    observations: FloatArray
    """(B, observation size); a finished row keeps its last observation."""
    rewards: FloatArray
    costs: FloatArray
    terminated: BoolArray
    truncated: BoolArray


class VectorEnvironment:
    """A batch of B environments of one source, stepped on several processes.

    Rows whose episode has ended are left alone until they are started again, so the statistics of
    an episode are exact. The rows of a batch do not influence one another: which row runs on which
    process changes nothing.

    Args:
        env: Name of the environment, or the source that makes it.
        num_envs: Rows B of the batch.
        workers: Processes to step on; None takes as many as there are cores, 0 steps in this one.
    """

    def __init__(
        self, env: str | EnvironmentSource, *, num_envs: int, workers: int | None = None
    ) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, not {num_envs}")
        if workers is not None and workers < 0:
            raise UsageError(f"workers must not be negative, but is {workers}")
        source = EnvironmentSource(name=env) if isinstance(env, str) else env
        self.env_id = source.env_id
        self.num_envs = num_envs
        workers = min(available_cores() if workers is None else workers, num_envs)
        self._done = np.ones(num_envs, dtype=np.bool_)
        self._groups: list[_LocalGroup | _RemoteGroup] = []
        if workers == 0:
            self._rows = [slice(0, num_envs)]
            self._groups.append(_LocalGroup(source, num_envs))
        else:
            edges = np.linspace(0, num_envs, workers + 1).astype(int)
            self._rows = [slice(a, b) for a, b in itertools.pairwise(edges)]
            self._groups.extend(_RemoteGroup(source, r.stop - r.start) for r in self._rows)
        description = self._groups[0].describe()
        self.observation_space: gymnasium.spaces.Box = description[0]
        self.action_space: gymnasium.spaces.Box = description[1]
        self.max_episode_steps: int = description[2]
        self._last = np.zeros((num_envs, *(self.observation_space.shape or ())), dtype=np.float32)

    def reset(self, seeds: Sequence[int]) -> FloatArray:
        """Start one episode a row, the one that its seed names. Returns (B, observation size)."""
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        return self.restart(np.ones(self.num_envs, np.bool_), seeds)

    def restart(self, rows: BoolArray, seeds: Sequence[int]) -> FloatArray:
        """Start an episode in some rows, and leave the others alone.

        Args:
            rows: In which ones, shape (B,).
            seeds: The episode of each of these, in order.

        Returns:
            Observations of all rows, (B, observation size).
        """
        starts: list[int | None] = [None] * self.num_envs
        for row, seed in zip(np.flatnonzero(rows), seeds, strict=True):
            starts[row] = int(seed)
        for mine, group in zip(self._rows, self._groups, strict=True):
            group.send("restart", starts[mine])
        for mine, group in zip(self._rows, self._groups, strict=True):
            started = group.receive()
            if started is not None:
                self._last[mine][rows[mine]] = started
        self._done &= ~rows
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


class _LocalGroup:
    """Some rows of a batch, stepped one after the other in this process."""

    def __init__(self, source: EnvironmentSource, num_envs: int) -> None:
        self._environments = [source.make() for _ in range(num_envs)]
        self._answer: Any = None

    def describe(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box, int]:
        first = self._environments[0]
        return first.observation_space, first.action_space, first.max_episode_steps

    def send(self, command: str, argument: Any) -> None:  # noqa: ANN401 - mirrors the pipe
        self._answer = getattr(self, f"_{command}")(argument)

    def receive(self) -> Any:  # noqa: ANN401
        return self._answer

    def _restart(self, seeds: list[int | None]) -> FloatArray | None:
        started = [
            environment.reset(seed)
            for environment, seed in zip(self._environments, seeds, strict=True)
            if seed is not None
        ]
        return np.stack(started) if started else None

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

    def __init__(self, source: EnvironmentSource, num_envs: int) -> None:
        self._child = ChildProcess(_serve_group, source, num_envs)

    def describe(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box, int]:
        self.send("describe", None)
        answer: tuple[gymnasium.spaces.Box, gymnasium.spaces.Box, int] = self.receive()
        return answer

    def send(self, command: str, argument: Any) -> None:  # noqa: ANN401
        self._child.send((command, argument))

    def receive(self) -> Any:  # noqa: ANN401
        return self._child.receive()

    def close(self) -> None:
        self._child.close()


def _serve_group(pipe: Connection, source: EnvironmentSource, num_envs: int) -> None:
    """Body of a simulation process: answer commands until told to close."""
    with failures_told(pipe, what="the environment"):
        group = _LocalGroup(source, num_envs)
        while (asked := pipe.recv()) is not None:
            command, argument = asked
            if command == "describe":
                pipe.send(group.describe())
            else:
                group.send(command, argument)
                pipe.send(group.receive())
