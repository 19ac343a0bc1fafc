"""The victim in the simulator, in episodes for attacks to be tried in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.rollouts import EvaluatedPolicy, Victim
from safer_offline.progress import ProgressBar

ROWS = 32
"""Episodes at a time."""

_REHEARSE = 103
"""Domain of the seeds: episodes of the evaluation have others (see `trials`)."""

Perturb = Callable[[Tensor, slice], Tensor]
"""Perturbed observations (B, ds) of true ones (B, ds), in episodes start to stop of all of them."""


class Totals(NamedTuple):
    """Of some episodes, each of shape (episodes,)."""

    returns: NDArray[np.float64]
    costs: NDArray[np.float64]

    def harm(self) -> tuple[float, float]:
        """What attacks are ranked by: mean cost, and among equals how little the victim earns."""
        return float(self.costs.mean()), -float(self.returns.mean())


class Rehearsal:
    """A victim in a simulator, for whoever searches attacks over whole episodes.

    Args:
        victim: Whom to attack.
        source: Makes the environment.
        budget: Of the attacks, raw units, shape (ds,).
        workers: Simulation processes, see `VectorEnvironment`.
        horizon: Steps of an episode, at most.
        bar: Advances by one for each step of an episode, or what takes as long.
        identity: What a result depends on beside the settings of the attack, as JSON types.
        folder: Where results are kept, to be found once; None keeps nothing.
    """

    def __init__(
        self,
        victim: EvaluatedPolicy,
        *,
        source: EnvironmentSource,
        budget: Tensor,
        workers: int | None,
        horizon: int,
        bar: ProgressBar,
        identity: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        self.victim = victim
        self.source = source
        self.budget = budget
        self.workers = workers
        self.horizon = horizon
        self.bar = bar
        self.identity = dict(identity)
        self._folder = folder

    def file_for(self, name: str, settings: Mapping[str, Any], *, suffix: str) -> Path | None:
        """Where a result with these settings is kept; another victim or budget has another file.

        Args:
            name: Begins the name of the file.
            settings: Of the search, as JSON types.
            suffix: Ends it.
        """
        if self._folder is None:
            return None
        told = json.dumps({"found": name, **self.identity, "settings": settings}, sort_keys=True)
        return self._folder / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}{suffix}"

    def simulators(self, rows: int = ROWS) -> VectorEnvironment:
        """A batch of environments, which the caller closes."""
        return VectorEnvironment(self.source, num_envs=rows, workers=self.workers)

    def begin(self, rows: int) -> Victim:
        """So many episodes of the victim."""
        return Victim(self.victim, rows, under="rehearsal")

    def run(
        self, perturb: Perturb, seeds: Sequence[int], *, simulators: VectorEnvironment
    ) -> Totals:
        """Episodes of the victim under a perturbation.

        Args:
            perturb: What it sees. It is also asked where an episode has ended; that changes
                nothing.
            seeds: Of the episodes.
            simulators: Where they run, as many at once as there are rows.
        """
        returns, costs = np.zeros(len(seeds)), np.zeros(len(seeds))
        rows = simulators.num_envs
        for start in range(0, len(seeds), rows):
            part = slice(start, min(start + rows, len(seeds)))
            size = part.stop - part.start
            victim = self.begin(size)
            used = np.arange(rows) < size
            observations = simulators.restart(used, seeds[part])[:size]
            # Rows without an episode have ended, and are left alone.
            actions = np.zeros((rows, *simulators.action_space.shape), np.float32)
            while not simulators.done[:size].all():
                seen = perturb(torch.from_numpy(observations).to(self.budget.device), part)
                actions[:size] = victim.act(seen)
                steps = simulators.step(actions)
                observations = steps.observations[:size]
                victim.earn(steps.rewards[:size], steps.costs[:size])
                returns[part] += steps.rewards[:size]
                costs[part] += steps.costs[:size]
        return Totals(returns, costs)


def rehearsal_seeds(seed: int, count: int, *, part: int = 0) -> list[int]:
    """Environment seeds of episodes to rehearse in, others for each part of a search."""
    sequence = np.random.SeedSequence([seed], spawn_key=(_REHEARSE, part))
    return [int(word) for word in sequence.generate_state(count)]
