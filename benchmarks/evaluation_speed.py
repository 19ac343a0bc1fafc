"""Seconds of an evaluation with its waves side by side, and one after the other.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/evaluation_speed.py RUN
    (three minutes on two cores)

50 episodes under the seven standard attacks, the two ways in turn, in one run. One after the other,
the simulators of a wave still run on all cores, and attacks on one. Writes
benchmarks/results/evaluation_speed.csv.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from unittest import mock

import pandas as pd
import torch

from safer_offline import evaluate, load_policy
from safer_offline.machine import available_cores

RESULTS = Path(__file__).parent / "results" / "evaluation_speed.csv"
ROUNDS = 1


def seconds_of(run: str, *, side_by_side: bool) -> tuple[float, pd.DataFrame]:
    """How long it took, and what was found."""
    policy = load_policy(run)
    start = time.perf_counter()
    if side_by_side:
        report = evaluate(policy)
    else:
        with mock.patch("safer_offline.evaluation.parallel._packed", return_value=None):
            report = evaluate(policy)
    return time.perf_counter() - start, report.episodes


def main() -> None:
    torch.set_num_threads(1)
    rows, found = [], []
    for number in range(ROUNDS):
        for side_by_side in (False, True):
            seconds, episodes = seconds_of(sys.argv[1], side_by_side=side_by_side)
            way = "side by side" if side_by_side else "one after the other"
            rows.append({"round": number, "waves": way, "seconds": round(seconds, 1)})
            rows[-1] |= {"episodes": len(episodes), "cores": available_cores()}
            found.append(episodes)
            print(rows[-1], flush=True)
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other, check_exact=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
