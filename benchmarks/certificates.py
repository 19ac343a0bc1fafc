"""How much of what attacks could do is excluded by proof: certificates of trained policies.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/certificates.py RUN...
    (the runs of benchmarks/baselines.py: FOLDER/car-circle/bc and the like; a minute each)

1,000 states of 20 natural episodes (seed 0). Writes benchmarks/results/certificates.csv, a row for
each run and budget:

certified, found, possible   how far the action moves at most, as a share of its range: as proven,
          as projected gradient ascent finds, and if any action at all were taken; mean and worst
          over states
cost_*    share of the states at which the policy's own critic sees the limit kept
seconds   of CPU time, of all of that for one budget, on one thread
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd
import torch

from safer_offline import load_policy
from safer_offline.attacks import attack_budget
from safer_offline.evaluation.certificates.certificate import certify
from safer_offline.evaluation.harness import prepare

RESULTS = Path(__file__).parent / "results" / "certificates.csv"
BUDGETS = (0.01, 0.025, 0.05)
COST_LIMIT = 10.0


def rows(run: Path) -> list[dict[str, object]]:
    policy = load_policy(run)
    evaluation = prepare(policy, attacks="natural", episodes=1, cost_limit=COST_LIMIT, certify=True)
    visited = evaluation.simulate(
        evaluation.trials,
        workers=0,
        max_rows=32,
        progress=True,
        keep_in=None,
        adversaries_in=None,
        meanwhile=None,
    ).visited
    assert visited is not None
    found: list[dict[str, object]] = []
    for epsilon in BUDGETS:
        start = time.process_time()
        one = certify(
            policy,
            visited,
            budget=attack_budget(epsilon, policy.observation_std),
            cost_limit=COST_LIMIT,
            horizon=evaluation.plan.context.max_episode_steps,
        )
        seconds = time.process_time() - start
        row: dict[str, object] = {
            "env": policy.env_id,
            "run": run.name,
            "layers": "-".join(map(str, policy.info.hidden_sizes)),
            "epsilon": epsilon,
            "states": one.states,
        }
        for name in ("certified", "found", "possible"):
            deviation = getattr(one, name)
            row |= {f"{name}_mean": deviation.mean, f"{name}_worst": deviation.worst}
        for name in ("certified", "found", "natural"):
            row[f"cost_{name}"] = None if one.cost is None else getattr(one.cost, name)
        assert not one.failures, one.failures
        found.append(row | {"seconds": round(seconds, 1)})
    return found


def main() -> None:
    torch.set_num_threads(1)
    table = pd.DataFrame([row for run in sys.argv[1:] for row in rows(Path(run))])
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
