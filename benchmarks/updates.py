"""Where the time of SAFER's training goes, and what it saves to attack with several at once.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/updates.py FOLDER
    (two minutes; FOLDER keeps the dataset; writes benchmarks/results/updates.csv)

Car-Circle's `mixed` data, SAFER's defaults, one thread, CPU time. What is compared takes turns;
medians.

estimation  an update of stage 1: critics, behaviour model and cost model
estep       stage 2, once
robust      an update of stage 3: what is below, and the step of the policy
attacks     of these, the attacks on its two batches of 256, as training does them: all at once
in_turn     the same, one after the other, as before
ratio       in_turn / attacks, turn by turn
same        share of the rows for which both find the same observation, bit for bit
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import safer_offline.cli.arithmetic  # noqa: F401 - chooses routines, so before NumPy and PyTorch

# isort: split
import pandas as pd
import torch
from datasets_of_tasks import dataset_of

from safer_offline.attacks import Attack, GeneratorNoise, make_attack, training_attacks
from safer_offline.datasets import load_dataset
from safer_offline.learners import SAFER, SAFERConfig
from safer_offline.learners.robust import Adversary

RESULTS = Path(__file__).parent / "results" / "updates.csv"
TURNS, UPDATES, STEPS = 9, 40, 4_000


def main() -> None:
    torch.set_num_threads(1)
    dataset = load_dataset(dataset_of("car-circle", Path(sys.argv[1])))
    config = SAFERConfig(cost_limit=10.0)
    learner = SAFER(config, dataset, steps=STEPS, seed=0)
    estimation = [milliseconds(learner.update) for _ in range(TURNS)]
    while learner.imitation is None:
        begun = time.process_time()
        learner.update()
    estep = 1e3 * (time.process_time() - begun)
    observations = dataset.observations[: 2 * config.batch_size]
    steps = config.attack_steps
    at_once = attacked(learner, observations, *training_attacks(config.attacks, steps=steps))
    one_start = (make_attack(name, steps=steps, restarts=1) for name in config.attacks)
    in_turn = attacked(learner, observations, *one_start)
    same = (at_once() == in_turn()).all(dim=1).double().mean().item()
    turns = [
        [milliseconds(one) for one in (learner.update, at_once, in_turn)] for _ in range(TURNS)
    ]
    robust, attacks, one_by_one = (statistics.median(column) for column in zip(*turns, strict=True))
    table = pd.DataFrame(
        {
            "part": ["estimation", "estep", "robust", "attacks", "in_turn"],
            "milliseconds": [statistics.median(estimation), estep, robust, attacks, one_by_one],
        }
    )
    table["per_second"] = 1e3 / table["milliseconds"]
    table.loc[4, "same"] = same
    table.loc[4, "ratio"] = statistics.median(slow / fast for _, fast, slow in turns)
    table = table.round(2)
    table.to_csv(RESULTS, index=False)
    print(table.to_string(index=False))


def attacked(
    learner: SAFER, observations: torch.Tensor, *attacks: Attack
) -> Callable[[], torch.Tensor]:
    """Attacks observations (B, ds) with the same random numbers at each call, at full budget."""
    victim, generator = learner.policy(), torch.Generator()
    adversary = Adversary(
        learner.config, budget=learner.budget, noise=GeneratorNoise(generator), attacks=attacks
    )

    def attack() -> torch.Tensor:
        generator.manual_seed(0)
        return adversary.attack(victim, observations, done=1.0)

    return attack


def milliseconds(call: Callable[[], object]) -> float:
    """CPU time of a call, the mean of some."""
    begun = time.process_time()
    for _ in range(UPDATES):
        call()
    return 1e3 * (time.process_time() - begun) / UPDATES


if __name__ == "__main__":
    main()
