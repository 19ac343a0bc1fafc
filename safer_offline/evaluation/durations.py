"""How long an evaluation takes, roughly, before it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from safer_offline.attacks import RowNoise
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.adversaries.rehearse import rehearsal_work
from safer_offline.evaluation.rollouts import Victim
from safer_offline.machine import available_cores

if TYPE_CHECKING:
    from safer_offline.evaluation.budgets import BudgetEvaluation
    from safer_offline.evaluation.harness import Evaluation

ROWS = 16
STEPS = 20


def expected_seconds(
    evaluation: Evaluation | BudgetEvaluation, *, workers: int | None = None
) -> dict[str, float]:
    """Seconds that each attack will take, with all its budgets, on this machine as it is now.

    A few steps of a few episodes are timed, and one perturbation by each attack. What must first be
    found is counted in full, though it may have been found before.

    Args:
        evaluation: What is about to begin.
        workers: Simulation processes, see `evaluate`.
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
            attack.perturb(victim.target, observations, epsilon=trial.budget, noise=noise)
            work += (time.perf_counter() - start) * horizon * math.ceil(plan.episodes / ROWS)
        seconds[attack.name] = seconds.get(attack.name, 0.0) + work
    return seconds


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
