"""Sound files that look damaged, and damage that is told for what it is."""

import gzip
import os
import subprocess
import sys
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from safer_offline.datasets import load_dataset, save_dataset
from safer_offline.datasets.larger_than_memory.cache import open_cached
from safer_offline.datasets.storage.hdf5 import find_file_problems
from safer_offline.errors import DataError


@pytest.fixture
def write(tmp_path, make_arrays):
    def write_arrays(**changes):
        path = tmp_path / "own.h5"
        with h5py.File(path, "w") as own:
            for name, array in {**make_arrays(infos=False), **changes}.items():
                if array is not None:
                    own[name] = array
        return path

    return write_arrays


def refusal(path):
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert str(path) in message
    assert "Remedy: " in message
    return message


# --- never written


@pytest.mark.parametrize(
    "how", [{}, {"chunks": (4,)}, {"chunks": (4,), "compression": "gzip", "maxshape": (None,)}]
)
@pytest.mark.parametrize("name", ["terminals", "infos/unused"])
def test_an_array_that_was_never_written_holds_its_fill_value(write, make_arrays, name, how):
    path = write(terminals=None, timeouts=np.isin(np.arange(19), [4, 9, 14, 18]))
    with h5py.File(path, "r+") as own:
        own.create_dataset("terminals", (19,), bool)
        if name != "terminals":
            own.create_dataset(name, (19,), np.float32, fillvalue=2.5, **how)

    with pytest.warns(UserWarning, match=rf"'{name}': was created, but never written"):
        dataset = load_dataset(path)

    assert not dataset.terminals.any()
    assert dataset.num_episodes == 4
    if name != "terminals":
        assert dataset.infos["unused"].tolist() == [2.5] * 19
    problems = {problem.field: problem for problem in find_file_problems(path)}
    assert problems[name].severity == "warning"
    assert ("2.5" if name != "terminals" else "False") in problems[name].problem
    with pytest.warns(UserWarning, match="never written"):
        assert open_cached(path, progress=False).num_transitions == 19


def test_an_array_that_was_written_in_part(write, make_arrays):
    path = write(costs=None)
    with h5py.File(path, "r+") as own:
        own.create_dataset("costs", (19,), np.float32, chunks=(5,))[:10] = 1

    with pytest.warns(UserWarning, match="'costs': was written in part: 50% of it never was"):
        assert load_dataset(path).costs.tolist() == [1] * 10 + [0] * 9


def test_a_whole_dataset_that_was_never_written_orders_no_memory(tmp_path):
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as own:
        for name in ("observations", "next_observations", "actions"):
            own.create_dataset(name, (10**9, 10), "f4", chunks=(1024, 10))
        for name in ("rewards", "costs", "terminals", "timeouts"):
            own.create_dataset(name, (10**9,), "f4", chunks=(1024,))

    message = refusal(path)

    assert "declares 40 GB, the file stores 0 bytes" in message
    assert "damaged" not in message


# --- in use


@contextmanager
def writer(path, *, mode="r+", libver=None, swmr=False):
    """Another process that has the file open until it is killed."""
    script = (
        "import h5py, sys, time\n"
        f"file = h5py.File({str(path)!r}, {mode!r}, libver={libver!r})\n"
        "if file.mode == 'r+' and 'costs' in file: file['costs'][0] = file['costs'][0]\n"
        f"if {swmr}: file.swmr_mode = True\n"
        "file.flush()\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_file_that_another_process_writes_is_not_damaged(write):
    path = write()
    with writer(path) as process:
        message = refusal(path)
        problem = find_file_problems(path)[0]

    assert "another program has the file open for writing" in message
    assert "damaged" not in message
    assert "collect it anew" not in message
    assert problem.problem in message
    if sys.platform == "linux":
        assert f"(process {process.pid}, python" in message
    assert load_dataset(path).num_transitions == 19  # once it has gone


@pytest.mark.parametrize("swmr", [False, True])
def test_the_mark_of_a_killed_writer_is_told_with_the_command_that_clears_it(
    tmp_path, make_arrays, swmr
):
    path = tmp_path / "own.h5"
    with h5py.File(path, "w", libver="latest") as own:
        for name, array in make_arrays(infos=False).items():
            own[name] = array
    with writer(path, libver="latest", swmr=swmr):
        pass

    message = refusal(path)

    assert "a program is writing to it: one still is, or it was killed" in message
    assert f"`h5clear -s {path}`" in message
    assert f"`safer-offline data validate {path}`" in message
    assert "damaged" not in message


def test_a_disk_without_locks(write, monkeypatch):
    path = write()

    def fail(*_, **__):
        raise OSError(37, "Unable to open file (unable to lock file, errno = 37, error message)")

    monkeypatch.setattr(h5py, "File", fail)

    message = refusal(path)

    assert "does not do locks" in message
    assert "HDF5_USE_FILE_LOCKING=FALSE" in message


@pytest.mark.parametrize("code", [5, 24])
def test_what_the_system_refuses_is_not_the_fault_of_the_file(write, monkeypatch, code):
    path = write()

    def fail(*_, **__):
        raise OSError(code, f"Unable to read (file read failed, errno = {code}, error message)")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    assert os.strerror(code) in refusal(path)
    monkeypatch.setattr(h5py, "File", fail)
    message = refusal(path)
    assert os.strerror(code) in message
    assert "damaged" not in message


def test_too_little_memory_is_not_the_fault_of_the_file(write, monkeypatch):
    path = write()

    def fail(*_, **__):
        raise MemoryError("Unable to allocate 3 GiB")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    message = refusal(path)
    assert "not enough memory" in message
    assert "damaged" not in message


# --- compressed in an unknown way


def create_with_filter(own, name, code, *, filled):
    """An array that is said to be compressed by a filter which nobody has."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((19,))
    layout.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((19,))
    own.require_group("infos")
    array = h5py.h5d.create(own.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, layout)
    if filled:
        array.write_direct_chunk((0,), bytes(40), 0)


def test_a_missing_compression_is_named(write):
    path = write(rewards=None)
    with h5py.File(path, "r+") as own:
        create_with_filter(own, "rewards", 32015, filled=True)

    message = refusal(path)

    assert "'rewards': is compressed by zstd, which is not installed here" in message
    assert "pip install hdf5plugin" in message
    assert f"h5repack -f GZIP=4 {path}" in message
    assert "damaged" not in message
    with pytest.raises(DataError, match="zstd"):
        open_cached(path, progress=False)


def test_a_compression_that_was_not_used_does_not_matter(write):
    path = write(rewards=None)
    with h5py.File(path, "r+") as own:
        create_with_filter(own, "rewards", 32015, filled=False)

    with pytest.warns(UserWarning, match="never written"):
        assert not load_dataset(path).rewards.any()


def test_a_missing_compression_of_a_column_that_nobody_needs(write):
    path = write()
    with h5py.File(path, "r+") as own:
        create_with_filter(own, "infos/picture", 60_000, filled=True)

    with pytest.warns(UserWarning, match=r"infos/picture \(is compressed by filter 60000"):
        assert load_dataset(path).num_transitions == 19


# --- no HDF5, or a copy of which not all arrived


def test_a_file_behind_a_block_of_another_program(tmp_path, make_arrays):
    """As MATLAB writes them: 512 bytes of its own come first."""
    path = tmp_path / "own.mat"
    with h5py.File(path, "w", userblock_size=512) as own:
        for name, array in make_arrays(infos=False).items():
            own[name] = array
    assert load_dataset(path).num_transitions == 19

    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(500), "-v7.3"),
        (b"PK\x03\x04" + bytes(100), ".npz"),
        (gzip.compress(b"x" * 1000, mtime=0), "gunzip"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x80\x04\x95", "pickle"),
        (b"return,cost\n1,2\n", "no HDF5 file"),
        (b"", "the file is empty"),
    ],
)
def test_what_is_no_hdf5_is_called_by_its_name(tmp_path, content, text):
    (tmp_path / "own.h5").write_bytes(content)

    message = refusal(tmp_path / "own.h5")

    assert text in message
    assert "damaged" not in message


# --- more than we need


def test_groups_within_infos_are_kept(write, tmp_path):
    robot = np.arange(76.0).reshape(19, 4)
    path = write(**{"infos/robot/qpos": robot, "infos/robot/arm/q": robot[:, 0]})

    dataset = load_dataset(path)
    save_dataset(tmp_path / "copy.h5", dataset)
    again = load_dataset(tmp_path / "copy.h5")

    for one in (dataset, again):
        assert set(one.infos) == {"robot/qpos", "robot/arm/q"}
        np.testing.assert_array_equal(one.infos["robot/qpos"], robot)
    assert again.fingerprint() == dataset.fingerprint()
    with h5py.File(tmp_path / "copy.h5", "r+") as own:
        own["infos/robot/qpos"][3, 1] += 1  # they are part of what the hashes protect
    assert "'infos/robot/qpos': the values are not the ones that were saved" in refusal(
        tmp_path / "copy.h5"
    )


def test_what_nobody_needs_never_makes_a_file_unusable(write, recwarn):
    odd = {
        "infos/label": [b"left"] * 19,
        "infos/words": np.array(["a"] * 19, h5py.string_dtype()),
        "infos/complex": np.zeros(19, complex),
        "infos/short": np.zeros(7),
        "infos/version": 3,
        "infos/seed": np.linspace(0, 1, 19),
        "infos/robot/name": [b"R2"] * 19,
        "picture": np.zeros((19, 8, 8), np.uint8),
        "meta/notes": "made on a Tuesday",
    }
    path = write(**odd)
    with h5py.File(path, "r+") as own:
        own["infos/nothing"] = h5py.Empty("f4")
        own["infos/type"] = np.dtype("f4")

    dataset = load_dataset(path)

    assert dict(dataset.infos) == {}
    told = " ".join(str(entry.message) for entry in recwarn)
    problems = find_file_problems(path)
    assert {problem.severity for problem in problems} == {"warning"}
    for name in {*odd, "infos/nothing"}:
        assert any(problem.field == name for problem in problems), name
    assert "infos/label (holds text)" in told
    assert "and 2 more" in told


def test_a_group_of_many_is_told_in_one_line(write, recwarn):
    path = write(**{f"meta/policy/layer{place}": np.zeros(3) for place in range(20)})

    load_dataset(path)

    assert "not read: meta/policy/ (is no array of this format (20 of them))" in str(
        recwarn[0].message
    )


def test_groups_that_hold_themselves_end(write):
    path = write(**{"infos/robot/qpos": np.zeros((19, 2))})
    with h5py.File(path, "r+") as own:
        own["infos/robot/again"] = own["infos"]
        own["loop"] = own["/"]

    with pytest.warns(UserWarning, match="infos/robot/again .*occurs elsewhere"):
        assert set(load_dataset(path).infos) == {"robot/qpos"}
