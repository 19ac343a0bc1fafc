"""Training on 20 million transitions from a cache on disk, against training in memory.

    python benchmarks/larger_than_memory.py --folder FOLDER
        (about 10 minutes; 3 GB of disk and 6 GB of memory, which only the
        comparison needs; writes benchmarks/results/larger_than_memory.csv)

Made-up data of Car-Circle's sizes (episodes of 300 steps, 8 observations, 2 actions), written to
the folder piece by piece and removed at the end. Every measurement of memory is a process of its
own; its peak is compared with that of the same training on 20 episodes.

build            the cache, with all checks of the file; repeats of opening verify its SHA-256
train            a whole training of 300 updates with small networks (32, 32), so that the search
                 within the attacker's reach, which visits every row, takes minutes at most
margin           that search with networks of the usual size, seconds for all rows (extrapolated)
batches, updates a second, of 256 rows with networks of the usual size; in turns, one process
cold             the same batches after the system was told to forget its copy of the file
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch

from safer_offline.datasets import BoxSpace, Metadata, TransitionSampler, load_dataset
from safer_offline.datasets.dataset.hashing import join_hashes
from safer_offline.datasets.larger_than_memory.cache import cache_folder, open_cached
from safer_offline.learners import SAFER, SAFERConfig
from safer_offline.learners.margins import CostModel, costs_within_margin
from safer_offline.training.loop import train

RESULTS = Path(__file__).parent / "results" / "larger_than_memory.csv"
LENGTH, OBSERVATION, ACTION, BATCH, STEPS, ROUNDS = 300, 8, 2, 256, 300, 5
PIECE = 4_096  # episodes; as many rows as 75 chunks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=66_667)
    parser.add_argument("--keep", action="store_true", help="do not remove the files")
    parser.add_argument("--child", choices=CHILDREN)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    big, tiny = arguments.folder / "big.h5", arguments.folder / "tiny.h5"
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](big, tiny)))
        return
    write_file(tiny, episodes=20)
    if not big.exists():
        write_file(big, episodes=arguments.episodes)
    found = {}
    for child in CHILDREN:
        command = [sys.executable, __file__, "--folder", str(arguments.folder), "--child", child]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[child] = json.loads(done.stdout.splitlines()[-1])
        print(child, found[child], flush=True)
    table = tabulate(found, rows=arguments.episodes * LENGTH)
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    if not arguments.keep:
        remove(arguments.folder, big, tiny)


# ---------------------------------------------------------------- processes of their own


def build(big: Path, tiny: Path) -> dict[str, float]:
    for file in cache_folder(big).glob("*"):
        file.unlink()
    with Peak() as peak:
        build_s = timed(lambda: open_cached(big, progress=False))
        verify_s = timed(lambda: open_cached(big, progress=False))
    return {"build_s": build_s, "verify_s": verify_s, **peak.found}


def train_tiny(big: Path, tiny: Path) -> dict[str, float | str]:
    return measured_training(tiny, "tiny", cached=True)


def train_cached(big: Path, tiny: Path) -> dict[str, float | str]:
    return measured_training(big, "cached", cached=True)


def train_in_memory(big: Path, tiny: Path) -> dict[str, float | str]:
    return measured_training(big, "in_memory", cached=False)


def measured_training(path: Path, name: str, *, cached: bool) -> dict[str, float | str]:
    seconds: dict[str, float] = {}
    patch_timer(SAFER, "__init__", "prepare_s", seconds)
    patch_timer(SAFER, "_estep", "estep_s", seconds)
    out = path.parent / f"run-{name}"
    remove_folder(out)
    config = SAFERConfig(hidden_sizes=(32, 32), cost_limit=30.0)
    with Peak() as peak:
        start = time.perf_counter()
        dataset = open_cached(path, progress=False) if cached else load_dataset(path)
        seconds["open_s"] = time.perf_counter() - start
        train(config, dataset, out=out, steps=STEPS, progress=False)
        seconds["total_s"] = time.perf_counter() - start
    policy = hashlib.sha256((out / "policy.safetensors").read_bytes()).hexdigest()
    return {**seconds, **peak.found, "policy": policy}


def rates(big: Path, tiny: Path) -> dict[str, float]:
    both = (open_cached(big, progress=False), load_dataset(big))
    lengths = torch.tensor(both[0].episodes["length"].to_numpy())
    # Few episodes carry most of the weight, as after an E-step.
    weights = torch.rand(len(lengths), generator=torch.Generator().manual_seed(0)) ** 20 / lengths
    found = {}
    learners = [SAFER(SAFERConfig(), dataset, steps=12_000, seed=0) for dataset in both]
    chosen = [
        TransitionSampler(
            dataset.table(("observations", "actions")),
            batch_size=BATCH,
            seed=1,
            weights=weights,
            repeats=lengths,
        )
        for dataset in both
    ]
    works: dict[str, list[Callable[[], object]]] = {
        "batches": [learner.estimation.batches.sample for learner in learners],
        "weighted_batches": [sampler.sample for sampler in chosen],
        "updates": [learner.update for learner in learners],
    }
    for name, work in works.items():
        repeats = 1_024  # batches of one fetch from disk, so that each round pays for one
        times: list[list[float]] = [[], []]
        for _ in range(3 if name == "updates" else ROUNDS):
            for spent, action in zip(times, work, strict=True):
                spent.append(timed(lambda action=action, n=repeats: [action() for _ in range(n)]))
        for label, spent in zip(("cached", "in_memory"), times, strict=True):
            found[f"{name}_{label}"] = repeats / statistics.median(spent)
    model = CostModel(OBSERVATION, hidden_sizes=(128, 128))
    part = both[1].next_observations[: 2**17], both[1].costs[: 2**17]
    reach, generator = torch.full((OBSERVATION,), 0.025), torch.Generator().manual_seed(0)
    spent = timed(lambda: costs_within_margin(model, *part, reach=reach, generator=generator))
    return found | {"margin_s": spent * both[0].num_transitions / 2**17}


def cold(big: Path, tiny: Path) -> dict[str, float]:
    dataset = open_cached(big, progress=False)
    table = dataset.table(("observations", "actions", "next_observations", "costs"))
    sampler = TransitionSampler(table, batch_size=BATCH, seed=0)
    times = []
    for _ in range(ROUNDS):
        with (cache_folder(big) / "rows.npy").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        times.append(timed(lambda: [sampler.sample() for _ in range(1_024)]))
    return {"cold_batches": 1_024 / statistics.median(times)}


CHILDREN = {
    "build": build,
    "train_tiny": train_tiny,
    "train_cached": train_cached,
    "train_in_memory": train_in_memory,
    "rates": rates,
    "cold": cold,
}


# ---------------------------------------------------------------- helpers


def tabulate(found: dict[str, dict[str, float]], *, rows: int) -> pd.DataFrame:
    tiny, cached, memory = (found[f"train_{n}"] for n in ("tiny", "cached", "in_memory"))
    gib = 2**20  # of KiB
    lines = [
        ("build", "s", found["build"]["build_s"], None),
        ("build", "rows/s", rows / found["build"]["build_s"], None),
        ("build, peak over its start", "GiB", found["build"]["over_start"] / gib, None),
        ("open and verify", "s", cached["open_s"], memory["open_s"]),
        ("normalise, values to go", "s", cached["prepare_s"], memory["prepare_s"]),
        ("E-step, networks of 32", "s", cached["estep_s"], memory["estep_s"]),
        ("E-step, search at the usual size", "s", found["rates"]["margin_s"], None),
        ("train 300 updates", "s", cached["total_s"], memory["total_s"]),
        *(
            (f"train, peak {name} over tiny", "GiB", *(
                (run[key] - tiny[key]) / gib for run in (cached, memory)
            ))
            for name, key in (("resident", "peak"), ("anonymous", "peak_anonymous"))
        ),
        *(
            (name.replace("_", " "), "1/s", *(
                found["rates"][f"{name}_{way}"] for way in ("cached", "in_memory")
            ))
            for name in ("batches", "weighted_batches", "updates")
        ),
        ("batches, file not in memory", "1/s", found["cold"]["cold_batches"], None),
        ("same policy", "", float(cached["policy"] == memory["policy"]), 1.0),
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["what", "unit", "cached", "in_memory"])
    table["ratio"] = table["cached"] / table["in_memory"]
    table["rows"] = rows
    table["load_average"] = os.getloadavg()[0]
    table["command"] = "python benchmarks/larger_than_memory.py"
    return table


class Peak:
    """The most memory the process held in a context, KiB: all resident, and anonymous alone."""

    def __enter__(self) -> Peak:
        self.found = {"start": read_status("VmRSS"), "peak_anonymous": 0.0}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.found["peak"] = read_status("VmHWM")
        self.found["over_start"] = self.found["peak"] - self.found["start"]

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            anonymous = max(self.found["peak_anonymous"], read_status("RssAnon"))
            self.found["peak_anonymous"] = anonymous


def read_status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def patch_timer(owner: type, method: str, name: str, seconds: dict[str, float]) -> None:
    original = getattr(owner, method)

    def timing(*args: object, **kwargs: object) -> object:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name] = time.perf_counter() - start

    setattr(owner, method, timing)


def write_file(path: Path, *, episodes: int) -> None:
    """A file as `save_dataset` writes it, of random walks, never held in memory as a whole."""
    rng, rows = np.random.default_rng(0), episodes * LENGTH
    shapes = {
        "observations": (rows, OBSERVATION),
        "next_observations": (rows, OBSERVATION),
        "actions": (rows, ACTION),
        **dict.fromkeys(("rewards", "costs", "terminals", "timeouts"), (rows,)),
    }
    sums = {name: hashlib.sha256() for name in shapes}
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            file.create_dataset(
                name,
                shape,
                np.bool_ if name.startswith("t") else np.float32,
                chunks=(min(16_384, rows), *shape[1:]),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fletcher32=True,
            )
        for first in range(0, episodes, PIECE):
            count = min(PIECE, episodes - first)
            steps = 0.05 * rng.standard_normal((count, LENGTH + 1, OBSERVATION), np.float32)
            paths, size = steps.cumsum(axis=1), count * LENGTH
            arrays = {
                "observations": paths[:, :-1].reshape(size, OBSERVATION),
                "next_observations": paths[:, 1:].reshape(size, OBSERVATION),
                "actions": rng.uniform(-1, 1, (size, ACTION)).astype(np.float32),
                "rewards": rng.standard_normal(size, np.float32),
                "costs": (paths[:, 1:, 0].reshape(size) > 0.6).astype(np.float32),
                "terminals": np.zeros(size, np.bool_),
                "timeouts": np.arange(size) % LENGTH == LENGTH - 1,
            }
            for name, array in arrays.items():
                file[name][first * LENGTH : first * LENGTH + size] = array
                sums[name].update(np.ascontiguousarray(array).data)
        hashes = {name: total.hexdigest() for name, total in sums.items()}
        metadata = Metadata(
            action_space=BoxSpace(low=(-1.0,) * ACTION, high=(1.0,) * ACTION),
            array_sha256=hashes,
            content_sha256=join_hashes(file, hashes),
        )
        file.attrs.update(metadata.to_attributes())


def remove(folder: Path, *files: Path) -> None:
    for file in files:
        remove_folder(cache_folder(file))
        file.unlink(missing_ok=True)
    for name in ("tiny", "cached", "in_memory"):
        remove_folder(folder / f"run-{name}")


def remove_folder(folder: Path) -> None:
    for file in folder.glob("*"):
        file.unlink()
    if folder.exists():
        folder.rmdir()


if __name__ == "__main__":
    main()
