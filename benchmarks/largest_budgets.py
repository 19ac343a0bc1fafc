"""Up to which budget a limit can be kept where `train` does not keep it: cost against budget.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/largest_budgets.py FOLDER [TASK ...]
    (half an hour to an hour of CPU time a task; goes on with the next policy where it was stopped)

FOLDER is that of `eight_tasks.py`, whose robust runs of training seed 0 are attacked as there and
by the worst constant offset, which is searched for in whole episodes, with parts of the budget that
they were trained to withstand, on 20 episodes of seed 0. So is, by what needs no critic and no
gradient, the first of the cautious drivers who made the data of a drone, without its exploration
noise: a pilot who knows the state, remembers nothing, and was not trained against anything. What
`train` ends with on drones is imitation by what was meant; so that its parts can be told apart,
the seven attacks also meet it with all steps drawn alike (`alike`), without noise carried on either
(`told`), and without being told what follows (`clone`). Writes
benchmarks/results/largest_budgets.csv, a row for each policy, budget and attack.

multiple   of the budget trained with (`epsilon_of`)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets_of_tasks import dataset_of
from eight_tasks import COST_LIMIT, RESULTS, SEED, epsilon_of
from growing_tables import rows_so_far

from safer_offline import TrainedPolicy, load_policy, train
from safer_offline.datasets import load_dataset
from safer_offline.datasets.behaviors import Controller, behaviors_for
from safer_offline.datasets.behaviors.base import NoisyController
from safer_offline.environments.tasks import resolve_environment
from safer_offline.evaluation.budgets import evaluate_budgets
from safer_offline.learners import SAFER, SAFERConfig

TASKS = ("drone-run", "drone-circle", "ant-circle")
FLYING = ("drone-run", "drone-circle")
BUDGETS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
WITHOUT: dict[str, dict[str, Any]] = {
    "alike": {"correction_weight": 0.0},
    "told": {"correction_weight": 0.0, "carry_noise": False},
    "clone": {"foretold": ()},
}
EPISODES = 20
COLUMNS = ["task", "policy", "multiple", "epsilon", "attack", "reward_mean", "reward_std"]
COLUMNS += ["cost_mean", "cost_std", "violation_rate", "episodes", "seed"]


def cautious_driver(task: str) -> Controller:
    """The first cautious driver of a task, without its noise."""
    families = behaviors_for(resolve_environment(task))
    driver = next(one for one in families if one.name == "cautious").draw(np.random.default_rng(0))
    assert isinstance(driver, NoisyController)
    return driver.controller


def without(part: dict[str, Any], task: str, out: Path, *, data: Path) -> TrainedPolicy:
    """What `train` ends with on drones, but for some settings, training seed 0."""
    flying = next(one for one in SAFER.alternatives if "foretold" in one)
    config = SAFERConfig(cost_limit=COST_LIMIT, epsilon=epsilon_of(task), **{**flying, **part})
    return train(config, load_dataset(data), out=out, resume=True, progress=False).policy


def policies(task: str, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whom to attack, and how."""
    run = load_policy(root / "eight" / f"{task}-robust-0")
    yield "safer", {"policy": run, "attacks": "all,bias", "critics": "own"}
    if task in FLYING:
        attacks = "natural,uniform,search,bias"
        yield "driver", {"policy": cautious_driver(task), "env": task, "attacks": attacks}
        for name, part in WITHOUT.items():
            out, data = root / "budgets" / f"{task}-{name}", dataset_of(task, root)
            policy = without(part, task, out, data=data)
            yield name, {"policy": policy, "attacks": "all", "critics": "own"}


def rows(task: str, policy: str, attacked: dict[str, Any]) -> pd.DataFrame:
    """Of one policy; says up to where the limit is kept."""
    report = evaluate_budgets(
        **attacked,
        budgets=BUDGETS,
        epsilon=epsilon_of(task),
        episodes=EPISODES,
        seed=SEED,
        cost_limit=COST_LIMIT,
    )
    curve = report.curve().set_index("epsilon")["cost_mean"].round(1)
    print(f"{task}, {policy}: holds up to {report.largest_safe():g} of its budget; worst costs:")
    print(curve, flush=True)
    return report.summary().assign(task=task, policy=policy)[COLUMNS].round(3)


def main() -> None:
    torch.set_num_threads(1)
    folder, *only = sys.argv[1:]
    results = RESULTS / "largest_budgets.csv"
    table = rows_so_far(results, COLUMNS)
    for task in only or TASKS:
        for policy, attacked in policies(task, Path(folder)):
            if not ((table["task"] == task) & (table["policy"] == policy)).any():
                table = pd.concat([table, rows(task, policy, attacked)], ignore_index=True)
                table.to_csv(results, index=False)


if __name__ == "__main__":
    main()
