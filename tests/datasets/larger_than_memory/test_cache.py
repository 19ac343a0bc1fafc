"""The cache of a file: what memory would hold, from disk; never trusted unless it all fits."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import namedtuple

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from safer_offline.datasets import (
    Metadata,
    OfflineDataset,
    TransitionSampler,
    load_dataset,
    save_dataset,
)
from safer_offline.datasets.dataset.access import BLOCK_ROWS, cut_episodes
from safer_offline.datasets.larger_than_memory import building, packed
from safer_offline.datasets.larger_than_memory import cache as cache_module
from safer_offline.datasets.larger_than_memory.cache import (
    CachedDataset,
    cache_folder,
    open_cached,
    open_for_training,
)
from safer_offline.datasets.larger_than_memory.memory import (
    _group_memory,
    available_memory,
    format_size,
    parse_size,
    plan_memory,
)
from safer_offline.errors import DataError, UsageError

NAMES = ("observations", "actions", "next_observations", "rewards", "costs")


@pytest.fixture
def file(tmp_path, dataset):
    path = tmp_path / "data.h5"
    save_dataset(path, dataset)
    return path


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """Two blocks; episodes of all lengths, terminated and cut."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 400, 1_500)
    rows = int(lengths.sum())
    assert BLOCK_ROWS < rows < 2 * BLOCK_ROWS
    ends = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    terminals = ends & (rng.random(rows) < 0.5)
    path = rng.standard_normal((rows + 1, 2)).astype(np.float32)
    dataset = OfflineDataset.from_arrays(
        {
            "observations": path[:-1],
            "next_observations": path[1:],
            "actions": rng.uniform(-1.5, 1.2, (rows, 1)).astype(np.float32).clip(-1, 1),
            "rewards": rng.standard_normal(rows).astype(np.float32),
            "costs": rng.integers(0, 3, rows).astype(np.float32),
            "terminals": terminals,
            "timeouts": ends & ~terminals,
        }
    )
    file = tmp_path_factory.mktemp("long") / "long.h5"
    save_dataset(file, dataset)
    return file


def assert_same(cached, held):
    pd.testing.assert_frame_equal(cached.episodes, held.episodes)
    assert cached.fingerprint() == held.fingerprint()
    assert cached.metadata == held.metadata
    assert cached.path == held.path
    for name in ("num_transitions", "num_episodes", "observation_size", "action_size"):
        assert getattr(cached, name) == getattr(held, name)
    assert torch.equal(cached.action_low, held.action_low)
    assert torch.equal(cached.action_high, held.action_high)
    blocks, others = list(cached.blocks()), list(held.blocks())
    assert len(blocks) == len(others)
    for block, other in zip(blocks, others, strict=True):
        for name in (*NAMES, "terminals", "timeouts"):
            one, two = getattr(block, name), getattr(other, name)
            assert torch.equal(one, two)
            assert one.dtype == two.dtype
            assert one.is_contiguous()


# What is in it


def test_a_cache_holds_what_memory_would(file):
    assert_same(open_cached(file), load_dataset(file))


def test_several_blocks_are_one_dataset(long_file):
    cached, held = open_cached(long_file), load_dataset(long_file)
    assert len(list(held.blocks())) == 2
    assert_same(cached, held)
    for rows in (16_384, BLOCK_ROWS):
        pieces = zip(cached.stream(NAMES, rows=rows), held.stream(NAMES, rows=rows), strict=True)
        for one, two in pieces:
            assert all(torch.equal(one[name], two[name]) for name in NAMES)


def test_rows_are_taken_in_any_order(long_file, monkeypatch):
    cached, held = open_cached(long_file), load_dataset(long_file)
    generator = torch.Generator().manual_seed(0)
    last = held.num_transitions - 1
    for window in (2**26, 2**14, 40, 1):
        monkeypatch.setattr(packed, "WINDOW_BYTES", window)
        count = 3_000 if window > 40 else 3
        rows = torch.randint(last, (count,), generator=generator) if window > 1 else torch.zeros(0)
        rows = torch.cat([rows.long(), torch.tensor([last, 0, 0, last])])
        if window <= 40:
            rows = rows % 1_000
        for name, column in cached.take(NAMES, rows).items():
            assert torch.equal(column, held.take(NAMES, rows)[name])


def test_derived_columns_belong_to_their_rows(long_file):
    def derive(episodes):
        assert bool((episodes.terminals | episodes.timeouts)[-1])
        return {"twice": 2 * episodes.rewards, "sum": episodes.observations.sum(1)}

    tables = [
        d.table(("actions",), derive) for d in (open_cached(long_file), load_dataset(long_file))
    ]
    rows = torch.tensor([270_000, 5, 0, 5])
    assert tables[0].num_rows == tables[1].num_rows
    for one, two in zip(*(table.stream() for table in tables), strict=True):
        assert one.keys() == two.keys() == {"actions", "twice", "sum"}
        assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = (table.take(rows) for table in tables)
    assert all(torch.equal(one[name], two[name]) for name in one)
    # What was derived leaves no file behind.
    assert {p.name for p in cache_folder(long_file).iterdir()} == {
        "rows.npy",
        "episodes.npz",
        "manifest.json",
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [7, 300, 1_000])
def test_batches_from_disk_are_those_from_memory(long_file, monkeypatch, weighted, batch_size):
    # 100 batches at once, which does not divide the batches of a draw; two, and one.
    monkeypatch.setattr(packed.FileTable, "rows_at_once", 700)
    datasets = (open_cached(long_file), load_dataset(long_file))
    options = {"batch_size": batch_size, "seed": 3}
    if weighted:
        lengths = torch.tensor(datasets[0].episodes["length"].to_numpy())
        weights = torch.rand(len(lengths), generator=torch.Generator().manual_seed(1)) ** 9
        options |= {"weights": weights, "repeats": lengths}
    one, two = (TransitionSampler(d.table(("rewards", "actions")), **options) for d in datasets)
    for _ in range(300):
        batches = (sampler.sample().values() for sampler in (one, two))
        assert all(torch.equal(*columns) for columns in zip(*batches, strict=True))
    resumed = TransitionSampler(datasets[0].table(("rewards", "actions")), **options)
    resumed.load_state_dict(two.state_dict())
    assert torch.equal(resumed.sample()["rewards"], two.sample()["rewards"])


def test_repeated_weights_are_weights_of_rows():
    columns = {"row": torch.arange(10.0)}
    weights, repeats = torch.tensor([0.1, 0.7, 0.2, 0.0]), torch.tensor([3, 1, 4, 2])
    of_rows = weights.repeat_interleave(repeats)
    one = TransitionSampler(columns, batch_size=50, seed=0, weights=weights, repeats=repeats)
    two = TransitionSampler(columns, batch_size=50, seed=0, weights=of_rows)
    assert torch.equal(one.sample()["row"], two.sample()["row"])
    with pytest.raises(UsageError, match="10 rows"):
        TransitionSampler(columns, batch_size=5, seed=0, weights=weights, repeats=repeats + 1)


def test_rows_can_be_opened_with_numpy(file, dataset):
    open_cached(file)
    rows = np.load(cache_folder(file) / "rows.npy", mmap_mode="r")
    assert rows.shape == (19, 3 + 2 + 3 + 1 + 1)
    np.testing.assert_array_equal(rows[:, :3], dataset.observations)
    np.testing.assert_array_equal(rows[:, -1], dataset.costs)


@pytest.mark.filterwarnings("ignore:.*names no bounds")
def test_a_bare_file_of_a_user_is_cached_as_it_is_loaded(tmp_path, make_arrays):
    arrays = make_arrays(infos=False)
    arrays |= {
        "actions": 2 * arrays["actions"].astype(np.float64),
        "rewards": arrays["rewards"].astype(">f8")[:, None],
        "costs": arrays["costs"].astype(np.int64),
        "timeouts": arrays["timeouts"].astype(np.uint8)[:, None],
        "infos/extra": np.arange(38.0).reshape(19, 2),
        "infos/single": np.arange(19)[:, None],
    }
    with h5py.File(tmp_path / "own.h5", "w") as own:
        for name, array in arrays.items():
            own[name] = array
    held = load_dataset(tmp_path / "own.h5")
    assert_same(open_cached(tmp_path / "own.h5"), held)
    assert held.action_high.max() > 1


def test_what_is_odd_is_told_once(tmp_path, long_file):
    with h5py.File(long_file) as source, h5py.File(tmp_path / "odd.h5", "w") as own:
        for name in source:
            own[name] = source[name][:] * 2 if name == "actions" else source[name][:]
    with pytest.warns(UserWarning, match="names no bounds") as caught:
        open_cached(tmp_path / "odd.h5")
    assert len(caught) == 1


def test_blocks_hold_whole_episodes():
    def cut(*ends, rows=10):
        return list(cut_episodes(np.array(ends), rows))

    assert cut(4, 10, 11, 21, 22) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert cut(50) == [(0, 1)]
    assert cut(50, 51, 101) == [(0, 1), (1, 2), (2, 3)]
    for ends in ((3, 6, 9, 12, 15), (1, 30, 31, 32)):
        blocks = cut(*ends)
        assert [first for first, _ in blocks[1:]] == [last for _, last in blocks[:-1]]
        assert (blocks[0][0], blocks[-1][1]) == (0, len(ends))


# When it is used


@pytest.fixture
def no_building(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a cache was built")

    return lambda: monkeypatch.setattr(cache_module, "build_cache", refuse)


def test_a_cache_is_built_once(file, no_building):
    open_cached(file)
    no_building()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(open_cached(file), load_dataset(file))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "rows": lambda f: flip(f / "rows.npy"),
    "rows cut": lambda f: (f / "rows.npy").write_bytes((f / "rows.npy").read_bytes()[:-4]),
    "rows gone": lambda f: (f / "rows.npy").unlink(),
    "episodes": lambda f: flip(f / "episodes.npz"),
    "no JSON": lambda f: (f / "manifest.json").write_text("{"),
    "no object": lambda f: (f / "manifest.json").write_text("[1]"),
    "empty": lambda f: (f / "manifest.json").write_text("{}"),
    "version": lambda f: (f / "manifest.json").write_text(
        (f / "manifest.json").read_text().replace("cache/1", "cache/9")
    ),
    "hash": lambda f: (f / "manifest.json").write_text(
        (f / "manifest.json").read_text().replace("rows.npy", "rows")
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_built_anew(file, damage):
    open_cached(file)
    DAMAGE[damage](cache_folder(file))
    with pytest.warns(UserWarning, match="the cache is built anew"):
        rebuilt = open_cached(file)
    assert_same(rebuilt, load_dataset(file))


def test_a_file_that_changed_is_cached_anew(file, dataset):
    old = open_cached(file)
    save_dataset(file, dataset.select_episodes([2, 0]), overwrite=True)
    with pytest.warns(UserWarning, match=r"data.h5 has changed since; the cache is built anew"):
        new = open_cached(file)
    assert_same(new, load_dataset(file))
    # Who used the old one goes on with it.
    assert torch.equal(next(old.blocks()).observations, dataset.observations)


def test_a_cache_of_another_file_is_not_used(tmp_path, file, dataset):
    other = tmp_path / "other.h5"
    save_dataset(other, dataset.select_episodes([1]))
    open_cached(other)
    shutil.copytree(cache_folder(other), cache_folder(file))
    with pytest.warns(UserWarning, match="has changed since"):
        assert open_cached(file).num_transitions == 19


def test_killed_while_building_nothing_is_used_later(file):
    script = f"""
import os, signal
from safer_offline.datasets.larger_than_memory import building
from safer_offline.datasets.larger_than_memory.cache import open_cached
building.os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
open_cached({str(file)!r})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    folder = cache_folder(file)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == ["rows.npy.tmp"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached = open_cached(file)
    assert_same(cached, load_dataset(file))
    assert not list(folder.glob("*.tmp*"))


def test_builders_take_turns(file):
    folder = cache_folder(file)
    folder.mkdir()
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    found = []

    def wait_a_while():
        thread = threading.Thread(target=lambda: found.append(open_cached(file)))
        thread.start()
        time.sleep(0.2)
        assert not found
        assert not list(folder.iterdir())
        os.close(other)
        thread.join()

    with pytest.warns(UserWarning, match="another process builds or checks this cache"):
        wait_a_while()
    assert_same(found[0], load_dataset(file))


# Where it cannot be


def test_a_full_disk_is_told_beforehand(file, monkeypatch):
    usage = namedtuple("usage", "free")(500)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        DataError, match=r"takes 912 bytes \(912 B\).* 500 B left(.|\n)*--cache-dir"
    ):
        open_cached(file)
    assert not list(cache_folder(file).iterdir())


@pytest.mark.parametrize("where", ["fsync", "write_atomically"])
def test_a_disk_that_fills_up_leaves_nothing_valid(file, monkeypatch, where):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner = building.os if where == "fsync" else building
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, fail)
        with pytest.raises(DataError, match=r"No space left on device(.|\n)*--cache-dir"):
            open_cached(file)
    assert not (cache_folder(file) / "manifest.json").exists()
    assert not list(cache_folder(file).glob("*.tmp*"))
    assert_same(open_cached(file), load_dataset(file))


def test_what_is_no_cache_is_never_overwritten(file):
    folder = cache_folder(file)
    folder.write_text("mine")
    with pytest.raises(UsageError, match=r"is no folder(.|\n)*--cache-dir"):
        open_cached(file)
    folder.unlink()
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds thesis.tex(.|\n)*--cache-dir"):
        open_cached(file)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_caches_can_be_kept_elsewhere_and_do_not_mix(tmp_path, file, dataset, no_building):
    other = tmp_path / "more" / file.name
    save_dataset(other, dataset.select_episodes([3]))
    place = tmp_path / "caches"
    assert open_cached(file, cache_dir=place).num_episodes == 4
    assert open_cached(other, cache_dir=place).num_episodes == 1
    no_building()
    assert open_cached(file, cache_dir=place).num_episodes == 4
    assert not cache_folder(file).exists()


# Files that must not be used


def replace(name, change):
    def edit(own):
        array = change(own[name][:])
        del own[name]
        own[name] = array

    return edit


def at(row, value):
    def change(array):
        array[row] = value
        return array

    return change


@pytest.mark.parametrize(
    "edit",
    [
        replace("rewards", at(7, 0.5)),  # the hash differs
        replace("rewards", at(270_000, np.nan)),
        replace("costs", at(270_001, -1)),
        replace("timeouts", at(-1, 0)),
        replace("timeouts", at(slice(None), 1)),
        replace("rewards", lambda array: array[:-1]),
        replace("actions", lambda array: array[:, 0]),
        replace("observations", lambda array: array.astype(np.complex64)),
        lambda own: own.__delitem__("costs"),
        lambda own: own.attrs.__setitem__("max_episode_steps", 5),
    ],
)
def test_bad_files_are_refused_like_those_in_memory(tmp_path, long_file, edit):
    path = shutil.copy(long_file, tmp_path / "bad.h5")
    with h5py.File(path, "r+") as own:
        edit(own)
        if "max_episode_steps" not in own.attrs and own.get("rewards") is not None:
            wrong_hash = own["rewards"].shape == own["terminals"].shape and own["rewards"][7] == 0.5
            if not wrong_hash:
                del own.attrs["array_sha256"], own.attrs["content_sha256"]
    messages = []
    for read in (load_dataset, open_cached):
        with pytest.raises(DataError) as caught:
            read(path)
        messages.append(caught.value)
    one, two = messages
    assert (one.field, one.path, one.remedy) == (two.field, two.path, two.remedy)
    if "more problem" not in one.problem and "max_episode_steps" not in one.problem:
        assert (one.index, one.problem) == (two.index, two.problem)
    assert not (cache_folder(path) / "manifest.json").exists()


def test_a_flipped_bit_is_noticed(file):
    with h5py.File(file) as own:
        offset = own["rewards"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="'rewards': the array cannot be read"):
        open_cached(file)


def test_a_file_that_changes_while_it_is_read_is_not_cached(file, monkeypatch):
    stamps = iter(({"size": 1, "mtime_ns": 1}, {"size": 1, "mtime_ns": 2}))
    monkeypatch.setattr(building, "identify", lambda _: next(stamps))
    with pytest.raises(DataError, match="changed while it was read"):
        open_cached(file)
    assert not list(cache_folder(file).iterdir())


def test_a_cache_that_shrinks_is_noticed(tmp_path):
    (tmp_path / "rows").write_bytes(bytes(40))
    with pytest.raises(DataError, match="has not the size of 48 bytes"):
        packed.PackedRows((tmp_path / "rows").open("rb"), path=tmp_path / "rows", shape=(3, 4))


# Memory


def test_the_way_is_chosen_by_memory_and_told(file):
    told = []
    plan = plan_memory(file, 10**9)
    assert plan.fits
    assert plan.needed > 19 * 4 * 10
    held = open_for_training(file, max_memory=10**9, tell=told.append)
    assert isinstance(held, OfflineDataset)
    assert not cache_folder(file).exists()
    cached = open_for_training(file, max_memory=plan.needed - 1, tell=told.append)
    assert isinstance(cached, CachedDataset)
    assert isinstance(open_for_training(file), OfflineDataset)
    assert "may be used: it is held in memory" in told[0]
    assert "may be used: it is read from a cache" in told[1]
    assert str(cache_folder(file)) in told[1]
    assert Metadata() != held.metadata == cached.metadata


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5 gib", 3 * 2**29),
        (".5k", 500),
        ("1000", 1000),
        ("12b", 12),
        ("2T", 2 * 10**12),
    ],
)
def test_sizes_as_text(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4 GiBs", "-1GB", "0", "4iB", "1e9", "4,5GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="memory"):
        parse_size(text)


def test_sizes_for_people():
    assert [format_size(s) for s in (5, 2048, 3 * 2**20, 1.5 * 2**30, 2**42)] == [
        "5 B",
        "2 KiB",
        "3 MiB",
        "1.5 GiB",
        "4.1e+03 GiB",
    ]


def test_control_groups_limit_memory(tmp_path):
    assert 0 < available_memory() < 2**50
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    group = root / "outer" / "inner"
    group.mkdir(parents=True)
    membership.write_text("0::/outer/inner\n")
    assert _group_memory(membership, root) == []
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("700\n")
    (group.parent / "memory.max").write_text("1000\n")
    (group.parent / "memory.current").write_text("900\n")
    (group.parent / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    assert _group_memory(membership, root) == [(1000, 600)]
    # The first version of control groups, seen from within a container.
    membership.write_text("3:cpu,memory:/docker/abc\n2:cpu:/\n")
    (root / "memory").mkdir()
    (root / "memory" / "memory.limit_in_bytes").write_text("5000")
    (root / "memory" / "memory.usage_in_bytes").write_text("1000")
    assert _group_memory(membership, root) == [(5000, 1000)]
    assert _group_memory(tmp_path / "none", root) == []
