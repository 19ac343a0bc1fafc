"""How long an evaluation takes, roughly, before it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from safer_offline.attacks import RowNoise, judged_by
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.environments.base import FloatArray
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.adversaries.rehearse import rehearsal_work
from safer_offline.evaluation.critics.finding import episodes_to_make
from safer_offline.evaluation.critics.fitted_q import FittedCritics, fit_critics
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.rollouts import Victim
from safer_offline.machine import available_cores
from safer_offline.progress import progress_bar

if TYPE_CHECKING:
    from safer_offline.evaluation.budgets import BudgetEvaluation
    from safer_offline.evaluation.simulation import Evaluation

ROWS = 16
STEPS = 20

CRITICS = "critics"
"""What the time is called that critics take."""


def expected_seconds(
    evaluation: Evaluation | BudgetEvaluation, *, workers: int | None = None
) -> dict[str, float]:
    """Seconds that each attack will take, with all its budgets, on this machine as it is now.

    A few steps of a few episodes are timed, and one perturbation by each attack. What must first be
    found is counted in full, though it may have been found before.

    Args:
        evaluation: What is about to begin.
        workers: Simulation processes, see `evaluate`.

    Returns:
        By the names of attacks, and by `CRITICS` those that it takes to fit critics, if any are.
    """
    plan, policy = evaluation.plan, evaluation.policy
    horizon = plan.context.max_episode_steps or 0
    cores = max(1, available_cores() if workers is None else workers)
    with VectorEnvironment(evaluation.source, num_envs=ROWS, workers=0) as simulators:
        seen = simulators.reset(range(ROWS))
        victim = Victim(policy, ROWS, under="no attack")
        start = time.perf_counter()
        for _ in range(STEPS):
            seen = simulators.step(victim.act(torch.from_numpy(seen))).observations
        step = (time.perf_counter() - start) / (STEPS * ROWS) / min(cores, ROWS)
    seconds: dict[str, float] = {}
    critics: FittedCritics | None = None
    if sources := evaluation.critic_sources:
        critics, update = _update_of_critics(victim, seen, sources[0].settings)
        seconds[CRITICS] = sum(
            update * one.settings.updates + step * horizon * episodes_to_make(one)
            for one in sources
        )
    for trial in evaluation.trials:
        attack = trial.met
        work = plan.episodes * horizon * step
        if trial.needs_rehearsal:
            size = policy.observation_size
            work += step * rehearsal_work(attack, horizon=horizon, size=size)
        elif not attack.needs_fit:
            noise = RowNoise([np.random.default_rng(row) for row in range(ROWS)])
            start = time.perf_counter()
            observations = torch.from_numpy(seen).to(trial.budget.device)
            leader = critics if attack.name in evaluation.leaders else None
            target = judged_by(victim.target, leader)
            attack.perturb(target, observations, epsilon=trial.budget, noise=noise)
            # Waves of episodes run side by side.
            batches = math.ceil(plan.episodes / ROWS) / cores
            work += (time.perf_counter() - start) * horizon * batches
        seconds[attack.name] = seconds.get(attack.name, 0.0) + work
    return seconds


def _update_of_critics(
    victim: Victim, seen: FloatArray, settings: CriticSettings
) -> tuple[FittedCritics, float]:
    """Critics that know nothing, and the seconds of one update of them."""
    rows = len(seen)
    transitions = OfflineDataset(
        observations=torch.from_numpy(seen),
        next_observations=torch.from_numpy(seen),
        actions=torch.from_numpy(np.float32(victim.act(torch.from_numpy(seen)))),
        rewards=torch.zeros(rows),
        costs=torch.zeros(rows),
        terminals=torch.zeros(rows, dtype=torch.bool),
        timeouts=torch.ones(rows, dtype=torch.bool),
    )
    with progress_bar("", total=0, enabled=False) as bar:
        # The first update makes PyTorch load what the others have then.
        for updates in (1, STEPS):
            start = time.perf_counter()
            few = replace(settings, updates=updates)
            critics = fit_critics(victim.target, transitions, few, bar=bar, what="")
    return critics, (time.perf_counter() - start) / STEPS


def in_words(seconds: Mapping[str, float], *, searched: Sequence[str]) -> str:
    """Such as "about 8 minutes (bias 1, learned 4, all others 3)".

    Args:
        seconds: By attack.
        searched: Attacks to name.
    """
    parts = {name: seconds[name] for name in searched}
    if others := sum(seconds.values()) - sum(parts.values()):
        parts["all others"] = others
    told = ", ".join(f"{name} {_minutes(part)}" for name, part in parts.items())
    total = _minutes(sum(seconds.values()))
    return f"about {total} minute{'' if total == '1' else 's'} ({told})"


def _minutes(seconds: float) -> str:
    minutes = max(seconds / 60, 0.1)
    return f"{minutes:.0f}" if minutes >= 1 else f"{minutes:.1f}"
