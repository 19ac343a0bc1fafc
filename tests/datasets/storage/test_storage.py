"""Files: what is written comes back, peers can read it, and bad files end in a message."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.datasets import (
    Metadata,
    OfflineDataset,
    load_dataset,
    peek_metadata,
    save_dataset,
)
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.storage import hdf5
from safer_offline.errors import DataError, UsageError


@pytest.fixture
def write(tmp_path, make_arrays):
    """A file as a user would write it: some arrays, no attributes."""

    def write_arrays(**changes):
        path = tmp_path / "own.h5"
        with h5py.File(path, "w") as own:
            for name, array in {**make_arrays(infos=False), **changes}.items():
                own[name] = array
        return path

    return write_arrays


def refuses(path, *texts):
    """Loading must fail with a message that names the file, all of `texts`, and a remedy."""
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert str(path) in message
    assert "Remedy" in message
    for text in texts:
        assert re.search(text, message), message


def equal(first, second):
    one, other = first.to_arrays(), second.to_arrays()
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


def test_what_is_saved_comes_back(file, dataset):
    loaded = load_dataset(file)

    equal(loaded, dataset)
    assert loaded.path == file
    assert loaded.metadata.without_content() == dataset.metadata
    assert loaded.metadata.num_transitions == 19
    assert loaded.metadata.num_episodes == 4
    assert peek_metadata(file) == loaded.metadata


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    observation_size=st.integers(1, 4),
    action_size=st.integers(1, 3),
    seed=st.integers(0, 1000),
    terminates=st.booleans(),
)
def test_any_dataset_round_trips(lengths, observation_size, action_size, seed, terminates):
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    ends = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    path = rng.standard_normal((rows + 1, observation_size), np.float32)
    original = OfflineDataset.from_arrays(
        {
            "observations": path[:-1],
            "next_observations": path[1:],
            "actions": rng.uniform(-1, 1, (rows, action_size)),
            "rewards": rng.standard_normal((rows, 1)),
            "costs": rng.integers(0, 3, rows),
            "terminals": ends if terminates else ends & False,
            "timeouts": ends & False if terminates else ends,
            "infos/extra": rng.integers(0, 9, (rows, 2)),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        save_dataset(Path(folder) / "a.h5", original)
        equal(load_dataset(Path(folder) / "a.h5"), original)


def test_a_file_of_one_dataset_is_always_the_same(tmp_path, dataset):
    for name in ("a.h5", "b.h5"):
        save_dataset(tmp_path / name, dataset)

    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_content_hash_sees_values_and_not_circumstances(tmp_path, make_arrays, metadata):
    arrays = make_arrays()
    other = {**arrays, "rewards": arrays["rewards"] + 1}
    hashes = [
        save_dataset(tmp_path / name, OfflineDataset.from_arrays(a, metadata=m)).content_sha256
        for name, a, m in (
            ("a.h5", arrays, metadata),
            ("b.h5", arrays, Metadata()),
            ("c.h5", other, metadata),
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hdf5.content_sha256(OfflineDataset.from_arrays(other)) == hashes[2]


def test_dsrl_can_read_the_file(file):
    """Does what `dsrl.offline_env.get_dataset` and `pre_process_data` do with a file."""
    arrays = {}
    with h5py.File(file) as peer:
        peer.visititems(
            lambda name, entry: (
                arrays.update({name: entry[:]}) if isinstance(entry, h5py.Dataset) else None
            )
        )
        assert all(entry.compression == "gzip" and entry.fletcher32 for entry in peer.values()
                   if isinstance(entry, h5py.Dataset))  # fmt: skip
    assert set(ARRAYS) <= set(arrays)
    assert {len(array) for array in arrays.values()} == {19}
    assert {arrays[name].dtype for name in ARRAYS[:5]} == {np.dtype(np.float32)}
    assert {arrays[name].dtype for name in ARRAYS[5:]} == {np.dtype(np.bool_)}
    done = arrays["terminals"] | arrays["timeouts"]
    assert done.sum() == 4


def test_a_bare_file_of_a_user_loads(write, make_arrays):
    arrays = make_arrays(infos=False)
    path = write(
        rewards=arrays["rewards"].astype(np.float64)[:, None],
        costs=arrays["costs"].astype(np.int64),
        timeouts=arrays["timeouts"].astype(np.uint8),
    )

    loaded = load_dataset(path)

    equal(loaded, OfflineDataset.from_arrays(arrays))
    assert loaded.metadata == Metadata()


def test_attributes_as_h5py_writes_them_by_default_are_read(write):
    path = write()
    with h5py.File(path, "r+") as own:
        own.attrs["schema"] = "safer-offline/1"
        own.attrs["max_episode_steps"] = 5

    assert load_dataset(path).metadata == Metadata(max_episode_steps=5)


def test_nothing_is_overwritten_unless_asked(file, dataset):
    before = file.read_bytes()

    with pytest.raises(UsageError, match="exists already"):
        save_dataset(file, dataset.select_episodes([0]))
    assert file.read_bytes() == before

    save_dataset(file, dataset.select_episodes([0]), overwrite=True)
    assert load_dataset(file).num_episodes == 1


def test_a_folder_is_no_file(tmp_path, dataset):
    with pytest.raises(UsageError, match="is a folder"):
        save_dataset(tmp_path, dataset, overwrite=True)
    refuses(tmp_path, "this is no file")


def test_folders_are_made(tmp_path, dataset):
    save_dataset(tmp_path / "new" / "folder" / "a.h5", dataset)

    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.h5"]


def test_an_unsound_dataset_is_not_written(tmp_path, dataset):
    dataset.rewards[3] = float("nan")

    with pytest.raises(DataError, match="'rewards', row 3"):
        save_dataset(tmp_path / "a.h5", dataset)
    assert not (tmp_path / "a.h5").exists()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file, dataset, monkeypatch):
    before = file.read_bytes()

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(hdf5.PatientFile, "finish", fail)
    with pytest.raises(DataError, match=r"No space left.*\n.*disk has room"):
        save_dataset(file, dataset.select_episodes([0]), overwrite=True)

    assert file.read_bytes() == before
    assert list(file.parent.glob("*.tmp-*")) == []


def test_a_kill_in_the_middle_leaves_the_old_file(file):
    before = file.read_bytes()
    script = f"""
import os, signal
from safer_offline.datasets.storage import hdf5
hdf5.PatientFile.finish = lambda disk: os.kill(os.getpid(), signal.SIGKILL)
dataset = hdf5.read_file({str(file)!r})
hdf5.save_dataset({str(file)!r}, dataset.select_episodes([0]), overwrite=True)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)

    assert done.returncode == -signal.SIGKILL
    assert file.read_bytes() == before
    assert load_dataset(file).num_episodes == 4


def test_a_missing_file(tmp_path):
    refuses(tmp_path / "none.h5", "no such file", "safer-offline collect")
    with pytest.raises(DataError, match="no such file"):
        peek_metadata(tmp_path / "none.h5")


def test_an_empty_and_a_foreign_file(tmp_path):
    (tmp_path / "a.h5").touch()
    refuses(tmp_path / "a.h5", "is empty", "observations")
    (tmp_path / "a.h5").write_text("return,cost\n1,2\n")
    refuses(tmp_path / "a.h5", "no HDF5 file", "observations")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file(file, kept):
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])

    refuses(file, r"cut short: [\d,]+ of [\d,]+ bytes", "copy or download it again")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("rewards", [b"a"] * 19, "holds text"),
        ("rewards", np.zeros(19, np.complex64), "something else than real numbers"),
        ("rewards", np.zeros(19, [("a", "f4")]), "something else than real numbers"),
        ("costs", h5py.Empty("f4"), "something else than real numbers"),
        ("actions", np.full((19, 2), np.nan, np.float32), "'actions', row 0.*NaN"),
        ("costs", np.full(19, -1), "'costs', row 0.*negative"),
        ("timeouts", np.full(19, 2), "'timeouts', row 0"),
        ("rewards", np.zeros(18), "'rewards': has 18 rows, most arrays have 19"),
    ],
)
def test_arrays_that_break_the_format(write, name, value, text):
    refuses(write(**{name: value}), text)


def test_python_objects_are_never_read(write):
    path = write()
    with h5py.File(path, "r+") as own:
        del own["rewards"]
        own.create_dataset("rewards", (19,), dtype=h5py.vlen_dtype(np.float32))

    refuses(path, "'rewards'", "something else than real numbers")


def test_a_missing_array(write):
    path = write()
    with h5py.File(path, "r+") as own:
        del own["costs"]

    refuses(path, "'costs': the array is missing", "safe learning needs")


def test_a_group_in_place_of_an_array_is_a_missing_array(write):
    path = write()
    with h5py.File(path, "r+") as own:
        del own["costs"]
        own.create_group("costs")

    refuses(path, "'costs': the array is missing")


LINKS = [h5py.ExternalLink("elsewhere.h5", "/costs"), h5py.SoftLink("/rewards")]


def put_link(path, make_arrays, name, link):
    with h5py.File(path.parent / "elsewhere.h5", "w") as other:
        other["costs"] = make_arrays()["costs"]
    with h5py.File(path, "r+") as own:
        if name in own:
            del own[name]
        own[name] = link


@pytest.mark.parametrize("link", LINKS)
def test_links_are_not_followed(write, make_arrays, link):
    path = write()
    put_link(path, make_arrays, "costs", link)

    refuses(path, "'costs'", "link to somewhere else", "copy the array into the file")


@pytest.mark.parametrize("name", ["infos", "infos/secret", "anything"])
@pytest.mark.parametrize("link", LINKS)
def test_links_that_nobody_needs_are_left_out(write, make_arrays, name, link):
    path = write()
    put_link(path, make_arrays, name, link)

    with pytest.warns(UserWarning, match=rf"not read: {name} \(is a link to somewhere else\)"):
        assert not load_dataset(path).infos
    assert [(p.field, p.severity) for p in hdf5.find_file_problems(path)] == [(name, "warning")]


def test_external_storage_is_not_read(write, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(19 * 4))
    path = write()
    with h5py.File(path, "r+") as own:
        del own["costs"]
        own.create_dataset("costs", (19,), "f4", external=[(str(tmp_path / "secret"), 0, 76)])

    refuses(path, "'costs'", "from another file")


def test_a_virtual_array_is_not_read(write, tmp_path):
    path = write()
    with h5py.File(path, "r+") as own:
        del own["costs"]
        layout = h5py.VirtualLayout((19,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "costs", (19,))
        own.create_virtual_dataset("costs", layout)

    refuses(path, "'costs'", "from another file")


@pytest.mark.parametrize(
    ("shape", "chunks", "text"),
    [((10**11,), (16384,), "declares 400 GB"), ((19,), (2**28,), r"declares 1\.07 GB")],
)
def test_absurd_sizes_are_never_allocated(write, monkeypatch, shape, chunks, text):
    path = write()
    with h5py.File(path, "r+") as own:
        del own["costs"]
        own.create_dataset("costs", shape, "f4", chunks=chunks, maxshape=(None,), compression=4)

    def forbidden(*_):
        raise AssertionError("an array was read")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", forbidden)
    refuses(path, "'costs'", text, "stores 0 bytes")


def test_a_dataset_larger_than_the_memory(file, monkeypatch):
    monkeypatch.setattr(hdf5, "_physical_memory", lambda: 100)

    refuses(file, r"arrays take .* GB, this machine has 1e-07 GB", "more memory")


def test_an_attribute_of_absurd_size_is_not_read(file):
    with h5py.File(file, "r+") as own:
        own.attrs["author"] = ["x"] * 2000

    refuses(file, "'author'", "cannot be understood")


def test_edited_values_are_noticed(file):
    with h5py.File(file, "r+") as own:
        own["costs"][3] = 1 - own["costs"][3]

    refuses(file, "'costs'", "SHA-256 differs", "delete the attributes")


def test_a_removed_column_is_noticed(file):
    with h5py.File(file, "r+") as own:
        del own["infos/seed"]

    refuses(file, "not the ones that were saved", "infos/seed")


def test_a_file_that_was_edited_on_purpose_loads(file):
    with h5py.File(file, "r+") as own:
        own["costs"][:] = 0
        del own.attrs["array_sha256"], own.attrs["content_sha256"]

    assert load_dataset(file).costs.sum() == 0


def test_a_flipped_bit_in_an_array_is_noticed(file):
    with h5py.File(file) as own:
        offset = own["rewards"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 5] ^= 1
    file.write_bytes(content)

    refuses(file, "'rewards'", "cannot be read", "damaged")


def test_no_flipped_bit_passes_unnoticed(file, dataset):
    """Anywhere in the file: either it does not matter or it is reported; it never hangs."""
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            loaded = load_dataset(file)
        except DataError:
            continue
        equal(loaded, dataset)


def test_another_schema_is_refused(file):
    with h5py.File(file, "r+") as own:
        own.attrs["schema"] = "safer-offline/9"

    refuses(file, "'schema'", "safer-offline/9", "update")


def test_large_attributes_fit(tmp_path, make_arrays):
    text = "ü" * 31_000
    metadata = Metadata(command=text, author=text, cost_definition=text)

    save_dataset(tmp_path / "a.h5", OfflineDataset.from_arrays(make_arrays(), metadata=metadata))

    assert peek_metadata(tmp_path / "a.h5").author == text


def test_all_problems_of_a_file_are_listed(write):
    path = write(costs=np.full(19, -1), extra=np.zeros(3))

    found = [(p.field, p.severity) for p in hdf5.find_file_problems(path)]

    assert found == [("costs", "error"), ("extra", "warning")]
    assert [p.problem for p in hdf5.find_file_problems(path / "none")] == ["there is no such file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(file):
    file.chmod(0)

    refuses(file, "may not read")
