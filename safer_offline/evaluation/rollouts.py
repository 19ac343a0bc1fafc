"""Episodes of a policy whose observations are attacked, many at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.attacks import Attack, AttackTarget, Critics, RowNoise, judged_by
from safer_offline.attacks.base import rows_of
from safer_offline.context import EnvironmentContext
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import DataError, UsageError
from safer_offline.progress import ProgressBar

ROUNDING = 1e-6
"""Share of a number by which arithmetic in float32 may miss it."""


class EvaluatedPolicy(AttackTarget, Protocol):
    """A policy, its critics, and what it remembers of its dataset.

    One that acts by what its episode held before, too, says so in an attribute `remembers`. Then
    `begin(rows)` gives the `AttackTarget` of so many episodes, with methods `rows` (see `rows_of`),
    `predict`, `earn(rewards, costs)`, which is called after each step, and `restart(rows)`, for
    adversaries that learn; see `policies.memory.RememberedEpisodes`.
    """

    @property
    def observation_size(self) -> int:
        """Coordinates ds of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Coordinates da of an action."""
        ...

    @property
    def context(self) -> EnvironmentContext:
        """Environment that its dataset comes from, as far as it is known."""
        ...

    @property
    def observation_std(self) -> Tensor:
        """Deviation of each coordinate in the dataset, (ds,); infinite if it is not read."""
        ...

    @property
    def cost_limit(self) -> float | None:
        """The undiscounted episode cost that it was trained to keep, if any."""
        ...

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """Extreme episode returns of the dataset, if known."""
        ...

    def predict(self, observations: NDArray[np.float32], /) -> NDArray[Any]:
        """Deterministic actions (B, da) at raw observations (B, ds)."""
        ...


class Victim:
    """Episodes of a policy that run as one batch, whether it remembers them or not.

    Args:
        policy: Who acts.
        rows: How many begin.
        under: In what circumstances, for the message of an error.

    Attributes:
        target: What is attacked.
    """

    def __init__(self, policy: EvaluatedPolicy, rows: int, *, under: str) -> None:
        self._remembers = getattr(policy, "remembers", False)
        self._under = under
        self.target: Any = policy.begin(rows) if self._remembers else policy  # type: ignore[attr-defined]

    def rows(self, rows: Tensor | slice) -> Victim:
        """Some of the episodes; what happens to them happens to these."""
        some = copy.copy(self)
        some.target = rows_of(self.target, rows)
        return some

    def act(self, perturbed: Tensor) -> NDArray[Any]:
        """What it does, (B, da), where it sees this, (B, ds).

        Raises:
            DataError: If an action is not finite.
        """
        actions: NDArray[Any] = self.target.predict(perturbed.cpu().numpy())
        if not np.isfinite(actions).all():
            raise DataError(
                f"the policy's action is not finite under {self._under}",
                remedy="Its weights are damaged or its training diverged: train it again.",
            )
        return actions

    def earn(self, rewards: NDArray[Any], costs: NDArray[Any]) -> None:
        """Let it know, if it remembers, what the last step of all rows (B,) earned and cost."""
        if self._remembers:
            self.target.earn(rewards, costs)

    def restart(self, rows: NDArray[np.bool_] | slice = slice(None)) -> None:
        """Begin these rows anew: their episodes have ended."""
        if self._remembers:
            self.target.restart(rows)


class Job(NamedTuple):
    """Episodes to run under one attack, as one batch."""

    attack: Attack
    episodes: range
    """Numbers of the episodes."""
    seeds: Sequence[int]
    """Which episodes these are: seeds of the environment, one for each."""
    budget: Tensor
    """How far the attack may move each coordinate, raw units, (ds,)."""
    multiple: float = 1.0
    """The same as a multiple of the budget asked for."""
    critics: Critics | None = None
    """Whom the attack asks instead of the policy's own critics."""


class RowSteps(NamedTuple):
    """One step of all rows of a batch; those whose episode has ended hold what means nothing."""

    true: NDArray[np.float32]
    """What was to be observed, (B, ds)."""
    seen: NDArray[np.float32]
    """What the policy saw, (B, ds)."""
    actions: NDArray[np.float32]
    """(B, da)"""
    rewards: NDArray[Any]
    costs: NDArray[Any]
    running: NDArray[np.bool_]
    """Which rows these are, (B,)."""


Watch = Callable[[RowSteps], object]


class Rollouts:
    """Runs jobs in simulators that are built once and used again.

    The true observations drive the environment, the attacked ones the policy. A job's episodes form
    one batch for attack and policy, of which only those still running take part; other jobs at the
    same time change nothing. Random numbers follow from (seed, attack, episode seed).

    Args:
        policy: The victim.
        source: Makes the task.
        seed: Of the attacks' random numbers.
        workers: Simulation processes, see `VectorEnvironment`.
        bar: Advances by one for each step of each episode.
    """

    def __init__(
        self,
        policy: EvaluatedPolicy,
        *,
        source: EnvironmentSource,
        seed: int,
        workers: int | None,
        bar: ProgressBar,
    ) -> None:
        self._policy = policy
        self._source = source
        self._seed = seed
        self._workers = workers
        self._bar = bar
        self._environments: VectorEnvironment | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """The arguments that make the same, but for `workers` and `bar`."""
        return {"policy": self._policy, "source": self._source, "seed": self._seed}

    def run(self, jobs: Sequence[Job], *, watch: Watch | None = None) -> pd.DataFrame:
        """Run some jobs at the same time.

        Args:
            jobs: Rows of all of them form one batch, job after job.
            watch: Sees every step.

        Returns:
            One row for each job and episode: attack, multiple, episode, seed, reward, cost, length,
            terminated, budget_used (mean of |delta_j| / epsilon_j over steps and coordinates).

        Raises:
            DataError: If the policy returns an action that is not finite.
            UsageError: If an attack leaves its budget.
        """
        adversaries = [Adversary(job, self._policy, self._seed) for job in jobs]
        sizes = [len(job.seeds) for job in jobs]
        rows = [slice(a, b) for a, b in pairwise(np.cumsum([0, *sizes]))]
        count = sum(sizes)
        environments = self._simulators(count)

        rewards, costs = np.zeros(count), np.zeros(count)
        lengths, terminated = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        observations = environments.reset([seed for job in jobs for seed in job.seeds])
        running = ~environments.done
        while running.any():
            actions = np.zeros((count, self._policy.action_size), np.float32)
            true, seen = observations, np.zeros_like(observations)
            for adversary, mine in zip(adversaries, rows, strict=True):
                if running[mine].any():
                    active = np.arange(count)[mine][running[mine]]
                    perturbed = adversary.perturb(true[active], running[mine])
                    seen[active] = perturbed.cpu().numpy()
                    actions[active] = adversary.victim.rows(torch.from_numpy(running[mine])).act(
                        perturbed
                    )
            # Rows that have ended return zeros.
            observations, reward, cost, ended, _ = environments.step(actions)
            for adversary, mine in zip(adversaries, rows, strict=True):
                adversary.victim.earn(reward[mine], cost[mine])
            if watch is not None:
                watch(RowSteps(true, seen, actions, reward, cost, running))
            rewards += reward
            costs += cost
            lengths += running
            terminated |= ended
            self._bar.advance(int(running.sum()), attack=" ".join(job.attack.name for job in jobs))
            running = ~environments.done
        self._bar.advance(int((environments.max_episode_steps - lengths).sum()))

        return pd.DataFrame(
            {
                "attack": np.repeat([job.attack.name for job in jobs], sizes),
                "multiple": np.repeat([job.multiple for job in jobs], sizes),
                "episode": np.concatenate([job.episodes for job in jobs]),
                "seed": np.concatenate([job.seeds for job in jobs]),
                "reward": rewards,
                "cost": costs,
                "length": lengths,
                "terminated": terminated,
                "budget_used": np.concatenate([one.budget_used() for one in adversaries]) / lengths,
            }
        )

    def _simulators(self, count: int) -> VectorEnvironment:
        """A batch of exactly `count` environments, the last one if it fits."""
        if self._environments is None or self._environments.num_envs != count:
            self.close()
            self._environments = VectorEnvironment(
                self._source, num_envs=count, workers=self._workers
            )
        return self._environments

    def close(self) -> None:
        """Close the simulators."""
        if self._environments is not None:
            self._environments.close()
            self._environments = None

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Adversary:
    """One attack on one batch of episodes, and what it did so far.

    Args:
        job: The attack, and which episodes these are.
        policy: The victim.
        seed: Of the attack's random numbers.

    Attributes:
        victim: The episodes of the policy.
    """

    def __init__(self, job: Job, policy: EvaluatedPolicy, seed: int) -> None:
        self._attack = job.attack
        self.victim = Victim(policy, len(job.seeds), under=f"attack '{job.attack.name}'")
        self._budget = job.budget
        self._critics = job.critics
        self._noise = RowNoise.seeded(seed, job.attack.name, job.seeds)
        self._previous: Tensor | None = None
        self._used = torch.zeros(len(job.seeds), len(job.budget), dtype=torch.float64)

    def perturb(self, observations: NDArray[np.float32], running: NDArray[np.bool_]) -> Tensor:
        """What the policy sees (n, ds), of what the n rows still running truly are.

        Raises:
            UsageError: If the attack leaves its budget.
        """
        mask = torch.from_numpy(running)
        clean = torch.from_numpy(observations).to(self._budget.device)
        perturbed = self._attack.perturb(
            judged_by(self.victim.rows(mask).target, self._critics),
            clean,
            epsilon=self._budget,
            noise=self._noise.rows(mask),
            previous=None if self._previous is None else self._previous[mask],
        )
        deltas = perturbed - clean
        self._require_within_budget(deltas, clean)
        if self._previous is None:
            self._previous = torch.zeros_like(deltas)
        self._previous[mask] = deltas
        self._used[mask] += deltas.abs().cpu().double()
        return perturbed

    def _require_within_budget(self, deltas: Tensor, clean: Tensor) -> None:
        # Numbers of float32 near the true ones are ROUNDING apart; NaN is beyond every budget.
        allowed = self._budget + ROUNDING * (clean.abs() + self._budget)
        beyond = ~(deltas.abs() <= allowed)
        if beyond.any():
            row, coordinate = beyond.nonzero()[0].tolist()
            raise UsageError(
                f"attack '{self._attack.name}' leaves its budget: it moved coordinate {coordinate} "
                f"by {deltas[row, coordinate].item():g}, and may move it by "
                f"{self._budget[coordinate].item():g}"
            )

    def budget_used(self) -> NDArray[np.float64]:
        """Sum over steps of the mean of |delta_j| / epsilon_j over coordinates with a budget."""
        budget = self._budget.cpu().double()
        with_budget = budget > 0
        if not with_budget.any():
            return np.zeros(len(self._used))
        used: NDArray[np.float64] = (
            (self._used[:, with_budget] / budget[with_budget]).mean(dim=1).numpy()
        )
        return used
