"""One training that is told the budget when it acts, beside trainings for each budget.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/conditioned.py FOLDER [TASK ...]
    (20 minutes of CPU time a task and seed; goes on where it was stopped)

`mixed` data of the recipes, cost limit 10, seven attacks, 50 episodes of evaluation seed 0, which
chose nothing. `safer-conditioned` is trained once and told the budget that it is attacked with;
`safer` is trained for that budget, at half of the full one too. What `safer` does at the full
budget and unattacked is in eight_tasks.csv, where `train` kept its defaults. FOLDER is that of
`eight_tasks.py`. Writes benchmarks/results/conditioned.csv, a row for each policy, share of the
budget and attack.

share      of the full budget (`epsilon_of`): told, and attacked with
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from datasets_of_tasks import dataset_of
from eight_tasks import COST_LIMIT, RESULTS, attacked, epsilon_of
from growing_tables import grow, waiting

from safer_offline import TrainedPolicy, train
from safer_offline.datasets import load_dataset
from safer_offline.learners import SAFERConditionedConfig, SAFERConfig

TASKS = ("car-circle", "ball-circle")
SEEDS = (0, 1)
SHARES = {"safer-conditioned": (1.0, 0.5, 0.0), "safer": (0.5,)}
KEY = ["task", "algorithm", "training_seed"]
COLUMNS = [*KEY, "share", "epsilon", "attack", "reward_mean", "reward_std", "cost_mean", "cost_std"]
COLUMNS += ["violation_rate", "episodes", "seed", "cpu_seconds"]


@dataclass(frozen=True)
class Entry:
    """What one process does."""

    task: str
    algorithm: str
    training_seed: int


def entries(tasks: tuple[str, ...]) -> Iterator[Entry]:
    """Seed after seed."""
    for seed in SEEDS:
        for task in tasks:
            for algorithm in SHARES:
                yield Entry(task, algorithm, seed)


def trained(entry: Entry, share: float, root: Path) -> TrainedPolicy:
    """The policy for a share of the budget: told it, or trained for it."""
    full = epsilon_of(entry.task)
    dataset = load_dataset(dataset_of(entry.task, root))
    if entry.algorithm == "safer":
        config, name = SAFERConfig(cost_limit=COST_LIMIT, epsilon=share * full), f"-{share:g}"
    else:
        config, name = SAFERConditionedConfig(cost_limit=COST_LIMIT, epsilon=full), ""
    run = train(
        config,
        dataset,
        out=root / "conditioned" / f"{entry.task}-{entry.algorithm}{name}-{entry.training_seed}",
        seed=entry.training_seed,
        resume=True,
        progress=False,
    )
    return run.policy if entry.algorithm == "safer" else run.policy.aimed_at(budget_share=share)


def rows(entry: Entry, root: Path) -> pd.DataFrame:
    """Of one entry."""
    torch.set_num_threads(1)
    tables = []
    for share in SHARES[entry.algorithm]:
        start = os.times().user
        policy = trained(entry, share, root)
        seconds = round(os.times().user - start)
        epsilon = share * epsilon_of(entry.task)
        table = attacked(policy, epsilon, attacks="all" if share else "natural")
        told = {"share": share, "epsilon": epsilon, "cpu_seconds": seconds}
        tables.append(table.assign(**vars(entry), **told))
    return pd.concat(tables)[COLUMNS].round(3)


def main() -> None:
    folder, *only = sys.argv[1:]
    root = Path(folder)
    results = RESULTS / "conditioned.csv"
    tasks = tuple(only or TASKS)
    for task in tasks:
        dataset_of(task, root)
    left = waiting(results, COLUMNS, entries(tasks), kind=Entry, key=KEY)
    for _, new in grow(results, COLUMNS, rows, {entry: (entry, root) for entry in left}):
        print(new.iloc[:, :9].to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
