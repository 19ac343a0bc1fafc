"""How fast a collection is, against stepping the bare simulator with the same actions.

The bare simulator is the package that the tasks come from. It runs in one process, and in as many
at once as the collection has: more than these give together needs a faster simulator, as ours is.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/collection.py
Writes benchmarks/results/collection.csv. Both are measured in turn, several times, in one run: a
shared machine changes its speed, a ratio within one run hardly does.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier

import bullet_safety_gym  # noqa: F401 - registers the environments
import gymnasium
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.datasets import OfflineDataset, collect
from safer_offline.environments.tasks import short_name
from safer_offline.machine import available_cores

ROUNDS = 2
# Whole shards for each process: about 45 s where the physics dominate, 15 to 30 elsewhere.
TRANSITIONS = {
    "SafetyCarCircle-v0": 144_000,
    "SafetyCarRun-v0": 144_000,
    "SafetyAntCircle-v0": 144_000,
    "SafetyAntRun-v0": 96_000,
    "SafetyBallCircle-v0": 240_000,
    "SafetyBallRun-v0": 240_000,
    "SafetyDroneCircle-v0": 120_000,
    "SafetyDroneRun-v0": 120_000,
}
RAW_STEPS = 10_000


def raw_rate(
    env_id: str, actions: NDArray[np.float64], ends: set[int], ready: Barrier | None = None
) -> float:
    """Steps per second of the bare environment in this process, replaying logged actions."""
    environment = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    environment.reset()
    if ready is not None:
        ready.wait()
    start = time.perf_counter()
    for row, action in enumerate(actions):
        environment.step(action)
        if row in ends:
            environment.reset()
    elapsed = time.perf_counter() - start
    environment.close()
    return len(actions) / elapsed


def raw_rates(dataset: OfflineDataset) -> tuple[float, float]:
    """Bare steps per second of one process, and of all cores together."""
    actions = dataset.actions.numpy()[:RAW_STEPS].astype(np.float64)
    ends = set(np.flatnonzero((dataset.terminals | dataset.timeouts).numpy()[:RAW_STEPS]).tolist())
    context = multiprocessing.get_context("spawn")
    cores = available_cores()
    arguments = (dataset.metadata.env_id, actions, ends)
    with context.Manager() as manager, ProcessPoolExecutor(cores, mp_context=context) as pool:
        ready = manager.Barrier(cores)
        running = [pool.submit(raw_rate, *arguments, ready) for _ in range(cores)]
        together = sum(future.result() for future in running)
    return raw_rate(*arguments), together


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
            collected, raw, together = [], [], []
            for _ in range(ROUNDS):
                rate, dataset = collection_rate(env_id, transitions, Path(folder))
                collected.append(rate)
                one, all_cores = raw_rates(dataset)
                raw.append(one)
                together.append(all_cores)
        ratios = np.divide(collected, raw)
        rows.append(
            {
                "task": short_name(env_id),
                "transitions": transitions,
                "workers": available_cores(),
                "raw_steps_per_s": round(float(np.median(raw))),
                "raw_on_all_cores_per_s": round(float(np.median(together))),
                "collected_per_s": round(float(np.median(collected))),
                "ratio_median": round(float(np.median(ratios)), 2),
                "ratio_min": round(float(ratios.min()), 2),
                "ratio_max": round(float(ratios.max()), 2),
                "share_of_all_cores": round(float(np.median(np.divide(collected, together))), 2),
                "load_average": round(os.getloadavg()[0], 1),
            }
        )
        print(rows[-1])
    target = Path(__file__).parent / "results" / "collection.csv"
    pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__":
    main()
