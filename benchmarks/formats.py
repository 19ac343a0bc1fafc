"""Reading and writing a dataset of 360,000 transitions, against the peers' own functions.

    python benchmarks/formats.py [FILE]      (3 minutes; writes benchmarks/results/formats.csv)

Without a file: made-up data of Car-Circle's sizes. The results are of the file that
`safer-offline collect ball-circle` writes. One thread. All repeat in turns, so that a busy
machine treats them alike; medians with the least and the most, in seconds, and the ratio of ours to
the peer's median. `cpu_ratio` is the same of the time that processors spent on it.

load, DSRL reads       `load_dataset`, which checks all values and verifies hashes, against
                       `OfflineEnv.get_dataset` on the same file, which checks shapes
load, DSRL prepares    the same against `get_dataset` and `pre_process_data`, which is how OSRL
                       comes by its arrays
load, Minari iterates  the same against `iterate_episodes` over the same data in Minari's format
export to Minari       `to_minari` against `create_dataset_from_buffers` with ready buffers
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"
os.environ["DSRL_SUPPRESS_IMPORT_ERROR"] = "1"

import gymnasium
import minari
import numpy as np
import pandas as pd
import torch
from loading import make_dataset

from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset, to_minari
from safer_offline.datasets.formats import minari as our_minari

RESULTS = Path(__file__).parent / "results" / "formats.csv"
RUNS = 5


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = os.environ["DSRL_DATASET_DIR"] = folder
        path = Path(sys.argv[1]).resolve() if sys.argv[1:] else Path(folder) / "data.h5"
        os.chdir(folder)  # DSRL draws into the working directory
        if not sys.argv[1:]:
            save_dataset(path, make_dataset())
        dataset = load_dataset(path)
        environment = dsrl_environment(dataset)
        to_minari(dataset, "read-v0")
        buffers = list(our_minari._episode_buffers(dataset))
        ids = (f"written-v{number}" for number in range(10**6))
        times = interleave(
            {
                "ours": lambda: load_dataset(path),
                "DSRL reads": lambda: environment.get_dataset(str(path)),
                "DSRL prepares": lambda: environment.pre_process_data(
                    environment.get_dataset(str(path))
                ),
                "Minari iterates": lambda: list(minari.load_dataset("read-v0").iterate_episodes()),
                "to_minari": lambda: to_minari(dataset, next(ids)),
                "Minari writes": lambda: write_with_minari(dataset, buffers, next(ids)),
            }
        )
    rows = [
        compare(f"load, {peer}", times["ours"], times[peer])
        for peer in ("DSRL reads", "DSRL prepares", "Minari iterates")
    ]
    rows.append(compare("export to Minari", times["to_minari"], times["Minari writes"]))
    table = pd.DataFrame(rows)
    table["transitions"], table["episodes"] = dataset.num_transitions, dataset.num_episodes
    table["load_average"] = os.getloadavg()[0]
    table["command"] = " ".join(["python benchmarks/formats.py", path.name][: len(sys.argv)])
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False, float_format="%.4g")
    print(table.drop(columns="command").to_string(float_format=lambda x: f"{x:.3g}"))


def dsrl_environment(dataset: OfflineDataset) -> gymnasium.Env:
    """DSRL's class for datasets, told the sizes."""
    import dsrl

    class Environment(dsrl.OfflineEnv):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (dataset.observation_size,))
        action_space = gymnasium.spaces.Box(-1, 1, (dataset.action_size,))

    return Environment()


def write_with_minari(dataset: OfflineDataset, buffers: list, dataset_id: str) -> None:
    minari.create_dataset_from_buffers(
        dataset_id,
        buffer=buffers,
        observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (dataset.observation_size,)),
        action_space=gymnasium.spaces.Box(-1, 1, (dataset.action_size,)),
    )


def interleave(actions: dict[str, Callable[[], object]]) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of each action; all run once before it is counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for run in range(RUNS + 1):
        for name, action in actions.items():
            with silence():
                start, cpu = time.perf_counter(), time.process_time()
                action()
                spent = time.perf_counter() - start, time.process_time() - cpu
            if run:
                times[name].append(spent)
    return times


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep DSRL's progress bars and prints off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def compare(
    what: str, ours: list[tuple[float, float]], peer: list[tuple[float, float]]
) -> dict[str, object]:
    row: dict[str, object] = {"what": what}
    medians = {}
    for name, times in (("ours", ours), ("peer", peer)):
        wall, cpu = zip(*times, strict=True)
        medians[name] = np.array([statistics.median(wall), statistics.median(cpu)])
        row |= {name: medians[name][0], f"{name}_min": min(wall), f"{name}_max": max(wall)}
    ratio, cpu_ratio = medians["ours"] / medians["peer"]
    return row | {"ratio": ratio, "cpu_ratio": cpu_ratio}


if __name__ == "__main__":
    main()
