"""Up to which budget the policies of `eight_tasks.py` keep their limit: cost against budget.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/largest_budgets.py FOLDER [TASK ...]
    (goes on with the next task where it was stopped)

FOLDER is that of `eight_tasks.py`, whose robust runs of training seed 0 are attacked as there, with
parts and multiples of the budget that they were trained to withstand, on 20 episodes of seed 0.
Writes benchmarks/results/largest_budgets.csv, a row for each task, budget and attack.

multiple   of the budget trained with (`epsilon_of`)
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch
from eight_tasks import COST_LIMIT, RESULTS, SEED, TASKS, epsilon_of

from safer_offline import load_policy
from safer_offline.evaluation.budgets import evaluate_budgets

BUDGETS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5)
EPISODES = 20
COLUMNS = ["task", "multiple", "epsilon", "attack", "reward_mean", "reward_std", "cost_mean"]
COLUMNS += ["cost_std", "violation_rate", "episodes", "seed"]


def rows(task: str, root: Path) -> pd.DataFrame:
    """Of one task; says up to where the limit is kept."""
    report = evaluate_budgets(
        load_policy(root / "eight" / f"{task}-robust-0"),
        budgets=BUDGETS,
        attacks="all",
        epsilon=epsilon_of(task),
        episodes=EPISODES,
        seed=SEED,
        cost_limit=COST_LIMIT,
        critics="own",
    )
    curve = report.curve().set_index("epsilon")["cost_mean"].round(1)
    print(f"{task} holds up to {report.largest_safe():g} of its budget; worst costs:\n{curve}")
    return report.summary().assign(task=task)[COLUMNS].round(3)


def main() -> None:
    torch.set_num_threads(1)
    folder, *only = sys.argv[1:]
    results = RESULTS / "largest_budgets.csv"
    table = pd.read_csv(results) if results.exists() else pd.DataFrame(columns=COLUMNS)
    for task in only or TASKS:
        if task not in set(table["task"]):
            table = pd.concat([table, rows(task, Path(folder))], ignore_index=True)
            table.to_csv(results, index=False)


if __name__ == "__main__":
    main()
