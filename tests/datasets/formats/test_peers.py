"""Our files in the hands of d4rl, DSRL and OSRL: their own code reads them, value for value."""

import importlib.util
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch

from safer_offline.datasets import OfflineDataset, import_d4rl, save_dataset, to_d4rl, to_dsrl
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.formats.dsrl import REGISTERED_NAMES

REASON = "the peer is not installed: pip install --no-deps -r requirements-peers.txt"
OBSERVATION, ACTION = 8, 2

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:gymnasium.*"),
]


@pytest.fixture(scope="module")
def d4rl(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D4RL_DATASET_DIR", str(tmp_path_factory.mktemp("d4rl")))
        if importlib.util.find_spec("d4rl") is None:
            pytest.skip(REASON)
        return import_d4rl()


@pytest.fixture(scope="module")
def dsrl(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSRL_DATASET_DIR", str(tmp_path_factory.mktemp("dsrl")))
        patch.setenv("DSRL_SUPPRESS_IMPORT_ERROR", "1")
        return pytest.importorskip("dsrl", reason=REASON)


@pytest.fixture(scope="module")
def osrl():
    return pytest.importorskip("osrl.common.dataset", reason=REASON)


@pytest.fixture
def car_circle(make_arrays, metadata):
    """Ends of both kinds in the middle, and infos; the sizes are those of the task."""
    arrays = make_arrays((5, 3, 5, 1, 5, 4), observation_size=OBSERVATION, action_size=ACTION)
    for row in (7, 13):
        arrays["timeouts"][row], arrays["terminals"][row] = False, True
    spaceless = {"observation_space": None, "action_space": None}
    entries = {key: value for key, value in vars(metadata).items() if key not in spaceless}
    return OfflineDataset.from_arrays(arrays, metadata=type(metadata)(**entries))


@pytest.fixture
def d4rl_arrays(d4rl, car_circle, tmp_path):
    """What d4rl's `get_dataset` reads from our file."""
    import gym

    class Environment(d4rl.offline_env.OfflineEnv):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION,))
        action_space = gym.spaces.Box(-1, 1, (ACTION,))

    return Environment().get_dataset(str(to_d4rl(car_circle, tmp_path / "own.hdf5")))


@pytest.fixture
def dsrl_environment(dsrl):
    class Environment(dsrl.OfflineEnv):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,))
        action_space = gymnasium.spaces.Box(-1, 1, (ACTION,))

    return Environment()


@pytest.fixture
def dsrl_arrays(dsrl_environment, car_circle, tmp_path, monkeypatch):
    """What DSRL hands to OSRL: read, then cut into trajectories and joined."""
    monkeypatch.chdir(tmp_path)  # DSRL draws a picture into the working directory
    monkeypatch.setenv("MPLBACKEND", "agg")
    path = to_dsrl(car_circle, tmp_path / "own.hdf5")
    return dsrl_environment.pre_process_data(dsrl_environment.get_dataset(str(path)))


def assert_same(read, dataset):
    expected = dataset.to_arrays()
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_d4rl_is_imported_without_simulators(d4rl):
    assert import_d4rl() is d4rl
    assert "mujoco_py" not in sys.modules
    assert not [name for name, module in sys.modules.items() if "d4rl" in name and module is None]


def test_d4rl_reads_every_array(d4rl_arrays, car_circle):
    assert_same(d4rl_arrays, car_circle)


def test_d4rl_gives_whole_episodes_with_costs(d4rl, d4rl_arrays, car_circle):
    episodes = list(d4rl.sequence_dataset(None, dataset=d4rl_arrays))

    assert len(episodes) == car_circle.num_episodes
    table = car_circle.episodes
    for episode, start, length in zip(episodes, table["start"], table["length"], strict=True):
        for name, array in car_circle.to_arrays().items():
            np.testing.assert_array_equal(episode[name], array[start : start + length])


def test_d4rl_takes_our_arrays_from_memory(d4rl, d4rl_arrays, car_circle):
    from_file = d4rl.qlearning_dataset(None, dataset=d4rl_arrays)
    from_memory = d4rl.qlearning_dataset(None, dataset=car_circle.to_arrays())

    for name, array in from_file.items():
        np.testing.assert_array_equal(from_memory[name], array)


def test_d4rl_transitions_are_ours_without_cut_rows(d4rl, d4rl_arrays, car_circle):
    ours = car_circle.to_arrays()
    kept = ~ours["timeouts"]
    kept[-1] = False  # the last row, whatever its flags

    transitions = d4rl.qlearning_dataset(None, dataset=d4rl_arrays)

    assert kept.sum() == 23 - 3 - 1
    for name in ("observations", "actions", "rewards", "terminals"):
        np.testing.assert_array_equal(transitions[name], ours[name][kept])
    # After a termination d4rl shows the next episode's first observation, which it then masks.
    inside = ~transitions["terminals"]
    np.testing.assert_array_equal(
        transitions["next_observations"][inside], ours["next_observations"][kept][inside]
    )
    assert "costs" not in transitions


def test_dsrl_reads_every_array(dsrl_environment, car_circle, tmp_path):
    save_dataset(tmp_path / "plain.h5", car_circle)

    assert_same(dsrl_environment.get_dataset(str(tmp_path / "plain.h5")), car_circle)


def test_dsrl_keeps_every_transition(dsrl_arrays, car_circle):
    assert_same(dsrl_arrays, car_circle)


def test_the_unchanged_task_finds_the_file(dsrl, car_circle, tmp_path):
    """As OSRL's scripts do it: only an environment variable leads to the file."""
    pytest.importorskip("bullet_safety_gym", reason="the task needs the simulator")
    path = to_dsrl(car_circle, tmp_path)
    script = """
import dsrl, gymnasium, numpy
env = gymnasium.make("OfflineCarCircle-v0")
arrays = env.unwrapped.get_dataset()
numpy.savez("read.npz", **{name.replace("/", "|"): array for name, array in arrays.items()})
"""
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"DSRL_DATASET_DIR": str(tmp_path), "DSRL_SUPPRESS_IMPORT_ERROR": "1"},
    )

    assert path.name == "SafetyCarCircle-v0-100-1450.hdf5"
    with np.load(tmp_path / "read.npz") as read:
        assert_same({name.replace("|", "/"): array for name, array in read.items()}, car_circle)


def test_our_names_are_those_of_dsrl(dsrl):
    from dsrl import infos

    names = {url.rsplit("/", 1)[1] for url in infos.DATASET_URLS.values()}
    published = {name for name in names if not name.startswith("SafeMetaDrive")}

    assert {f"{name}.hdf5" for name in REGISTERED_NAMES} == published


def test_osrl_draws_our_transitions(osrl, dsrl_arrays, car_circle):
    ours = car_circle.to_arrays()
    loader = torch.utils.data.DataLoader(
        osrl.TransitionDataset(dsrl_arrays, reward_scale=0.1, state_init=True), batch_size=64
    )

    np.random.seed(0)
    batch = next(iter(loader))
    np.random.seed(0)
    rows = [np.random.choice(23, p=None) for _ in range(64)]

    done = ours["terminals"] | ours["timeouts"]
    first = np.concatenate([[True], done[:-1]])
    expected = (*(ours[name] for name in ARRAYS[:3]), ours["rewards"] * 0.1, ours["costs"])
    for read, array in zip(batch, (*expected, done, first), strict=True):
        np.testing.assert_allclose(read.numpy(), array[rows].astype(np.float32))


def test_osrl_computes_our_returns(osrl, dsrl_arrays, car_circle):
    sequences = osrl.SequenceDataset(dsrl_arrays, seq_len=4)

    table = car_circle.episodes
    assert len(sequences.dataset) == len(table)
    for episode, row in zip(sequences.dataset, table.itertuples(), strict=True):
        rows = slice(row.start, row.start + row.length)
        np.testing.assert_array_equal(episode["observations"], car_circle.observations[rows])
        assert episode["returns"][0] == pytest.approx(row[table.columns.get_loc("return") + 1])
        assert episode["cost_returns"][0] == row.cost
    states, *_, mask, cost, _ = next(iter(sequences))
    assert states.shape == (4, OBSERVATION)
    assert mask.sum() >= 1
    assert cost in set(table["cost"])


def test_osrl_selects_our_safe_episodes(osrl, dsrl_arrays, car_circle):
    limit = car_circle.episodes["cost"].median()
    safe = car_circle.select_episodes(car_circle.episodes["cost"] <= limit)

    osrl.process_bc_dataset(dsrl_arrays, cost_limit=limit, gamma=1.0, bc_mode="safe")

    assert 0 < safe.num_episodes < car_circle.num_episodes
    for name, array in safe.to_arrays().items():
        np.testing.assert_array_equal(dsrl_arrays[name], array)
