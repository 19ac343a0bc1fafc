"""Which policies survive attacks that search whole episodes, and which do not.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/strong.py FOLDER
    (an hour and a half on two cores; goes on where it was stopped)

SAFER, SAFER without its robust part, and behaviour cloning, with default settings and training
seed 0, on the default data of each task; `--attacks strong`, 20 episodes of evaluation seed 0.
FOLDER keeps datasets and runs. Writes benchmarks/results/strong.csv, a row for each policy and
attack; for attacks that were searched for, `remark` holds what the evaluation says of the search.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
from datasets_of_tasks import dataset_of

RESULTS = Path(__file__).parent / "results" / "strong.csv"
TASKS = ("car-circle", "ball-circle", "car-run")
POLICIES: dict[str, list[str]] = {
    "safer": [],
    "safer unattacked": ["--set", "adversarial_weight=0"],
    "bc": ["--algorithm", "bc"],
}
EPISODES = 20
COLUMNS = ["task", "policy", "attack", "epsilon", "reward_mean", "reward_std", "cost_mean"]
COLUMNS += ["cost_std", "cost_low", "cost_high", "violation_rate", "violation_low"]
COLUMNS += ["violation_high", "episodes", "cost_limit", "seed", "remark"]


def safer_offline(*arguments: object) -> None:
    """The command line, as a user calls it."""
    command = [sys.executable, "-m", "safer_offline", *map(str, arguments)]
    print("+", *command[2:], flush=True)
    subprocess.run(command, check=True)


def rows_of(task: str, policy: str, root: Path) -> pd.DataFrame:
    """Train and attack one; each step goes on where it was stopped."""
    data = dataset_of(task, root)
    run = root / "strong" / f"{task}-{policy.replace(' --', '-')}"
    safer_offline("train", data, "--out", run, "--resume", *POLICIES[policy])
    results = run / "strong"
    safer_offline(
        "evaluate", run, "--attacks", "strong", "--episodes", EPISODES, "--record",
        "--cost-limit", 10,
        "--out", results, "--overwrite",
    )  # fmt: skip
    document = json.loads((results / "evaluation.json").read_text(encoding="utf-8"))
    table = pd.read_csv(results / "evaluation.csv").assign(task=task, policy=policy)
    # A remark begins with the name of its attack.
    said = {remark.partition(" ")[0]: remark for remark in document["remarks"]}
    return table.assign(remark=table["attack"].map(said))[COLUMNS].round(3)


def main() -> None:
    root = Path(sys.argv[1])
    table = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=COLUMNS)
    for policy in POLICIES:
        for task in TASKS:
            if ((table["task"] == task) & (table["policy"] == policy)).any():
                continue
            table = pd.concat([table, rows_of(task, policy, root)], ignore_index=True)
            table.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
