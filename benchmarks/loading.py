"""Loading and sampling a dataset of 360,000 transitions, against the plainest way to do each.

    python benchmarks/loading.py      (half a minute; writes benchmarks/results/loading.csv)

Made-up data of Car-Circle's sizes (1,200 episodes of 300 steps, 8 observations, 2 actions) and one
thread. Medians of several runs; `ratio` divides ours by the baseline of the same row.

load    seconds; baseline: h5py reads the same arrays and checks nothing
sample  batches of 512 a second; baseline: the same seven arrays as tensors, indexed one by one
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch

from safer_offline.datasets import OfflineDataset, TransitionSampler, load_dataset, save_dataset
from safer_offline.datasets.dataset.schema import ARRAYS

RESULTS = Path(__file__).parent / "results" / "loading.csv"
EPISODES, STEPS, OBSERVATION, ACTION, BATCH = 1_200, 300, 8, 2, 512
RUNS, BATCHES = 7, 5_000


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.h5"
        save_dataset(path, make_dataset())
        ours, plain = interleave(lambda: load_dataset(path), lambda: read_all(path))
        rows = [("load", "s", ours, plain)]
        dataset = load_dataset(path)
    columns = {name: getattr(dataset, name) for name in ARRAYS}
    weights = torch.rand(dataset.num_transitions)
    for name, weighting in (("sample", None), ("sample weighted", weights)):
        sampler = TransitionSampler(columns, batch_size=BATCH, seed=0, weights=weighting)
        generator = torch.Generator().manual_seed(0)
        times = interleave(
            lambda sampler=sampler: [sampler.sample() for _ in range(BATCHES)],
            lambda generator=generator: [index_each(columns, generator) for _ in range(BATCHES)],
        )
        rows.append((name, "batches/s", *(BATCHES / seconds for seconds in times)))
    table = pd.DataFrame(rows, columns=["what", "unit", "ours", "baseline"])
    table["ratio"] = table["ours"] / table["baseline"]
    table["load_average"] = os.getloadavg()[0]
    table["command"] = "python benchmarks/loading.py"
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False, float_format="%.4g")
    print(table.to_string(float_format=lambda x: f"{x:.4g}"))


def make_dataset() -> OfflineDataset:
    rng, rows = np.random.default_rng(0), EPISODES * STEPS
    paths = rng.standard_normal((EPISODES, STEPS + 1, OBSERVATION), np.float32)
    return OfflineDataset.from_arrays(
        {
            "observations": paths[:, :-1].reshape(rows, OBSERVATION),
            "next_observations": paths[:, 1:].reshape(rows, OBSERVATION),
            "actions": rng.uniform(-1, 1, (rows, ACTION)),
            "rewards": rng.standard_normal(rows),
            "costs": rng.random(rows) < 0.1,
            "terminals": np.zeros(rows, np.bool_),
            "timeouts": np.arange(rows) % STEPS == STEPS - 1,
            "infos/seed": np.repeat(np.arange(EPISODES), STEPS),
        }
    )


def read_all(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in (*ARRAYS, "infos/seed")}


def index_each(columns: dict[str, torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    rows = torch.randint(len(columns["rewards"]), (BATCH,), generator=generator)
    return [column[rows] for column in columns.values()]


def interleave(*actions: Callable[[], object]) -> list[float]:
    """Median seconds of each action, run in turns so that a busy machine treats them alike."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(RUNS):
        for spent, action in zip(times, actions, strict=True):
            start = time.perf_counter()
            action()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


if __name__ == "__main__":
    main()
