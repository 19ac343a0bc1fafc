"""How safe a policy stays when its observations are attacked.

All attacks meet the same episodes, so that what differs between them is the attack alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from safer_offline.attacks import (
    Attack,
    AttackTarget,
    EpsilonUnits,
    Natural,
    NoiseSource,
    attack_budget,
    resolve_attacks,
)
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, UsageError
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.evaluation.rollouts import EvaluatedPolicy, Job, Rollouts
from safer_offline.progress import progress_bar

FIT_EPISODES = 20
"""Natural episodes from which an attack learns what it must know of its victim."""

# Domains of the episode seeds: fitting sees other episodes than the evaluation, and both others
# than datasets, whose seed sequences have no spawn key.
_EVALUATE, _FIT = 101, 102


def evaluate(
    policy: EvaluatedPolicy,
    *,
    env: str | EnvironmentSource,
    attacks: str | Sequence[str | Attack] = "all",
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    workers: int | None = None,
    cost_limit: float | None = None,
    max_rows: int = 32,
    progress: bool = True,
) -> EvaluationReport:
    """Run a policy in the simulator under each attack.

    The same call gives the same numbers, bit for bit, whatever `workers` is, in whatever order the
    attacks come and whichever others there are. Other `episodes` or `max_rows` change the size of
    the batches that the networks see, and with it possibly the last bit of an action; starts and
    random numbers of an episode stay the same.

    Args:
        policy: A policy with its critics.
        env: Name of the task (see `EnvironmentSource`), or a source that says more than its name.
        attacks: "all", names (a sequence, or separated by commas), or attacks of your own.
        epsilon: Budget of the attacks: one number for all coordinates, or one for each.
        epsilon_units: What epsilon counts: raw observation units, or standard deviations of the
            dataset.
        episodes: Episodes under each attack.
        seed: Determines the episodes and the attacks' random numbers.
        workers: Simulation processes; None takes one for each core, 0 simulates in this process.
        cost_limit: Largest allowed episode cost; None takes the policy's own.
        max_rows: Most simulators alive at once.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        UsageError: If an argument is impossible, a name unknown, or an environment not usable.
        DataError: If the policy does not fit the environment.
        MissingSimulatorError: If there is no simulator on this machine.
    """
    if episodes < 1 or max_rows < 1:
        raise UsageError(f"episodes and max_rows must be at least 1, not {episodes} and {max_rows}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, but is {seed}")
    cost_limit = policy.cost_limit if cost_limit is None else float(cost_limit)
    if cost_limit is not None and not 0 <= cost_limit < math.inf:
        raise UsageError(f"cost_limit must be finite and not negative, but is {cost_limit}")
    source = EnvironmentSource(name=env) if isinstance(env, str) else env
    chosen = resolve_attacks(attacks)
    budget = attack_budget(epsilon, policy.observation_std, units=epsilon_units)
    horizon = _check_task(policy, source)

    fitting = any(attack.needs_fit for attack in chosen)
    total = horizon * (len(chosen) * episodes + fitting * FIT_EPISODES)
    with (
        progress_bar("evaluate", total=total, enabled=progress) as bar,
        Rollouts(
            policy, source=source, budget=budget, seed=seed, workers=workers, bar=bar
        ) as rollouts,
    ):
        if fitting:
            recorder = _Recorder()
            seeds = _episode_seeds(seed, FIT_EPISODES, domain=_FIT)
            rollouts.run([Job(recorder, range(FIT_EPISODES), seeds)])
            seen = torch.cat(recorder.seen)
            chosen = tuple(a.fit(policy, seen) if a.needs_fit else a for a in chosen)
        seeds = _episode_seeds(seed, episodes, domain=_EVALUATE)
        tables = [rollouts.run(wave) for wave in _waves(chosen, seeds, max_rows)]

    order = pd.CategoricalDtype([attack.name for attack in chosen], ordered=True)
    table = pd.concat(tables, ignore_index=True).astype({"attack": order})
    table = table.sort_values(["attack", "episode"], ignore_index=True).astype({"attack": str})
    given = np.asarray(epsilon, np.float64)
    return EvaluationReport(
        env_id=source.env_id,
        epsilon=given.item() if given.ndim == 0 else tuple(given.tolist()),
        epsilon_units=epsilon_units,
        seed=seed,
        cost_limit=cost_limit,
        reward_range=policy.reward_range,
        attacks={attack.name: dict(vars(attack)) for attack in chosen},
        episodes=table,
    )


class _Recorder(Natural):
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


def _check_task(policy: EvaluatedPolicy, source: EnvironmentSource) -> int:
    """Steps of an episode, after a check that the policy belongs to such an environment."""
    env_id = source.env_id
    if policy.env_id is not None and policy.env_id != env_id:
        warnings.warn(
            f"the policy was trained for {policy.env_id} and is evaluated in {env_id}",
            stacklevel=2,
        )
    environment = source.make()
    try:
        sizes = {
            "observation": (policy.observation_size, environment.observation_space.shape),
            "action": (policy.action_size, environment.action_space.shape),
        }
    finally:
        environment.close()
    for what, (size, shape) in sizes.items():
        if (size,) != shape:
            raise DataError(
                f"the policy has {what}s of size {size}, but {env_id} has {what}s of size "
                f"{math.prod(shape or ())}",
                remedy="Evaluate it in the environment that its dataset comes from.",
            )
    return environment.max_episode_steps


def _episode_seeds(seed: int, count: int, *, domain: int) -> list[int]:
    """Environment seeds of episodes 0, 1, ...; those of fewer episodes are a prefix of these."""
    sequence = np.random.SeedSequence([seed], spawn_key=(domain,))
    return [int(word) for word in sequence.generate_state(count)]


def _waves(attacks: Sequence[Attack], seeds: list[int], max_rows: int) -> Iterator[list[Job]]:
    """Split attacks x episodes into waves of at most `max_rows` rows, of sizes as equal as can be.

    How the episodes of an attack are grouped depends on their number only, not on other attacks.
    """
    count = len(seeds)
    for part in np.array_split(np.arange(count), math.ceil(count / max_rows)):
        episodes = range(int(part[0]), int(part[-1]) + 1)
        jobs = [Job(attack, episodes, [seeds[i] for i in episodes]) for attack in attacks]
        together = max_rows // len(episodes)
        for group in np.array_split(np.arange(len(jobs)), math.ceil(len(jobs) / together)):
            yield [jobs[i] for i in group]
