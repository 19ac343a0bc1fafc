"""Every algorithm with the same CPU time, robust or not: return and cost, natural and attacked.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/baselines.py FOLDER
    (an hour and a half on two cores; goes on where it was stopped)

Car-Circle and Ball-Circle, `mixed` data, cost limit 10, default settings (but see `SETTINGS`),
training seed 0, one thread a run. Trials say how many updates `CPU_SECONDS` are good for.
FOLDER keeps datasets and runs. Writes benchmarks/results/baselines.csv, a row for each run, attack
and owner of the critics that lead it:

updates, cpu_seconds   of the training
critics   `own`, or `safer`: those of the SAFER run on the same data, so that policies without
          critics meet the same attacks, and nobody is safe for misleading ones
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets_of_tasks import dataset_of
from growing_tables import grow, waiting

from safer_offline import TrainedPolicy, evaluate, load_policy, train
from safer_offline.datasets import OfflineDataset, load_dataset
from safer_offline.learners import ALGORITHMS
from safer_offline.settings import settings_of

RESULTS = Path(__file__).parent / "results" / "baselines.csv"
TASKS = ("car-circle", "ball-circle")
CPU_SECONDS = 120
FIRST_TRIAL, TRIAL_SECONDS = 30, 15
EPISODES, SEED = 20, 0
ATTACKS = "natural,uniform,mad"
LEFT_OUT = ("bc-risky", "bc-boundary", "bc-frontier", "bc-multi-task", "safer-conditioned")
"""What does not try to keep a limit is no competitor; the last is SAFER for several budgets, which
`conditioned.py` studies."""
SETTINGS: dict[str, dict[str, Any]] = {
    "fisor": {
        "actor": "gaussian",
        "hidden_sizes": (256, 256),
        "batch_size": 512,
        "actor_updates": 1,
    },
    "bcq-lag": {"act_candidates": 4, "vae_hidden_size": 256},
}
"""What departs from the defaults: to attack FISOR's diffusion policy would take hours, and to
attack BCQ-Lag's ten candidates through OSRL's wide VAE 20 minutes of a core."""
KEY = ["task", "algorithm", "robust"]
COLUMNS = [*KEY, "updates", "cpu_seconds", "attack", "critics", "reward_mean", "reward_std"]
COLUMNS += ["cost_mean", "cost_std", "violation_rate", "episodes", "seed"]


@dataclass(frozen=True)
class Entry:
    """One run of the table."""

    task: str
    algorithm: str
    robust: bool

    def folder(self, root: Path) -> Path:
        """Where its run lies."""
        return root / self.task / (self.algorithm + ("-robust" if self.robust else ""))


def entries() -> Iterator[Entry]:
    """Task after task; SAFER first, whose critics the others meet."""
    names = [name for name in ALGORITHMS if name not in LEFT_OUT]
    for task in TASKS:
        yield Entry(task, "safer", robust=True)
        for name in names:
            for robust in (False, True):
                known = settings_of(ALGORITHMS.get(name).Config)
                can = name != "safer" and "adversarial_weight" in known
                if not robust or can:
                    yield Entry(task, name, robust)


def updates_for(entry: Entry, config: object, dataset: OfflineDataset) -> int:
    """How many updates `CPU_SECONDS` are good for, by a straight line through the last two trials.

    A trial is four times as long as the one before, until one has taken `TRIAL_SECONDS`.
    """
    steps, seconds = [], []
    while not seconds or seconds[-1] < TRIAL_SECONDS:
        steps.append(FIRST_TRIAL * 4 ** len(steps))
        start = time.process_time()
        learner = ALGORITHMS.get(entry.algorithm)(config, dataset, steps=steps[-1], seed=0)
        for _ in range(steps[-1]):
            learner.update()
        seconds.append(time.process_time() - start)
    if len(steps) == 1:
        return round(steps[0] * CPU_SECONDS / seconds[0])
    each = (seconds[-1] - seconds[-2]) / (steps[-1] - steps[-2])
    return round(steps[-1] + (CPU_SECONDS - seconds[-1]) / each)


def run(entry: Entry, root: Path) -> pd.DataFrame:
    """Train and attack one; rows of the table."""
    torch.set_num_threads(1)
    dataset = load_dataset(dataset_of(entry.task, root))
    kind = ALGORITHMS.get(entry.algorithm).Config
    given = {"cost_limit": 10.0, "adversarial_weight": float(entry.robust)}
    known = {name: value for name, value in given.items() if name in settings_of(kind)}
    config = kind(**known, **SETTINGS.get(entry.algorithm, {}))
    folder = entry.folder(root)
    trained = folder / "trained.json"  # by a call that was stopped later
    if not trained.exists():
        updates = updates_for(entry, config, dataset)
        shutil.rmtree(folder, ignore_errors=True)
        start = time.process_time()
        train(config, dataset, out=folder, algorithm=entry.algorithm, steps=updates, progress=False)
        seconds = round(time.process_time() - start)
        trained.write_text(json.dumps({"updates": updates, "cpu_seconds": seconds}))
    policy, known = load_policy(folder), json.loads(trained.read_text())
    tables = []
    for owner, victim in attacked_as(policy, entry, root):
        names = ["mc", "mr"] if victim.critics else []
        if owner == "own":
            names = [*ATTACKS.split(","), *names]
        report = evaluate(
            victim, attacks=names, episodes=EPISODES, seed=SEED, cost_limit=10.0, workers=0
        )
        tables.append(report.summary().assign(critics=owner))
    table = pd.concat(tables).assign(
        task=entry.task,
        algorithm=entry.algorithm,
        robust=entry.robust,
        **known,
    )
    return table[COLUMNS].round(3)


def attacked_as(
    policy: TrainedPolicy, entry: Entry, root: Path
) -> Iterator[tuple[str, TrainedPolicy]]:
    """The policy with its own critics, if it has any, and with those of the SAFER run."""
    yield "own", policy
    if entry.algorithm != "safer":
        other = load_policy(Entry(entry.task, "safer", robust=True).folder(root))
        yield (
            "safer",
            TrainedPolicy(
                policy.info,
                actor=policy.actor,
                reward_critic=other.reward_critic,
                cost_critic=other.cost_critic,
            ),
        )


def main() -> None:
    root = Path(sys.argv[1])
    for task in TASKS:
        dataset_of(task, root)
    left = waiting(RESULTS, COLUMNS, entries(), kind=Entry, key=KEY)
    leaders = [entry for entry in left if entry.algorithm == "safer" and entry.robust]
    for batch in (leaders, [entry for entry in left if entry not in leaders]):
        jobs = {entry: (entry, root) for entry in batch}
        for entry, rows in grow(RESULTS, COLUMNS, run, jobs):
            print(entry, rows.iloc[:, 3:10].to_string(index=False), sep="\n", flush=True)


if __name__ == "__main__":
    main()
