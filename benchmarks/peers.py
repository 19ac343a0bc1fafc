"""Whether every built dataset opens in the tools that people use, and what they find in it.

Command: make datasets && python benchmarks/peers.py datasets-built/*.h5
Writes benchmarks/results/peers.csv. Minari, D4RL, DSRL and OSRL read with their own code; counts
and sums must agree with ours. They are installed by `make setup`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from safer_offline.datasets import OfflineDataset, import_d4rl, load_dataset, to_dsrl, to_minari
from safer_offline.datasets.storage.hdf5 import find_file_problems


def open_in_minari(dataset: OfflineDataset) -> bool:
    import minari

    name = dataset.metadata.name
    to_minari(dataset, name)
    source = minari.load_dataset(name)
    cost = sum(float(episode.infos["cost"].sum()) for episode in source.iterate_episodes())
    return (source.total_steps, source.total_episodes, cost) == (
        dataset.num_transitions,
        dataset.num_episodes,
        dataset.episodes["cost"].sum(),
    )


def open_in_d4rl(dataset: OfflineDataset) -> bool:
    d4rl = import_d4rl()
    arrays = dataset.to_arrays()
    pairs = d4rl.qlearning_dataset(None, dataset=arrays)
    # D4RL drops rows that were cut by a timeout, and the last one.
    kept = ~arrays["timeouts"][:-1]
    lengths = [len(part["rewards"]) for part in d4rl.sequence_dataset(None, dataset=arrays)]
    return bool(
        np.array_equal(pairs["actions"], arrays["actions"][:-1][kept])
        and sum(lengths) == dataset.num_transitions
    )


def open_in_dsrl(dataset: OfflineDataset) -> dict[str, np.ndarray]:
    """What DSRL hands on: its own task finds our file by the name that we gave it."""
    import dsrl  # registers the tasks
    import gymnasium

    to_dsrl(dataset, Path(os.environ["DSRL_DATASET_DIR"]))
    environment = gymnasium.make(dataset.metadata.env_id.replace("Safety", "Offline"))
    assert isinstance(environment.unwrapped, dsrl.OfflineEnv)
    read: dict[str, np.ndarray] = environment.unwrapped.get_dataset()
    environment.close()
    return read


def open_in_osrl(read: dict[str, np.ndarray], dataset: OfflineDataset) -> bool:
    from osrl.common.dataset import SequenceDataset, TransitionDataset

    first = next(iter(TransitionDataset(dict(read))))
    sequences = SequenceDataset(dict(read), seq_len=10)
    costs = [episode["cost_returns"][0] for episode in sequences.dataset]
    return first[0].shape == (dataset.observation_size,) and np.array_equal(
        costs, dataset.episodes["cost"]
    )


def main(paths: list[str]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        # Read when the peers are first imported.
        os.environ["MINARI_DATASETS_PATH"] = str(Path(name) / "minari")
        os.environ["D4RL_DATASET_DIR"] = os.environ["DSRL_DATASET_DIR"] = name
        os.environ["DSRL_SUPPRESS_IMPORT_ERROR"] = "1"
        for path in paths:
            start = time.perf_counter()
            dataset = load_dataset(path)
            read = open_in_dsrl(dataset)
            rows.append(
                {
                    "dataset": dataset.metadata.name,
                    "sound": not find_file_problems(path),
                    "minari": open_in_minari(dataset),
                    "d4rl": open_in_d4rl(dataset),
                    "dsrl": all(
                        np.array_equal(read[key], array)
                        for key, array in dataset.to_arrays().items()
                        if key in ("observations", "actions", "rewards", "costs")
                    ),
                    "osrl": open_in_osrl(read, dataset),
                    "seconds": round(time.perf_counter() - start, 1),
                }
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(Path(__file__).parent / "results" / "peers.csv", index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
