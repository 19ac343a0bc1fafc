"""Waves of episodes side by side, each in a process that attacks and simulates by itself.

An attack that follows gradients keeps one core busy while the simulators of its wave wait for it.
Other waves need not. What a wave finds does not depend on where it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from types import TracebackType
from typing import Any

import cloudpickle
import pandas as pd
import torch

from safer_offline.attacks import GradientAttack, Search
from safer_offline.environments.processes import SPAWN, ChildProcess, failures_told
from safer_offline.evaluation.rollouts import Job, Rollouts
from safer_offline.machine import available_cores
from safer_offline.progress import ProgressBar

GLANCE = 0.2
"""Seconds between two looks at how far the processes are."""

Wave = Sequence[Job]


def run_waves(
    rollouts: Rollouts, waves: Sequence[Wave], *, workers: int | None, bar: ProgressBar
) -> Iterator[pd.DataFrame]:
    """What `Rollouts.run` tells of each wave, in order.

    Args:
        rollouts: Runs them one after the other where that is no worse: with one wave or one core,
            where attacks have little to compute, or where the policy cannot be sent to others.
        waves: What to run.
        workers: Processes; None takes one for each core.
        bar: Moves on with every step of an episode.
    """
    count = min(available_cores() if workers is None else workers, len(waves))
    busy = any(isinstance(job.attack, GradientAttack | Search) for wave in waves for job in wave)
    content = _packed(rollouts.recipe, waves) if count > 1 and busy else None
    if content is None:
        yield from map(rollouts.run, waves)
        return
    rollouts.close()  # its simulators would only take memory
    recipe, packed = content
    with WaveProcesses(recipe, count=count, bar=bar) as processes:
        yield from processes.run(packed)


def _packed(recipe: dict[str, Any], waves: Sequence[Wave]) -> tuple[bytes, list[bytes]] | None:
    """All of it as bytes; None if something in it cannot be sent to another process."""
    try:
        return cloudpickle.dumps(recipe), [cloudpickle.dumps(wave) for wave in waves]
    except Exception:
        # Whatever people's policies hold: handles, locks, generators, compiled modules.
        return None


class WaveProcesses:
    """Processes that run waves.

    Args:
        recipe: Arguments of `Rollouts`, pickled.
        count: How many.
        bar: Moves on with every step of an episode.
    """

    def __init__(self, recipe: bytes, *, count: int, bar: ProgressBar) -> None:
        self._steps: Synchronized[float] = SPAWN.Value("d", 0.0)
        self._bar = bar
        self._told = 0.0
        threads = torch.get_num_threads()
        self._children = [ChildProcess(_serve, self._steps, recipe, threads) for _ in range(count)]

    def run(self, waves: Sequence[bytes]) -> Iterator[pd.DataFrame]:
        """What is found in each of these pickled waves, in order."""
        found: dict[int, pd.DataFrame] = {}
        running: dict[ChildProcess, int] = {}
        begun = yielded = 0
        while yielded < len(waves):
            for child in self._children:
                if child not in running and begun < len(waves):
                    child.send(waves[begun])
                    running[child] = begun
                    begun += 1
            answered = wait([child.pipe for child in running], timeout=GLANCE)
            for child in self._children:
                if child.pipe in answered:
                    found[running.pop(child)] = child.receive()
            self._show()
            while yielded in found:
                yield found.pop(yielded)
                yielded += 1

    def _show(self) -> None:
        steps = self._steps.value
        self._bar.advance(steps - self._told)
        self._told = steps

    def close(self, *, patience: float = 10.0) -> None:
        """End the processes, see `ChildProcess.close`."""
        for child in self._children:
            child.close(patience=patience)

    def __enter__(self) -> WaveProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(patience=10.0 if error is None else 0.0)


class _Counter(ProgressBar):
    """A bar that only counts, for the process that shows one."""

    def __init__(self, steps: Synchronized[float]) -> None:
        self._steps = steps

    def advance(self, amount: float = 1, **fields: float | str) -> None:
        """See `ProgressBar`."""
        with self._steps.get_lock():
            self._steps.value += amount


def _serve(pipe: Connection, steps: Synchronized[float], recipe: bytes, threads: int) -> None:
    """Body of a process: run waves until told to end."""
    torch.set_num_threads(threads)
    with (
        failures_told(pipe, what="the evaluation"),
        Rollouts(**cloudpickle.loads(recipe), workers=0, bar=_Counter(steps)) as rollouts,
    ):
        while (wave := pipe.recv()) is not None:
            pipe.send(rollouts.run(cloudpickle.loads(wave)))
