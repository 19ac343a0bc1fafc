"""What survives: collections killed at random moments, and files in which one bit has flipped.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/integrity.py
Writes benchmarks/results/integrity.csv.

Kills: `safer-offline collect` and all its processes get SIGKILL after a random time, again and
again, until `KILLS` have hit; every finished collection must equal one that nobody disturbed, and
no shard that was finished may be collected again.
Flips: every bit of every chunk of a small file is flipped, one after the other, and the file
loaded; then random bits of a large one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from safer_offline.datasets import OfflineDataset, load_dataset, peek_metadata, save_dataset
from safer_offline.errors import DataError
from safer_offline.progress import progress_bar

KILLS = 50
TRANSITIONS = 90_000
LONGEST_LIFE = 9.0
"""Seconds; start-up takes about 4, a shard of 6,000 transitions about 1."""
RANDOM_FLIPS = 2_000


def command(path: Path) -> list[str]:
    program = "from safer_offline.cli.main import main; main()"
    options = ["collect", "ball-run", "-o", str(path), "--transitions", str(TRANSITIONS)]
    return [sys.executable, "-c", program, *options]


def finished_shards(path: Path) -> dict[str, tuple[int, int]]:
    """Identity of each finished shard's file; collecting it again would change it."""
    found = {}
    for shard in path.with_name(path.name + ".shards").glob("shard-*.h5"):
        with contextlib.suppress(FileNotFoundError):
            status = shard.stat()
            found[shard.name] = (status.st_ino, status.st_mtime_ns)
    return found


def kill_collections(folder: Path) -> dict[str, object]:
    """Kill until it has hit `KILLS` times; count what was lost."""
    undisturbed = folder / "undisturbed.h5"
    subprocess.run(command(undisturbed), check=True, capture_output=True)
    expected = peek_metadata(undisturbed).content_sha256
    chance = random.Random(0)
    kills = completed = identical = lost = halves = 0
    path = folder / "killed.h5"
    with progress_bar("kills", total=KILLS) as bar:
        while kills < KILLS or not path.exists():
            before = finished_shards(path)
            process = subprocess.Popen(
                command(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            limit = chance.uniform(0, LONGEST_LIFE) if kills < KILLS else None
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                bar.advance(1)
            time.sleep(0.1)
            after = finished_shards(path)
            if after:  # else the collection is complete and its shards are joined
                lost += sum(after.get(name) != status for name, status in before.items())
            if path.exists():
                halves += not is_sound(path)
                completed += 1
                identical += peek_metadata(path).content_sha256 == expected
                if kills < KILLS:
                    path.unlink()
    return {
        "what": "kill -9 of a collection",
        "trials": kills,
        "good": identical,
        "of": completed,
        "bad": lost + halves,
        "meaning": "good: finished collections identical to an undisturbed one; "
        "bad: finished shards lost, or files left half-written",
    }


def is_sound(path: Path) -> bool:
    try:
        load_dataset(path)
    except DataError:
        return False
    return True


def synthetic(rows: int) -> OfflineDataset:
    generator = np.random.default_rng(0)
    seen = generator.normal(size=(rows + 1, 8)).astype(np.float32)
    ends = np.arange(1, rows + 1) % 20 == 0
    ends[-1] = True
    return OfflineDataset.from_arrays(
        {
            "observations": seen[:-1],
            "next_observations": seen[1:],
            "actions": generator.uniform(-1, 1, (rows, 2)).astype(np.float32),
            "rewards": generator.normal(size=rows).astype(np.float32),
            "costs": generator.integers(0, 2, rows).astype(np.float32),
            "terminals": np.zeros(rows, np.bool_),
            "timeouts": ends,
        }
    )


def chunk_bytes(path: Path) -> list[int]:
    """Positions in the file of all bytes of all chunks."""
    positions: list[int] = []
    with h5py.File(path) as file:
        for entry in (entry for entry in file.values() if isinstance(entry, h5py.Dataset)):
            for index in range(entry.id.get_num_chunks()):
                chunk = entry.id.get_chunk_info(index)
                positions.extend(range(chunk.byte_offset, chunk.byte_offset + chunk.size))
    return positions


def flip_bits(path: Path, flips: list[tuple[int, int]], name: str) -> dict[str, object]:
    """Flip one bit at a time, load, and flip it back."""
    detected = 0
    with path.open("r+b", buffering=0) as file, progress_bar(name, total=len(flips)) as bar:
        for position, bit in flips:
            (old,) = os.pread(file.fileno(), 1, position)
            os.pwrite(file.fileno(), bytes([old ^ (1 << bit)]), position)
            detected += not is_sound(path)
            os.pwrite(file.fileno(), bytes([old]), position)
            bar.advance(1)
    assert is_sound(path)
    return {
        "what": name,
        "trials": len(flips),
        "good": detected,
        "of": len(flips),
        "bad": len(flips) - detected,
        "meaning": "good: load_dataset refused the file",
    }


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "small.h5", folder / "large.h5"
        save_dataset(small, synthetic(40))
        save_dataset(large, synthetic(100_000))
        every = [(position, bit) for position in chunk_bytes(small) for bit in range(8)]
        chance = random.Random(0)
        places = chunk_bytes(large)
        some = [(chance.choice(places), chance.randrange(8)) for _ in range(RANDOM_FLIPS)]
        rows = [
            flip_bits(small, every, "every bit of a file of 40 transitions"),
            flip_bits(large, some, "random bits of a file of 100,000 transitions"),
            kill_collections(folder),
        ]
    table = pd.DataFrame(rows)
    print(table.drop(columns="meaning").to_string(index=False))
    table.to_csv(Path(__file__).parent / "results" / "integrity.csv", index=False)


if __name__ == "__main__":
    main()
