"""What critics are fitted to and judged by: some of a dataset, or episodes made for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.rollouts import EvaluatedPolicy, Victim
from safer_offline.progress import ProgressBar

JUDGED = 32
"""Episodes by which critics are judged."""

SHAKEN = 0.25
"""Share of an episode that noise may take before it is judged: a policy that never comes near a
border by itself must be brought there, or nothing is seen of what it does there."""

LEVELS = (0.1, 1.0)
"""Least and most exploration noise, as a share of half the range of an action."""

HELD = 10
"""Steps that exploration noise stays; what changes at every step leads nowhere."""

ROWS = 32
"""Episodes at a time."""

_CRITICS = 104
"""Domain of the seeds: evaluation and rehearsals have others (see `trials`, `rehearsal`)."""

_LEARN, _JUDGE = 0, 1

_FLOATS = ("observations", "next_observations", "actions", "rewards", "costs")


def some_of(dataset: TransitionSource, most: int, *, seed: int) -> OfflineDataset:
    """Random whole episodes of a dataset, in order; all of them if there are few.

    Args:
        dataset: In memory or not.
        most: How many transitions they have, unless a single episode has more.
        seed: Of the choice.
    """
    lengths = dataset.episodes["length"].to_numpy()
    ends = np.cumsum(lengths)
    order = np.random.default_rng(seed).permutation(len(lengths))
    count = max(1, int(np.searchsorted(np.cumsum(lengths[order]), most, side="right")))
    chosen = np.sort(order[:count])
    rows = np.concatenate([np.arange(ends[e] - lengths[e], ends[e]) for e in chosen])
    terminated = dataset.episodes["terminated"].to_numpy(bool)[chosen]
    terminals, timeouts = (np.zeros(len(rows), np.bool_) for _ in range(2))
    last = np.cumsum(lengths[chosen]) - 1
    terminals[last], timeouts[last] = terminated, ~terminated
    columns: dict[str, Any] = dataset.take(_FLOATS, torch.from_numpy(rows))
    return OfflineDataset(
        **columns,
        terminals=torch.from_numpy(terminals),
        timeouts=torch.from_numpy(timeouts),
    )


def rollouts_to_learn_from(
    policy: EvaluatedPolicy,
    source: EnvironmentSource,
    settings: CriticSettings,
    *,
    workers: int | None,
    bar: ProgressBar,
) -> OfflineDataset:
    """Episodes of a policy, every second one with noise added to its actions, ever more of it.

    Args:
        policy: Who acts; it must not remember its episode.
        source: Makes the environment.
        settings: How many episodes, and their seed.
        workers: Simulation processes; they change nothing.
        bar: Advances by one for each step that an episode may have.
    """
    noisy = np.arange(settings.episodes) % 2 == 1
    return _episodes(
        policy,
        source,
        critic_seeds(settings.seed, settings.episodes, part=_LEARN),
        until=np.where(noisy, 1.0, 0.0),
        whole=True,
        workers=workers,
        bar=bar,
    )


def rollouts_to_judge_by(
    policy: EvaluatedPolicy,
    source: EnvironmentSource,
    settings: CriticSettings,
    *,
    workers: int | None,
    bar: ProgressBar,
) -> OfflineDataset:
    """Other episodes of the policy alone; half of them were shaken by noise before they begin.

    See `rollouts_to_learn_from` for the arguments.
    """
    shaken = np.arange(JUDGED) % 2 == 1
    return _episodes(
        policy,
        source,
        critic_seeds(settings.seed, JUDGED, part=_JUDGE),
        until=np.where(shaken, SHAKEN, 0.0),
        whole=False,
        workers=workers,
        bar=bar,
    )


def critic_seeds(seed: int, count: int, *, part: int) -> list[int]:
    """Environment seeds of episodes for critics, others for each part."""
    sequence = np.random.SeedSequence([seed], spawn_key=(_CRITICS, part))
    return [int(word) for word in sequence.generate_state(count)]


def _episodes(
    policy: EvaluatedPolicy,
    source: EnvironmentSource,
    seeds: Sequence[int],
    *,
    until: NDArray[np.float64],
    whole: bool,
    workers: int | None,
    bar: ProgressBar,
) -> OfflineDataset:
    """Episodes with noise on the actions for some time.

    Args:
        policy: Who acts.
        source: Makes the environment.
        seeds: Of the episodes.
        until: For which share of the step limit each has noise, from its beginning on, (episodes,).
        whole: Whether to keep the steps with noise; without them an episode begins behind.
        workers: See `VectorEnvironment`.
        bar: Advances by one for each step that an episode may have.
    """
    levels = np.zeros(len(seeds))
    levels[until > 0] = np.linspace(*LEVELS, int((until > 0).sum()))
    parts: list[dict[str, NDArray[Any]]] = []
    with VectorEnvironment(source, num_envs=min(ROWS, len(seeds)), workers=workers) as simulators:
        rows, limit = simulators.num_envs, simulators.max_episode_steps
        low, high = simulators.action_space.low, simulators.action_space.high
        half = np.where(np.isfinite(high - low), (high - low) / 2, 1.0)
        for start in range(0, len(seeds), rows):
            mine = slice(start, min(start + rows, len(seeds)))
            size = mine.stop - mine.start
            generators = [np.random.default_rng([seed, _CRITICS]) for seed in seeds[mine]]
            noisy_steps = np.round(until[mine] * limit).astype(int)
            victim = Victim(policy, size, under="exploration noise")
            used = np.arange(rows) < size
            observations = simulators.restart(used, seeds[mine])[:size]
            # Rows without an episode have ended, and are left alone.
            actions = np.zeros((rows, *simulators.action_space.shape), np.float32)
            kept: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in range(size)]
            noise = np.zeros((size, actions.shape[1]))
            for step in range(limit):
                running = ~simulators.done[:size]
                if not running.any():
                    break
                if step % HELD == 0:
                    draws = np.stack([g.uniform(-1, 1, actions.shape[1]) for g in generators])
                    noise = levels[mine, None] * half * draws
                noisy = step < noisy_steps
                wanted = victim.act(torch.from_numpy(observations)) + noisy[:, None] * noise
                actions[:size] = np.clip(wanted, low, high)
                steps = simulators.step(actions)
                for row in np.flatnonzero(running & (whole | ~noisy)).tolist():
                    kept[row].append(
                        (
                            observations[row],
                            steps.observations[row],
                            actions[row].copy(),
                            steps.rewards[row],
                            steps.costs[row],
                            steps.terminated[row],
                        )
                    )
                observations = steps.observations[:size]
            parts += [_stacked(episode) for episode in kept if episode]
            bar.advance(size * limit, critics="rollouts")
    arrays: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    return OfflineDataset(**arrays)


def _stacked(steps: Sequence[tuple[NDArray[Any], ...]]) -> dict[str, NDArray[Any]]:
    """The arrays of an episode from its steps; whatever ended it otherwise cut it."""
    columns = [np.stack(column) for column in zip(*steps, strict=True)]
    arrays = dict(zip((*_FLOATS, "terminals"), columns, strict=True))
    timeouts = np.zeros(len(steps), np.bool_)
    timeouts[-1] = not arrays["terminals"][-1]
    return {**arrays, "timeouts": timeouts}
