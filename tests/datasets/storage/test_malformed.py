"""Malformed files: each gives a clear error, none a crash, a hang or a huge allocation."""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.storage.hdf5 import find_file_problems
from safer_offline.errors import DataError

NAMES = (*ARRAYS, "infos/episode_id", "infos/seed", "infos/policy_id")


def store(file, name, values, **how):
    if name in file:
        del file[name]
    file.create_dataset(name, data=values, **how)


def is_plain(entry):
    """Whether nobody has made a mistake here yet, of the kind that cannot be built upon."""
    if not isinstance(entry, h5py.Dataset) or not entry.shape:
        return False
    return 0 < len(entry) < 100 and entry.dtype.kind in "fiub"


def remove(file, name, draw):
    del file[name]


def retype(file, name, draw):
    kind = draw(st.sampled_from(["f2", "f8", "i8", "u1", "c8", "S4", "V3", "?"]))
    values = file[name][...]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store(file, name, values.astype(kind) if kind != "V3" else np.zeros(len(values), kind))


def text(file, name, draw):
    store(file, name, ["x"] * len(file[name]), dtype=h5py.string_dtype())


def shorten(file, name, draw):
    store(file, name, file[name][: draw(st.integers(0, len(file[name]) - 1))])


def reshape(file, name, draw):
    extra = draw(st.sampled_from([(1,), (2,), (0,), (1, 1)]))
    store(file, name, np.zeros((*file[name].shape, *extra), np.float32))


def scalar(file, name, draw):
    store(file, name, draw(st.floats(allow_nan=True)))


def spoil(file, name, draw):
    values = file[name][...].astype(np.float64)
    row = draw(st.integers(0, len(values) - 1))
    values[row] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1.0, 2.0, 1e-50]))
    store(file, name, values)


def nothing(file, name, draw):
    store(file, name, h5py.Empty("f4"))


def group(file, name, draw):
    del file[name]
    file.create_group(name)


def promise(file, name, draw):
    """A size that the file cannot hold."""
    del file[name]
    rows = draw(st.sampled_from([10**9, 10**12, 2**62]))
    file.create_dataset(name, shape=(rows,), dtype="f4", chunks=(1024,))


def point_elsewhere(file, name, draw):
    del file[name]
    links = (h5py.ExternalLink("/etc/hostname", "/"), h5py.SoftLink("/nowhere"), h5py.SoftLink("/"))
    file[name] = draw(st.sampled_from(links))


def scribble(file, name, draw):
    """An attribute of ours that holds something else."""
    attribute = draw(
        st.sampled_from(["schema", "action_space", "behavior_policies", "cost_limit", "versions"])
    )
    file.attrs[attribute] = draw(
        st.sampled_from(["", "{", "[1]", "null", '{"low": [1]}', 3, np.nan, "[" * 30_000])
    )


def never_write(file, name, draw):
    """Created and left alone, in a layout or another."""
    shape = file[name].shape
    del file[name]
    how = draw(st.sampled_from([{}, {"chunks": True}, {"chunks": True, "compression": "gzip"}]))
    file.create_dataset(name, shape, draw(st.sampled_from(["f4", "?", "f8"])), **how)


def transpose(file, name, draw):
    values = file[name][...]
    store(file, name, values.reshape(len(values), -1).T)


def bury(file, name, draw):
    """Put into a group, or a group of groups."""
    values = file[name][...]
    where = draw(st.sampled_from(["data", "infos/robot", "infos/a/b/c"]))
    if f"{where}/x" not in file:
        file.create_dataset(f"{where}/x", data=values)


MISTAKES = (
    remove, retype, text, shorten, reshape, scalar, spoil, nothing, group, promise,
    point_elsewhere, scribble, never_write, transpose, bury,
)  # fmt: skip


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_mistakes_in_any_combination_are_named_or_harmless(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.h5"
        write_sound(path)
        with h5py.File(path, "r+") as file:
            for name in ("array_sha256", "content_sha256"):
                del file.attrs[name]
            for mistake in data.draw(st.lists(st.sampled_from(MISTAKES), min_size=1, max_size=3)):
                usable = [name for name in NAMES if is_plain(file.get(name, getlink=False))]
                if usable:
                    mistake(file, data.draw(st.sampled_from(usable)), data.draw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset, refusal = load_or_refuse(path)
            errors = [p for p in find_file_problems(path) if p.severity == "error"]
        assert bool(errors) == (dataset is None)
        if dataset is None:
            assert str(path) in refusal
            assert "Remedy: " in refusal
            return
        # What loads is sound.
        assert all(getattr(dataset, name).isfinite().all() for name in ARRAYS)
        assert len({len(getattr(dataset, name)) for name in ARRAYS}) == 1
        assert (dataset.costs >= 0).all()
        assert not (dataset.terminals & dataset.timeouts).any()
        assert dataset.terminals[-1] or dataset.timeouts[-1]


def load_or_refuse(path):
    try:
        return load_dataset(path), ""
    except DataError as error:
        return None, str(error)


def write_sound(path):
    ends = np.array([0, 0, 0, 1, 0, 0, 0, 1], bool)
    seen = np.arange(27, dtype=np.float32).reshape(9, 3)
    rows = np.arange(8)
    arrays = {
        "observations": seen[:-1], "next_observations": seen[1:],
        "actions": np.zeros((8, 2), np.float32), "rewards": np.ones(8, np.float32),
        "costs": np.ones(8, np.float32), "terminals": np.zeros(8, bool), "timeouts": ends,
        "infos/episode_id": (rows // 4).astype(np.int32), "infos/seed": rows // 4,
        "infos/policy_id": np.zeros(8, np.int16),
    }  # fmt: skip
    save_dataset(path, OfflineDataset.from_arrays(arrays))


FUZZ = """
import json, random, resource, signal, sys, warnings
from pathlib import Path
from safer_offline.datasets import load_dataset
from safer_offline.datasets.storage.hdf5 import content_sha256
from safer_offline.errors import DataError

warnings.simplefilter("ignore")
path, trials = Path(sys.argv[1]), int(sys.argv[2])
sound = path.read_bytes()
expected = load_dataset(path)
wanted = content_sha256(expected)
space = 2**30 + int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (space, space))  # a huge allocation fails
chance = random.Random(int(sys.argv[3]))
counts = {"refused": 0, "same": 0, "changed": 0}
target = path.with_name("fuzzed.h5")
for trial in range(trials):
    content = bytearray(sound)
    for _ in range(chance.randint(1, 8)):
        position = chance.randrange(len(content))
        kind = chance.randrange(3)
        if kind == 0:
            content[position] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[position] = chance.choice((0, 1, 127, 255))
        else:
            stop = min(len(content), position + chance.randint(1, 64))
            content[position:stop] = bytes(chance.randrange(256) for _ in range(stop - position))
    if chance.random() < 0.1:
        del content[chance.randrange(len(content)) :]
    target.write_bytes(content)
    print(trial, file=sys.stderr, flush=True)
    signal.alarm(20)  # a hang ends the process
    try:
        dataset = load_dataset(target)
    except DataError:
        counts["refused"] += 1
    else:
        counts["same" if content_sha256(dataset) == wanted else "changed"] += 1
    signal.alarm(0)
print(json.dumps(counts))
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_random_damage_is_refused_or_without_effect(tmp_path, seed):
    """In a process of its own: the library below us is C, and may do worse than raise."""
    path = tmp_path / "data.h5"
    write_sound(path)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(path), "300", str(seed)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["changed"] == 0
    assert counts["refused"] > 100
