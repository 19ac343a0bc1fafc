"""What there is to run: attacks with budgets, in episodes, in batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from safer_offline.attacks import (
    Attack,
    AttackTarget,
    Natural,
    NoiseSource,
    judged_by,
    relabelled,
)
from safer_offline.evaluation.critics.fitted_q import FittedCritics
from safer_offline.evaluation.rollouts import EvaluatedPolicy, Job

# Domains of the episode seeds: fitting sees other episodes than the evaluation, and both others
# than datasets, whose seed sequences have no spawn key.
EVALUATE, FIT = 101, 102


class Trial(NamedTuple):
    """An attack with a budget; all episodes of a plan run in each trial."""

    attack: Attack
    budget: Tensor
    """How far it may move each coordinate, raw units, (ds,)."""
    multiple: float = 1.0
    """The same as a multiple of the budget asked for."""
    critics: FittedCritics | None = None
    """Whom the attack asks instead of the policy's own critics, once they are fitted."""

    def victim_of(self, policy: EvaluatedPolicy) -> AttackTarget:
        """The policy, as the attack asks it."""
        return judged_by(policy, self.critics)

    @property
    def needs_rehearsal(self) -> bool:
        """Whether the attack must be found first; without a budget there is nothing to find."""
        return self.attack.needs_rehearsal and bool(self.budget.any())

    @property
    def met(self) -> Attack:
        """What the episodes meet: no attack where there is nothing to find."""
        if self.attack.needs_rehearsal and not self.needs_rehearsal:
            return relabelled(Natural(), self.attack.name)
        return self.attack


class Recorder(Natural):
    """No attack, but it remembers what the policy saw."""

    name: ClassVar[str] = "fit"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`."""
        self.seen.append(observations)
        return observations


def episode_seeds(seed: int, count: int, *, domain: int) -> list[int]:
    """Environment seeds of episodes 0, 1, ...; those of fewer episodes are a prefix of these."""
    sequence = np.random.SeedSequence([seed], spawn_key=(domain,))
    return [int(word) for word in sequence.generate_state(count)]


def waves(trials: Sequence[Trial], seeds: list[int], max_rows: int) -> Iterator[list[Job]]:
    """Split trials x episodes into waves of at most `max_rows` rows, of sizes as equal as can be.

    How the episodes of a trial are grouped depends on their number only, not on other trials.
    """
    count = len(seeds)
    for part in np.array_split(np.arange(count), math.ceil(count / max_rows)):
        episodes = range(int(part[0]), int(part[-1]) + 1)
        part_seeds = [seeds[i] for i in episodes]
        jobs = [
            Job(trial.met, episodes, part_seeds, trial.budget, trial.multiple, trial.critics)
            for trial in trials
        ]
        together = max_rows // len(episodes)
        for group in np.array_split(np.arange(len(jobs)), math.ceil(len(jobs) / together)):
            yield [jobs[i] for i in group]
