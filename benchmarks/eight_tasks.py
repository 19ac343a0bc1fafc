"""SAFER with its defaults on every Bullet task, robust and not: natural and under seven attacks.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/eight_tasks.py FOLDER [TASK ...] [--ablation]
    (a seed of all tasks, robust and not, takes 90 to 120 minutes of CPU time; goes on where it was
    stopped)

`mixed` data of the recipes, cost limit 10, budget 0.05 (ball, car) and 0.025 (drone, ant) in raw
units, 50 episodes of evaluation seed 0, which chose nothing. FOLDER keeps datasets and runs. Writes
benchmarks/results/eight_tasks.csv, a row for each run and attack, and the figure
docs/eight_tasks.png. Training seeds come one after the other, so that any moment is a good one to
stop. Runs of other settings or data than today's defaults are refused: give another FOLDER.

`--ablation` leaves out one ingredient at a time, on three tasks and with nothing chosen, to
results/ablation.csv.

settings      chosen, as `safer-offline train` does, by what models of the data foresee
p95_safe      95th percentile of the returns of the data's episodes that keep the limit
cpu_seconds   of the training in this call; 0 if an earlier one had done it
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import torch
from datasets_of_tasks import dataset_of
from growing_tables import grow, rows_so_far, waiting

from safer_offline import TrainedPolicy, evaluate, train
from safer_offline.datasets import load_dataset
from safer_offline.foresight import choose_where_needed
from safer_offline.foresight.choice import alternatives_of
from safer_offline.foresight.preference import in_words
from safer_offline.learners import SAFER, SAFERConfig

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "docs" / "eight_tasks.png"
TASKS = tuple(
    f"{robot}-{task}" for task in ("circle", "run") for robot in ("car", "ball", "drone", "ant")
)
SEEDS = (0, 1, 2)
EPISODES, SEED, COST_LIMIT = 50, 0, 10.0
POLICIES: dict[str, dict[str, Any]] = {"robust": {}, "not robust": dict(SAFER.unattacked)}
ABLATED_TASKS = ("car-circle", "drone-run", "ant-run")
ABLATIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "no attacks": {"adversarial_weight": 0.0},
    "nobody holds back": {"attacks": ("mc", "mr", "mad")},
    "no margin": {"margin": 0.0},
    "no recovery": {"recovery_weight": 0.0},
    "recovery everywhere": {"recovery_horizon": 0},
    "last action read": {"read_last_action": True},
}
ALONE = {"last action read": "drone-run"}
"""In the data of the others no coordinate repeats the last action: nothing would change."""

KEY = ["task", "policy", "training_seed"]
COLUMNS = [*KEY, "attack", "epsilon", "reward_mean", "reward_std", "cost_mean", "cost_std"]
COLUMNS += ["violation_rate", "episodes", "seed", "p95_safe", "cpu_seconds", "settings"]


@dataclass(frozen=True)
class Entry:
    """One run of a table."""

    task: str
    policy: str
    training_seed: int


def epsilon_of(task: str) -> float:
    """The budget of the attacks, raw units."""
    return 0.025 if task.startswith(("drone", "ant")) else 0.05


def entries(policies: dict[str, dict[str, Any]], tasks: tuple[str, ...]) -> Iterator[Entry]:
    """Seed after seed."""
    for seed in SEEDS:
        for policy in policies:
            for task in tasks:
                if task == ALONE.get(policy, task):
                    yield Entry(task, policy, seed)


def attacked(policy: TrainedPolicy, epsilon: float, *, attacks: str = "all") -> pd.DataFrame:
    """What comes of a policy under each attack, in this process."""
    report = evaluate(
        policy,
        attacks=attacks,
        epsilon=epsilon,
        episodes=EPISODES,
        seed=SEED,
        cost_limit=COST_LIMIT,
        critics="own",
        workers=0,
        progress=False,
    )
    return report.summary()


def run(
    entry: Entry, settings: dict[str, Any], root: Path, out: Path, choosing: bool
) -> pd.DataFrame:
    """Train and attack one; rows of the table."""
    torch.set_num_threads(1)
    epsilon = epsilon_of(entry.task)
    dataset = load_dataset(dataset_of(entry.task, root))
    safe = dataset.episodes.query(f"cost <= {COST_LIMIT}")["return"]
    start = os.times()
    config = SAFERConfig(cost_limit=COST_LIMIT, epsilon=epsilon, **settings)
    training: dict[str, Any] = {
        "out": out / f"{entry.task}-{entry.policy.replace(' ', '-')}-{entry.training_seed}",
        "seed": entry.training_seed,
        "resume": True,
        "progress": False,
    }
    if choosing:
        choice = choose_where_needed(
            config,
            dataset,
            alternatives_of(SAFER, given=settings),
            bolder=alternatives_of(SAFER, given=settings, kind="bolder"),
            **training,
        )
        policy, chosen = choice.run.policy, choice.chosen.name
    else:
        policy, chosen = train(config, dataset, **training).policy, in_words({})
    seconds = os.times().user - start.user
    table = attacked(policy, epsilon).assign(
        **vars(entry),
        settings=chosen,
        p95_safe=safe.quantile(0.95),
        cpu_seconds=round(seconds),
    )
    return table[COLUMNS].round(3)


def draw(table: pd.DataFrame) -> None:
    """Natural and worst attacked cost and the natural return of each task, seed by seed."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = [task for task in TASKS if task in set(table["task"])]
    figure, (costs, returns) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, task in enumerate(tasks):
        for shift, policy, colour in ((-0.18, "robust", "C0"), (0.18, "not robust", "C1")):
            rows = table[(table["task"] == task) & (table["policy"] == policy)]
            natural = rows[rows["attack"] == "natural"]
            worst = rows.groupby("training_seed")["cost_mean"].max()
            height = number + shift
            label = policy if number == 0 else None
            costs.plot(worst, [height] * len(worst), "o", color=colour, label=label)
            costs.plot(natural["cost_mean"], [height] * len(natural), "|", color=colour, ms=12)
            share = natural["reward_mean"] / natural["p95_safe"]
            returns.plot(share, [height] * len(share), "o", color=colour)
    costs.axvline(COST_LIMIT, color="grey", lw=1)
    costs.set_xscale("symlog", linthresh=COST_LIMIT)
    costs.set(xlim=(-1, 300), xlabel="cost: natural (bar), worst attack (dot)")
    costs.set_xticks((0, 5, 10, 30, 100, 300), ("0", "5", "10", "30", "100", "300"))
    figure.legend(loc="outside upper center", ncols=len(POLICIES))
    returns.axvline(1, color="grey", lw=1)
    returns.set(xlim=(0, 1.1), xlabel="natural return / 95th percentile of safe episodes")
    for axes in (costs, returns):
        axes.set_yticks(range(len(tasks)), tasks)
        axes.invert_yaxis()
    figure.savefig(FIGURE, dpi=150)


def main() -> None:
    ablation = "--ablation" in sys.argv
    folder, *only = (argument for argument in sys.argv[1:] if argument != "--ablation")
    root = Path(folder)
    policies, tasks = (ABLATIONS, ABLATED_TASKS) if ablation else (POLICIES, TASKS)
    tasks = tuple(task for task in only or tasks if task in tasks)
    results = RESULTS / ("ablation.csv" if ablation else "eight_tasks.csv")
    for task in tasks:
        dataset_of(task, root)
    out = root / ("ablation" if ablation else "eight")
    all_entries = entries(policies, tasks)
    jobs = {
        entry: (
            entry,
            policies[entry.policy],
            root,
            out,
            not ablation and entry.policy == "robust",
        )
        for entry in waiting(results, COLUMNS, all_entries, kind=Entry, key=KEY)
    }
    for _, rows in grow(results, COLUMNS, run, jobs):
        print(rows.iloc[:, :9].to_string(index=False), flush=True)
        if not ablation:
            draw(rows_so_far(results, COLUMNS))


if __name__ == "__main__":
    main()
