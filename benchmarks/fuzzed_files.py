"""10,000 files that somebody might hand us: what becomes of each, and whether the message is true.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/fuzzed_files.py
Writes benchmarks/results/fuzzed_files.csv (six minutes on one core).

Each file is a sound dataset, with columns in `infos` and groups within it, after one to three
random changes of one kind:

structure   arrays missing, renamed, transposed, never written, of another length, cut into chunks
groups      arrays moved into groups, linked, nested deeper, groups that hold themselves
types       text, complex numbers, integers, half precision, flags as floats, more dimensions
values      NaN, infinity, negative costs, impossible flags, actions out of bounds
truncation  the file cut short, or some of its bytes written over

`loaded` and `refused` add up to `files`. The others should be 0:

crashes       the process died, or something else than our errors came out
hangs         more than 20 seconds
damaged       called damaged although every byte is as it was written
unexplained   refused without file and remedy
lost          a column of the file that is neither loaded nor named in a warning
wrong         loaded, but a column is not what was written
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from safer_offline.datasets import load_dataset
from safer_offline.errors import SaferOfflineError

RESULTS = Path(__file__).parent / "results" / "fuzzed_files.csv"
FILES = 2_000
"""Of each kind."""
BATCH = 100
ROWS = 40
PATIENCE = 20
OUTCOMES = (
    "files", "loaded", "refused", "crashes", "hangs", "damaged", "unexplained", "lost", "wrong"
)  # fmt: skip
COLUMNS = ("infos/seed", "infos/speed", "infos/robot/qpos", "infos/robot/arm/q")
FORMAT = (
    "observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts"
)  # fmt: skip


def write_sound(path: Path, chance: random.Random) -> None:
    """Episodes of ten steps, and four columns more than anybody needs."""
    rng = np.random.default_rng(chance.randrange(2**32))
    seen = rng.standard_normal((ROWS + 1, 3), np.float32)
    arrays = {
        "observations": seen[:-1],
        "next_observations": seen[1:],
        "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": rng.standard_normal(ROWS, np.float32),
        "costs": rng.integers(0, 2, ROWS).astype(np.float32),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": np.arange(ROWS) % 10 == 9,
        "infos/seed": np.arange(ROWS) // 10,
        "infos/speed": rng.standard_normal(ROWS),
        "infos/robot/qpos": rng.standard_normal((ROWS, 4)),
        "infos/robot/arm/q": rng.standard_normal(ROWS),
    }
    with h5py.File(path, "w", libver=chance.choice([None, "latest"])) as file:
        for name, array in arrays.items():
            how = chance.choice([{}, {"chunks": True, "compression": "gzip", "fletcher32": True}])
            file.create_dataset(name, data=array, **how)


def replace(file: h5py.File, name: str, values: object, **how: object) -> None:
    """Store something else under a name."""
    del file[name]
    file.create_dataset(name, data=values, **how)


def copy(file: h5py.File, name: str, target: str) -> None:
    """Copy an array to another place, if that is free."""
    if target not in file:
        file.copy(name, target)


def change_structure(file: h5py.File, name: str, chance: random.Random) -> None:
    """Missing, renamed, transposed, never written, shorter, empty."""
    values = file[name][...]
    kind = chance.randrange(7)
    if kind == 0:
        del file[name]
    elif kind == 1:
        other = chance.choice(["cost", "dones", "obs", "states", "reward", "act", "x y", "ü"])
        if other not in file:
            file.move(name, other)
    elif kind == 2:
        replace(file, name, values.reshape(len(values), -1).T)
    elif kind == 3:
        how = chance.choice([{}, {"chunks": True}, {"chunks": True, "compression": "gzip"}])
        del file[name]
        file.create_dataset(name, values.shape, values.dtype, **how)
    elif kind == 4:
        replace(file, name, values[: chance.randrange(len(values))])
    elif kind == 5:
        replace(file, name, h5py.Empty("f4"))
    else:
        replace(file, name, float(chance.random()))


def change_groups(file: h5py.File, name: str, chance: random.Random) -> None:
    """Moved into groups, linked in all ways, nested, going round in a circle."""
    kind = chance.randrange(7)
    if kind == 0:
        copy(file, name, f"data/{name}")
        del file[name]
    elif kind == 1:
        copy(file, name, f"infos/a{chance.randrange(99)}/b/c/{name}")
    elif kind == 2:
        del file[name]
        links = (h5py.SoftLink("/rewards"), h5py.SoftLink("/none"), h5py.ExternalLink("a.h5", "/"))
        file[name] = chance.choice(links)
    elif kind == 3:
        if "infos/robot" in file and "infos/robot/again" not in file:
            file["infos/robot/again"] = file["infos"]
    elif kind == 4:
        if "root" not in file:
            file["root"] = file["/"]
    elif kind == 5:
        del file[name]
        file.create_group(name)
    else:
        for episode in range(chance.randrange(1, 4)):
            copy(file, name, f"episode_{episode}/{name}")


def change_types(file: h5py.File, name: str, chance: random.Random) -> None:
    """Text, complex and whole numbers, other precision, more dimensions."""
    values = file[name][...]
    kind = chance.choice(["f2", "f8", "i8", "u1", "c8", "S3", "text", "V2", "?", "deep", "wide"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "text":
            replace(file, name, ["x"] * len(values), dtype=h5py.string_dtype())
        elif kind == "V2":
            replace(file, name, np.zeros(len(values), "V2"))
        elif kind == "deep":
            replace(file, name, np.zeros((len(values), 5, 5, 3), np.uint8))
        elif kind == "wide":
            replace(file, name, np.zeros((*values.shape, chance.randrange(3)), np.float32))
        else:
            replace(file, name, values.astype(kind))


def change_values(file: h5py.File, name: str, chance: random.Random) -> None:
    """Not finite, negative, too large, neither 0 nor 1."""
    values = file[name][...].astype(np.float64)
    rows = [chance.randrange(len(values)) for _ in range(chance.randrange(1, 4))]
    values[rows] = chance.choice([np.nan, np.inf, -np.inf, 1e300, -1.0, 2.0, 0.5, 1e-50])
    replace(file, name, values)


def damage(path: Path, chance: random.Random) -> None:
    """Cut short, or written over."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        del content[chance.randrange(len(content)) :]
    else:
        for _ in range(chance.randrange(1, 9)):
            start = chance.randrange(len(content))
            stop = min(len(content), start + chance.randrange(1, 64))
            content[start:stop] = bytes(chance.randrange(256) for _ in range(stop - start))
    path.write_bytes(content)


CHANGES: dict[str, Callable[[h5py.File, str, random.Random], None]] = {
    "structure": change_structure,
    "groups": change_groups,
    "types": change_types,
    "values": change_values,
}
KINDS = (*CHANGES, "truncation")


def make(path: Path, kind: str, chance: random.Random) -> dict[str, np.ndarray]:
    """Write a file of this kind; the numeric columns in `infos` that it holds, with N rows."""
    write_sound(path, chance)
    if kind == "truncation":
        damage(path, chance)
        return {}
    with h5py.File(path, "r+") as file:
        for _ in range(chance.randrange(1, 4)):
            names = [name for name in (*FORMAT, *COLUMNS) if is_plain(file, name)]
            if names:
                CHANGES[kind](file, chance.choice(names), chance)
        return {name: file[name][...] for name in COLUMNS if is_plain(file, name)}


def is_plain(file: h5py.File, name: str) -> bool:
    """Whether a name still stands for an array of some numbers."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    entry = file[name]
    return (
        isinstance(entry, h5py.Dataset)
        and bool(entry.shape)
        and entry.size > 0
        and entry.dtype.kind in "fiub"
    )


def judge(path: Path, kind: str, columns: dict[str, np.ndarray]) -> list[str]:
    """What became of a file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            dataset = load_dataset(path)
        except SaferOfflineError as error:
            text = str(error)
            found = ["refused"]
            if kind != "truncation" and "damaged" in text:
                found.append("damaged")
            if str(path) not in text or "Remedy: " not in text:
                found.append("unexplained")
            return found
    found = ["loaded"]
    told = " ".join(str(warning.message) for warning in caught)
    for name, values in columns.items():
        loaded = dataset.infos.get(name.removeprefix("infos/"))
        group = name.rpartition("/")[0]
        if loaded is None and name not in told and f"{group}/ (" not in told:
            found.append("lost")
        elif loaded is not None and not np.array_equal(
            loaded.reshape(-1), values.reshape(-1), equal_nan=values.dtype.kind in "fc"
        ):
            found.append("wrong")
    return found


def run_batch(kind: str, first: int) -> None:
    """In a process of its own: print the outcome of each file, one JSON list a line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.h5"
        for number in range(first, first + BATCH):
            columns = make(path, kind, random.Random(f"{kind} {number}"))
            signal.alarm(PATIENCE)
            try:
                found = judge(path, kind, columns)
            except Exception as error:
                print(f"{kind} {number}: {error!r}", file=sys.stderr)
                found = ["refused", "crashes"]
            signal.alarm(0)
            print(json.dumps(found), flush=True)


def try_kind(kind: str) -> dict[str, object]:
    """Count the outcomes of all files of a kind."""
    counts: Counter[str] = Counter()
    first = 0
    while first < FILES:
        command = [sys.executable, __file__, kind, str(first)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.splitlines()
        for line in lines:
            counts.update(["files", *json.loads(line)])
        if done.returncode:  # the file after the last line ended the process
            killed = done.returncode == -signal.SIGALRM
            counts.update(["files", "refused", "hangs" if killed else "crashes"])
            first += len(lines) + 1
        else:
            first += BATCH
    return {"kind": kind, **{name: counts[name] for name in OUTCOMES}}


def main() -> None:
    """Try all kinds, and write the table."""
    table = pd.DataFrame([try_kind(kind) for kind in KINDS])
    table.to_csv(RESULTS, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_batch(sys.argv[1], int(sys.argv[2]))
    else:
        main()
