"""Episodes step by step: what was true, and what the policy saw instead.

Rows of a table say how bad it was; these say how it came about.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.attacks import Natural
from safer_offline.errors import SaferOfflineError
from safer_offline.evaluation.rollouts import Job, Rollouts, RowSteps


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodePath:
    """One episode of T steps under one attack.

    Attributes:
        attack: Its name.
        episode: Its number, as in the table of episodes.
        seed: Of the environment.
        role: Why it is shown: `worst` or `median`.
        true: Observations as they were, (T, ds).
        seen: As the policy saw them, (T, ds).
        actions: (T, da).
        rewards: (T,).
        costs: (T,).
    """

    attack: str
    episode: int
    seed: int
    role: str
    true: NDArray[np.float32]
    seen: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    costs: NDArray[np.float64]


def episodes_to_show(episodes: pd.DataFrame, *, attack: str) -> dict[int, str]:
    """The worst and the median episode under an attack, by cost and then by return.

    Args:
        episodes: Columns attack, episode, reward and cost.
        attack: Under which one.

    Returns:
        Roles by numbers of episodes; one episode if there is only one.
    """
    rows = episodes[episodes["attack"] == attack]
    by_harm = rows.sort_values(["cost", "reward"], ascending=[False, True], kind="stable")
    ordered = by_harm["episode"].tolist()
    roles = {ordered[0]: "worst"}
    roles.setdefault(ordered[len(ordered) // 2], "median")
    return roles


def attacks_to_show(worst: str, attacks: Collection[str]) -> list[str]:
    """Beside the worst attack, none at all, if that was evaluated."""
    return list(dict.fromkeys([*({Natural.name} & set(attacks)), worst]))


def record_paths(
    rollouts: Rollouts, jobs: Iterable[Job], *, shown: dict[int, str], known: pd.DataFrame
) -> tuple[EpisodePath, ...]:
    """Run jobs again and keep the steps of some of their episodes.

    Args:
        rollouts: Where they ran.
        jobs: With the same episodes in each as before: then all is as before, bit for bit.
        shown: Roles of the episodes to keep, by their numbers.
        known: What the episodes were before: columns attack, episode, reward and cost.

    Raises:
        SaferOfflineError: If an episode is not what it was.
    """
    paths: list[EpisodePath] = []
    for job in jobs:
        steps: list[RowSteps] = []
        again = rollouts.run([job], watch=steps.append)
        _require_same(again, known, shown)
        paths += _paths_of(job, steps, shown)
    order = list(shown.values())
    return tuple(sorted(paths, key=lambda path: (order.index(path.role), path.attack != "natural")))


def _paths_of(job: Job, steps: Sequence[RowSteps], shown: dict[int, str]) -> list[EpisodePath]:
    paths = []
    for row, (episode, seed) in enumerate(zip(job.episodes, job.seeds, strict=True)):
        if episode not in shown:
            continue
        mine = [step for step in steps if step.running[row]]
        paths.append(
            EpisodePath(
                attack=job.attack.name,
                episode=episode,
                seed=seed,
                role=shown[episode],
                true=np.stack([step.true[row] for step in mine]),
                seen=np.stack([step.seen[row] for step in mine]),
                actions=np.stack([step.actions[row] for step in mine]),
                rewards=np.array([step.rewards[row] for step in mine], np.float64),
                costs=np.array([step.costs[row] for step in mine], np.float64),
            )
        )
    return paths


def _require_same(again: pd.DataFrame, known: pd.DataFrame, shown: Collection[int]) -> None:
    columns = ["attack", "episode", "reward", "cost"]
    both = again[columns].merge(known[columns], on=["attack", "episode"], suffixes=("", "_before"))
    for row in both[both["episode"].isin(shown)].to_dict("records"):
        if (row["reward"], row["cost"]) != (row["reward_before"], row["cost_before"]):
            raise SaferOfflineError(
                f"episode {row['episode']} under {row['attack']} returned {row['reward']!r} when "
                f"it was run once more, and {row['reward_before']!r} before: the policy or the "
                "environment does not answer the same twice, so there is nothing to record"
            )


def as_npz(paths: Sequence[EpisodePath]) -> bytes:
    """All paths as one archive of NumPy: `ROLE/ATTACK/ARRAY`, and likewise `episode` and `seed`."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for path in paths:
        for name in ("true", "seen", "actions", "rewards", "costs"):
            arrays[f"{path.role}/{path.attack}/{name}"] = getattr(path, name)
        for name in ("episode", "seed"):
            arrays[f"{path.role}/{path.attack}/{name}"] = np.array(getattr(path, name))
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
