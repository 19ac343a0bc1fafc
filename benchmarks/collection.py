"""How fast a collection is, against stepping the bare simulator with the same actions.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/collection.py
Writes benchmarks/results/collection.csv. Both are measured in turn, several times, in one run: a
shared machine changes its speed, a ratio within one run hardly does.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import bullet_safety_gym  # noqa: F401 - registers the environments
import gymnasium
import numpy as np
import pandas as pd

from safer_offline.datasets import OfflineDataset, collect
from safer_offline.simulation import available_cores, short_name

ROUNDS = 2
# About a minute each where the physics dominate, a quarter of it elsewhere.
TRANSITIONS = {
    "SafetyCarCircle-v0": 180_000,
    "SafetyCarRun-v0": 180_000,
    "SafetyAntCircle-v0": 180_000,
    "SafetyAntRun-v0": 90_000,
    "SafetyBallCircle-v0": 240_000,
    "SafetyBallRun-v0": 240_000,
    "SafetyDroneCircle-v0": 120_000,
    "SafetyDroneRun-v0": 120_000,
}
RAW_STEPS = 10_000


def raw_rate(dataset: OfflineDataset) -> float:
    """Steps per second of the bare environment in this process, replaying logged actions."""
    environment = gymnasium.make(dataset.metadata.env_id, disable_env_checker=True).unwrapped
    actions = dataset.actions.numpy()[:RAW_STEPS].astype(np.float64)
    ends = set(np.flatnonzero((dataset.terminals | dataset.timeouts).numpy()[:RAW_STEPS]).tolist())
    environment.reset()
    start = time.perf_counter()
    for row, action in enumerate(actions):
        environment.step(action)
        if row in ends:
            environment.reset()
    elapsed = time.perf_counter() - start
    environment.close()
    return len(actions) / elapsed


def collection_rate(env_id: str, transitions: int, folder: Path) -> tuple[float, OfflineDataset]:
    """Transitions per second of a whole `collect`, processes started and file written."""
    start = time.perf_counter()
    dataset = collect(
        env_id,
        folder / "dataset.h5",
        transitions=transitions,
        overwrite=True,
        progress=False,
    )
    return dataset.num_transitions / (time.perf_counter() - start), dataset


def main() -> None:
    rows = []
    for env_id, transitions in TRANSITIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            collected, raw = [], []
            for _ in range(ROUNDS):
                rate, dataset = collection_rate(env_id, transitions, Path(folder))
                collected.append(rate)
                raw.append(raw_rate(dataset))
        ratios = np.divide(collected, raw)
        rows.append(
            {
                "task": short_name(env_id),
                "transitions": transitions,
                "workers": available_cores(),
                "raw_steps_per_s": round(float(np.median(raw))),
                "collected_per_s": round(float(np.median(collected))),
                "ratio_median": round(float(np.median(ratios)), 2),
                "ratio_min": round(float(ratios.min()), 2),
                "ratio_max": round(float(ratios.max()), 2),
                "load_average": round(os.getloadavg()[0], 1),
            }
        )
        print(rows[-1])
    target = Path(__file__).parent / "results" / "collection.csv"
    pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__":
    main()
