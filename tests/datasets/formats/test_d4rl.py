"""Files in the layout of D4RL: what they lack is made up only if asked for."""

import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.datasets import from_d4rl, import_d4rl, load_dataset, save_dataset, to_d4rl
from safer_offline.errors import DataError, SaferOfflineError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.fixture
def d4rl_file(make_arrays, tmp_path):
    """A file as D4RL publishes them: no costs, no next observations; three cut episodes of four."""
    arrays = make_arrays(infos=False)
    del arrays["next_observations"]
    arrays["infos/damage"] = arrays.pop("costs").astype(np.float64)
    arrays["infos/qpos"] = np.zeros((19, 4))
    return write(tmp_path / "d4rl.hdf5", arrays)


def edit(path, **arrays):
    with h5py.File(path, "r+") as file:
        for name, array in arrays.items():
            file.pop(name, None)
            if array is not None:
                file[name] = array
    return path


def test_our_file_comes_back_as_it_was(dataset, tmp_path):
    assert to_d4rl(dataset, tmp_path / "own.hdf5") == tmp_path / "own.hdf5"

    back = from_d4rl(tmp_path / "own.hdf5")

    assert back.metadata == load_dataset(tmp_path / "own.hdf5").metadata
    for name, array in dataset.to_arrays().items():
        assert back.to_arrays()[name].dtype == array.dtype
        np.testing.assert_array_equal(back.to_arrays()[name], array)


def test_an_existing_file_is_left_alone(dataset, tmp_path):
    to_d4rl(dataset, tmp_path / "own.hdf5")

    with pytest.raises(UsageError, match="exists already"):
        to_d4rl(dataset.select_episodes([0]), tmp_path / "own.hdf5")
    to_d4rl(dataset.select_episodes([0]), tmp_path / "own.hdf5", overwrite=True)
    assert load_dataset(tmp_path / "own.hdf5").num_episodes == 1


def test_a_published_file_is_completed(d4rl_file, make_arrays):
    arrays = make_arrays(infos=False)
    kept = ~arrays["timeouts"]

    with pytest.warns(UserWarning, match="3 rows cut by a timeout dropped, 1 row that terminated"):
        dataset = from_d4rl(d4rl_file, cost_from="infos/damage", fixes=["derive-next"])

    assert dataset.num_episodes == 4
    assert dataset.episodes["length"].tolist() == [4, 4, 4, 4]
    assert dataset.terminals.tolist() == arrays["terminals"][kept].tolist()
    for name in ("observations", "actions", "rewards", "costs"):
        np.testing.assert_array_equal(getattr(dataset, name), arrays[name][kept])
    np.testing.assert_array_equal(
        dataset.next_observations[:-1], arrays["next_observations"][kept][:-1]
    )
    np.testing.assert_array_equal(dataset.next_observations[-1], arrays["observations"][-1])
    assert set(dataset.infos) == {"damage", "qpos"}
    assert dataset.metadata.cost_definition == "the column 'infos/damage' of the source"
    assert "3 rows cut by a timeout dropped" in dataset.metadata.description


def test_zero_costs_are_remembered(d4rl_file, tmp_path):
    dataset = from_d4rl(d4rl_file, zero_costs=True, fixes=["derive-next"])
    save_dataset(tmp_path / "own.h5", dataset)

    assert not dataset.costs.any()
    metadata = load_dataset(tmp_path / "own.h5").metadata
    assert metadata.cost_definition == "always 0: the source holds no costs"
    assert "all costs are 0" in metadata.description


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"'costs': the array is missing.*\n.*--cost-from.*--zero-costs.*infos/damage"),
        ({"zero_costs": True}, r"'next_observations': .*3 rows cut.*1 row that.*\n.*derive-next"),
    ],
)
def test_what_is_missing_is_not_made_up(d4rl_file, options, text):
    with pytest.raises(DataError, match=text):
        from_d4rl(d4rl_file, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cost_from": "damage", "zero_costs": True}, "exclude each other"),
        ({"cost_from": "infos/none"}, "no array 'infos/none' .*; it holds .*infos/damage"),
        ({"cost_from": "infos/qpos"}, r"'infos/qpos' holds \(4,\) numbers a row"),
        ({"fixes": ["mend"]}, "no fix 'mend'; there are terminal-wins"),
        ({"zero_costs": True, "max_episode_steps": 0}, "1 or more"),
    ],
)
def test_wrong_requests(d4rl_file, options, text):
    with pytest.raises(UsageError, match=text):
        from_d4rl(d4rl_file, **options)


def test_options_that_contradict_the_file(dataset, tmp_path):
    path = to_d4rl(dataset, tmp_path / "own.hdf5")

    with pytest.raises(UsageError, match="holds 'costs' already"):
        from_d4rl(path, zero_costs=True)
    with pytest.raises(UsageError, match="at most 5 steps"):
        from_d4rl(path, max_episode_steps=6)
    assert from_d4rl(path, max_episode_steps=5).metadata.max_episode_steps == 5


def test_missing_timeouts_follow_from_the_limit(d4rl_file):
    edit(d4rl_file, timeouts=None)

    with pytest.raises(DataError, match=r"'timeouts': .*missing.*\n.*--max-episode-steps"):
        from_d4rl(d4rl_file, zero_costs=True)
    dataset = from_d4rl(d4rl_file, zero_costs=True, max_episode_steps=5, fixes=["derive-next"])

    assert dataset.episodes["length"].tolist() == [4, 4, 4, 4]
    assert dataset.metadata.max_episode_steps == 5
    assert "3 timeouts set by the limit of 5 steps" in dataset.metadata.description


def test_the_limit_counts_from_the_last_termination(d4rl_file):
    terminals = np.zeros(19, bool)
    terminals[[2, 12]] = True  # ends: 2 T, 7, 12 T (as the limit would), 17, tail of one row
    edit(d4rl_file, timeouts=None, terminals=terminals)

    with pytest.raises(DataError, match=r"row 18: .*1 unfinished row\n.*drop-tail"):
        from_d4rl(d4rl_file, zero_costs=True, max_episode_steps=5, fixes=["derive-next"])
    dataset = from_d4rl(
        d4rl_file, zero_costs=True, max_episode_steps=5, fixes=["derive-next", "drop-tail"]
    )

    assert dataset.episodes["length"].tolist() == [3, 4, 5, 4]
    assert dataset.episodes["terminated"].tolist() == [True, False, True, False]


def test_both_flags(d4rl_file):
    both = np.zeros(19)
    both[[4, 18]] = 1
    edit(d4rl_file, timeouts=both, terminals=both)

    with pytest.raises(DataError, match=r"row 4: both.*2 such rows.*\n.*terminal-wins"):
        from_d4rl(d4rl_file, zero_costs=True)
    dataset = from_d4rl(d4rl_file, zero_costs=True, fixes=["terminal-wins", "derive-next"])

    assert dataset.episodes["terminated"].tolist() == [True, True]
    assert "timeout of 2 rows" in dataset.metadata.description


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"rewards": None}, r"'rewards': the array is missing \(present: "),
        ({"rewards": np.zeros(7)}, r"'rewards': has shape \(7,\), most arrays have 19 rows"),
        ({"rewards": np.float32(1)}, "'rewards': has shape"),
        ({"terminals": np.full(19, 2)}, "'terminals', row 0: holds 2, a flag"),
        ({"timeouts": np.zeros((19, 2))}, "'timeouts', row 0: .*a flag"),
        (
            {"timeouts": np.zeros(19), "terminals": np.zeros(19)},
            "no row ends an episode",
        ),
        ({"rewards": np.full(19, np.nan)}, "'rewards', row 0: holds NaN"),
    ],
)
def test_files_that_cannot_be_used(d4rl_file, arrays, text):
    edit(d4rl_file, **arrays)

    with pytest.raises(DataError, match=text) as caught:
        from_d4rl(d4rl_file, zero_costs=True, fixes=["derive-next"])
    assert caught.value.path == d4rl_file
    assert caught.value.remedy


def test_nothing_left_is_an_error(d4rl_file):
    edit(d4rl_file, timeouts=np.ones(19), terminals=np.zeros(19))

    with pytest.raises(DataError, match="no row would be left"):
        from_d4rl(d4rl_file, zero_costs=True, fixes=["derive-next"])


def test_what_is_not_read_is_named(d4rl_file):
    edit(d4rl_file, metadata=7)

    with pytest.warns(UserWarning, match=r"not read: metadata \(is no array of this format\)"):
        from_d4rl(d4rl_file, zero_costs=True, fixes=["derive-next"])


def test_an_empty_file_is_an_error(make_arrays, tmp_path):
    arrays = {name: array[:0] for name, array in make_arrays().items()}
    del arrays["timeouts"], arrays["costs"], arrays["next_observations"]
    path = write(tmp_path / "empty.hdf5", arrays)

    with pytest.raises(DataError, match="no row would be left"):
        from_d4rl(path, zero_costs=True, max_episode_steps=5, fixes=["derive-next"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "", "terminal", "timeout"]), min_size=1, max_size=20))
def test_derived_rows_are_those_of_a_loop(tmp_path_factory, flags):
    rows = np.arange(len(flags))
    path = write(
        tmp_path_factory.mktemp("d4rl") / "d4rl.hdf5",
        {
            "observations": rows[:, None].astype(np.float32),
            "actions": np.zeros((len(flags), 1)),
            "rewards": rows,
            "terminals": [flag == "terminal" for flag in flags],
            "timeouts": [flag == "timeout" for flag in flags],
        },
    )
    expected, episode = [], []  # (row, next observation, last of its episode, terminated)
    for row, flag in enumerate(flags):
        if flag == "timeout":
            if episode:
                episode[-1][2] = True
        else:
            successor = row if flag == "terminal" else row + 1
            episode.append([row, successor, flag == "terminal", flag == "terminal"])
        if flag:
            expected += episode
            episode = []

    options = {"zero_costs": True, "fixes": ["derive-next", "drop-tail"]}
    if not expected:
        with pytest.raises(DataError, match=r"left|no row ends an episode"):
            from_d4rl(path, **options)
        return
    dataset = from_d4rl(path, **options)

    ends = dataset.terminals | dataset.timeouts
    columns = (dataset.rewards, dataset.next_observations[:, 0], ends, dataset.terminals)
    found = [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    assert found == expected


def test_without_d4rl_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "d4rl", None)
    monkeypatch.delitem(sys.modules, "d4rl")
    monkeypatch.setattr("importlib.import_module", raise_missing)

    with pytest.raises(SaferOfflineError, match=r"pip install 'safer-offline\[d4rl\]'"):
        import_d4rl()
    assert "d4rl.kitchen" not in sys.modules


def raise_missing(name):
    raise ModuleNotFoundError(f"No module named '{name}'", name=name)
