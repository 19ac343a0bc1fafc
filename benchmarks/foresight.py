"""What models of the data foresee of policies, beside what the simulator then showed.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/foresight.py FOLDER
    (ten minutes on one core; FOLDER is that of `baselines.py`, whose runs and rows it needs)

All runs of the table of baselines: two tasks, robust or not, natural and under noise and the
attacks that their own critics lead. Nothing of the estimate touches a simulator; the simulated
numbers are those of results/baselines.csv (20 episodes of evaluation seed 0). Writes
results/foresight.csv, a row for each run and attack, and prints rank correlations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from baselines import KEY, RESULTS, Entry
from datasets_of_tasks import dataset_of

from safer_offline import load_policy
from safer_offline.datasets import load_dataset
from safer_offline.foresight import DynamicsConfig, fit_dynamics, foresee

COST_LIMIT = 10


def foreseen(task: str, simulated: pd.DataFrame, root: Path) -> Iterator[pd.DataFrame]:
    """Rows of one task, run after run."""
    dataset = load_dataset(dataset_of(task, root))
    model = fit_dynamics(dataset, DynamicsConfig(), seed=0)
    for (algorithm, robust), rows in simulated.groupby(["algorithm", "robust"]):
        folder = Entry(task, algorithm, robust=robust).folder(root)
        told = foresee(load_policy(folder), dataset, model=model).to_json()["estimates"]
        table = pd.DataFrame(told).merge(
            rows[["attack", "reward_mean", "cost_mean"]].rename(
                columns={"reward_mean": "simulated_reward", "cost_mean": "simulated_cost"}
            ),
            on="attack",
        )
        for name in ("reward", "cost"):
            bounds = table.pop(f"{name}_interval")
            table[f"{name}_low"], table[f"{name}_high"] = bounds.str[0], bounds.str[1]
        yield table.assign(task=task, algorithm=algorithm, robust=robust)


def main() -> None:
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    rows = pd.read_csv(RESULTS).query("critics == 'own'")
    parts: list[pd.DataFrame] = []
    for task, simulated in rows.groupby("task"):
        for part in foreseen(str(task), simulated, root):
            parts.append(part)
            print(part.round(1).to_string(index=False), flush=True)
    table = pd.concat(parts)
    first = [*KEY, "attack"]
    table = table[first + [name for name in table if name not in first]].round(3)
    table.to_csv(RESULTS.with_name("foresight.csv"), index=False)
    for task, part in table.groupby("task"):
        same = (part["cost"] > COST_LIMIT) == (part["simulated_cost"] > COST_LIMIT)
        print(
            task,
            f"{len(part)} rows; rank correlation of return "
            f"{part['reward'].corr(part['simulated_reward'], method='spearman'):.2f}, of cost "
            f"{part['cost'].corr(part['simulated_cost'], method='spearman'):.2f}; the same side of "
            f"the limit in {same.mean():.0%}; mean error of cost "
            f"{(part['cost'] - part['simulated_cost']).abs().mean():.1f}",
        )


if __name__ == "__main__":
    main()
