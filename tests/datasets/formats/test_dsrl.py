"""Files of DSRL: the same layout, other flaws, and names by which peers find them."""

import dataclasses

import h5py
import numpy as np
import pytest

from safer_offline.datasets import Metadata, OfflineDataset, from_dsrl, load_dataset, to_dsrl
from safer_offline.datasets.formats.dsrl import offline_env_id
from safer_offline.errors import DataError, UsageError


@pytest.fixture
def dsrl_file(make_arrays, tmp_path):
    """A file as DSRL's own scripts write them."""
    with h5py.File(tmp_path / "dsrl.hdf5", "w") as file:
        for name, array in make_arrays(infos=False).items():
            file.create_dataset(name, data=array, compression="gzip")
    return tmp_path / "dsrl.hdf5"


def set_flags(path, **rows):
    with h5py.File(path, "r+") as file:
        for name, values in rows.items():
            flags = np.zeros(19, bool)
            flags[values] = True
            file[name][:] = flags


def test_our_file_comes_back_as_it_was(dataset, tmp_path):
    path = to_dsrl(dataset, tmp_path / "own.hdf5")

    back = from_dsrl(path)

    assert path == tmp_path / "own.hdf5"
    assert back.metadata == load_dataset(path).metadata
    assert back.to_arrays().keys() == dataset.to_arrays().keys()
    for name, array in dataset.to_arrays().items():
        np.testing.assert_array_equal(back.to_arrays()[name], array)


def test_a_file_of_dsrl_needs_nothing(dsrl_file, make_arrays, recwarn):
    dataset = from_dsrl(dsrl_file)

    assert dataset.metadata == Metadata()
    assert not recwarn
    for name, array in make_arrays(infos=False).items():
        np.testing.assert_array_equal(getattr(dataset, name), array)


def test_both_flags_are_mended_on_request(dsrl_file):
    set_flags(dsrl_file, terminals=[9, 18], timeouts=[4, 9, 14, 18])

    with pytest.raises(DataError, match=r"'timeouts', row 9: both.*\n.*--fix terminal-wins"):
        from_dsrl(dsrl_file)
    with pytest.warns(UserWarning, match="timeout of 2 rows that terminate was cleared"):
        dataset = from_dsrl(dsrl_file, fixes=["terminal-wins"])

    assert dataset.episodes["terminated"].tolist() == [False, True, False, True]
    assert "timeout of 2 rows" in dataset.metadata.description


def test_an_unfinished_tail_is_cut_on_request(dsrl_file):
    set_flags(dsrl_file, terminals=[], timeouts=[4, 9])

    with pytest.raises(DataError, match=r"9 unfinished rows\n.*--fix drop-tail"):
        from_dsrl(dsrl_file)
    with pytest.warns(UserWarning, match="9 rows of an unfinished episode at the end dropped"):
        dataset = from_dsrl(dsrl_file, fixes=["drop-tail"])

    assert dataset.num_transitions == 10


def test_a_mended_file_of_ours_names_its_parent(dataset, tmp_path):
    path = to_dsrl(dataset, tmp_path / "own.hdf5")
    before = load_dataset(path).metadata
    with h5py.File(path, "r+") as file:
        del file.attrs["array_sha256"]
        flags = file["timeouts"][:]
        flags[-1] = True
        file["timeouts"][:] = flags
        del file.attrs["content_sha256"]
        file.attrs["content_sha256"] = ""
    with pytest.warns(UserWarning, match="cleared"):
        mended = from_dsrl(path, fixes=["terminal-wins"])

    assert mended.metadata.env_id == before.env_id
    assert mended.metadata.num_transitions is None
    assert mended.metadata.parents == before.parents


def test_files_of_d4rl_are_sent_there(dsrl_file):
    with h5py.File(dsrl_file, "r+") as file:
        del file["costs"]

    with pytest.raises(DataError, match=r"'costs': .*no file in the layout of DSRL\n.*--from d4rl"):
        from_dsrl(dsrl_file)


@pytest.mark.parametrize(
    ("env_id", "name", "task"),
    [
        ("SafetyCarCircle-v0", "SafetyCarCircle-v0-100-1450.hdf5", "OfflineCarCircle-v0"),
        ("SafetyDroneRun-v0", "SafetyDroneRun-v0-140-1990.hdf5", "OfflineDroneRun-v0"),
        (
            "SafetyPointGoal1Gymnasium-v0",
            "SafetyPointGoal1Gymnasium-v0-100-2022.hdf5",
            "OfflinePointGoal1Gymnasium-v0",
        ),
        (
            "SafetyAntVelocity-v1",
            "SafetyAntVelocityGymnasium-v1-250-2249.hdf5",
            "OfflineAntVelocityGymnasium-v1",
        ),
        ("SafetyHumanoidVelocity-v1", "SafetyHumanoidVelocity-v1-3-4.hdf5", None),
        ("own/Walker-v3", "own-Walker-v3-3-4.hdf5", None),
    ],
)
def test_in_a_folder_the_file_gets_the_name_of_dsrl(make_arrays, tmp_path, env_id, name, task):
    arrays = make_arrays()
    arrays["costs"][:] = 0
    arrays["costs"][:5] = 0.5
    dataset = OfflineDataset.from_arrays(arrays, metadata=Metadata(env_id=env_id))

    assert to_dsrl(dataset, tmp_path) == tmp_path / name
    assert to_dsrl(dataset, tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / name
    assert offline_env_id(dataset) == task
    with pytest.raises(UsageError, match="exists already"):
        to_dsrl(dataset, tmp_path)


def test_without_an_environment_there_is_no_name(dataset, tmp_path):
    nameless = dataclasses.replace(dataset, metadata=Metadata())

    with pytest.raises(UsageError, match=r"names no environment.*name a file"):
        to_dsrl(nameless, tmp_path)
    assert to_dsrl(nameless, tmp_path / "own.hdf5").exists()
