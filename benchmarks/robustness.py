"""How safe the policies of several training seeds stay under attack, also with foreign critics.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/robustness.py DATASET RUN [RUN ...]
         where the runs are trained on the dataset with different --seed
Writes benchmarks/results/robustness_TASK.csv: a row for each run, attack and owner of the critics.
A policy that only looks robust because its own critics mislead the attacker ("masked gradients")
fails when the critics of another run, which it has never seen, lead the attack.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from safer_offline import TrainedPolicy, evaluate, load_policy
from safer_offline.datasets.storage.hdf5 import peek_metadata
from safer_offline.environments.tasks import short_name

EPISODES = 50
SEED = 0


def with_critics_of(policy: TrainedPolicy, other: TrainedPolicy) -> TrainedPolicy:
    """The same actor, attacked with the critics of another run."""
    return TrainedPolicy(
        policy.info,
        actor=policy.actor,
        reward_critic=other.reward_critic,
        cost_critic=other.cost_critic,
    )


def main() -> None:
    dataset, *runs = sys.argv[1:]
    env = peek_metadata(dataset).env_id
    policies = [load_policy(run) for run in runs]
    tables = []
    for number, policy in enumerate(policies):
        other = policies[(number + 1) % len(policies)]
        for critics, victim, attacks in (
            ("own", policy, "all"),
            ("another run's", with_critics_of(policy, other), "mc,mr,amad"),
        ):
            report = evaluate(victim, env=env, attacks=attacks, episodes=EPISODES, seed=SEED)
            table = report.summary()
            table.insert(0, "critics", critics)
            table.insert(0, "training_seed", policy.info.training["seed"])
            tables.append(table)
            print(table.iloc[:, :10].to_string(index=False), flush=True)
    columns = ["training_seed", "critics", "attack", "epsilon", "episodes", "reward_mean"]
    columns += ["reward_std", "cost_mean", "cost_std", "violation_rate", "seed", "env"]
    name = f"robustness_{short_name(env).replace('-', '_')}.csv"
    target = Path(__file__).parent / "results" / name
    pd.concat(tables)[columns].round(3).to_csv(target, index=False)


if __name__ == "__main__":
    main()
