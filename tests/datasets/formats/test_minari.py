"""Exchange with Minari, read and written by Minari itself."""

import dataclasses
import json

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from safer_offline.datasets import OfflineDataset, from_minari, to_minari
from safer_offline.errors import DataError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.*")

ID = "bullet/car-circle/mixed-v0"
SPEC = {
    "id": "SafetyCarCircle-v0",
    "entry_point": "bullet_safety_gym.envs.builder:EnvironmentBuilder",
    "max_episode_steps": 5,
    "a_key_of_another_version": True,
}


def foreign(dataset_id="foreign-v0", steps=3, **changes):
    """A dataset that somebody else wrote with Minari."""
    episode = {
        "observations": np.arange(2.0 * (steps + 1)).reshape(-1, 2),
        "actions": np.zeros((steps, 1)),
        "rewards": np.ones(steps),
        "terminations": np.zeros(steps, bool),
        "truncations": np.zeros(steps, bool),
        "infos": {"cost": np.arange(steps + 1.0), "label": np.array([b"x"] * (steps + 1))},
        "seed": 5,
    }
    return minari.create_dataset_from_buffers(
        dataset_id,
        [EpisodeBuffer(**episode | changes)],
        observation_space=gymnasium.spaces.Box(-9, 9, (2,)),
        action_space=gymnasium.spaces.Box(-1, 1, (1,)),
    )


def test_the_round_trip_loses_nothing(dataset, metadata, minari_folder):
    original = dataclasses.replace(dataset, metadata=dataclasses.replace(metadata, env_spec=SPEC))

    assert to_minari(original, ID) == minari_folder / ID
    back = from_minari(ID)

    assert back.metadata == original.metadata
    arrays = back.to_arrays()
    assert arrays.keys() == original.to_arrays().keys()
    for name, array in original.to_arrays().items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_minari_reads_the_export(dataset, metadata):
    spec = dataclasses.replace(metadata, env_spec=SPEC)
    to_minari(dataclasses.replace(dataset, metadata=spec), ID, author="A", description="D")

    read = minari.load_dataset(ID)

    assert list(minari.list_local_datasets()) == [ID]
    assert (read.total_episodes, read.total_steps) == (4, 19)
    assert read.spec.env_spec.id == "SafetyCarCircle-v0"
    assert read.observation_space.shape == (3,)
    assert (read.action_space.low == -1).all()
    assert read.storage.metadata["author"] == {"A"}
    assert read.storage.metadata["algorithm_name"] == "broad, frontier"
    seeds = [entry["seed"] for entry in read.storage.get_episode_metadata(range(4))]
    assert seeds == dataset.episodes["seed"].tolist()
    for episode, start, length in zip(
        read.iterate_episodes(), dataset.episodes["start"], dataset.episodes["length"], strict=True
    ):
        rows = slice(start, start + length)
        assert len(episode.observations) == length + 1
        assert len(episode.infos["cost"]) == length + 1
        assert episode.infos["cost"][0] == 0
        np.testing.assert_array_equal(episode.infos["cost"][1:], dataset.costs[rows])
        np.testing.assert_array_equal(episode.actions, dataset.actions[rows])
        np.testing.assert_array_equal(episode.observations[1:], dataset.next_observations[rows])


def test_a_dataset_without_metadata_is_exported(make_arrays):
    to_minari(OfflineDataset.from_arrays(make_arrays(infos=False)), "own-v3")

    assert from_minari("own-v3").num_transitions == 19
    assert minari.load_dataset("own-v3").spec.env_spec is None


def test_an_existing_dataset_is_left_alone(dataset, minari_folder):
    to_minari(dataset, ID)
    before = (minari_folder / ID / "data" / "main_data.hdf5").read_bytes()

    with pytest.raises(UsageError, match=r"exists already.*bullet/car-circle/mixed-v1"):
        to_minari(dataset.select_episodes([0]), ID)

    assert (minari_folder / ID / "data" / "main_data.hdf5").read_bytes() == before


def test_a_failed_export_leaves_nothing_behind(dataset, minari_folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(minari, "create_dataset_from_buffers", fail)
    with pytest.raises(DataError, match=r"mixed-v0: .*No space left.*\n.*room"):
        to_minari(dataset, ID)

    assert list(minari_folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["mixed", "a/mixed-v0", "Mixed v0", "../up-v0", "/abs-v0", "a.b-v0", "x-v", ""]
)
def test_malformed_ids(dataset, name):
    with pytest.raises(UsageError, match=r"no Minari dataset id.*bullet/car-circle/mixed-v0"):
        to_minari(dataset, name)
    with pytest.raises(UsageError, match="no Minari dataset id"):
        from_minari(name)


def test_a_missing_dataset_names_the_nearest(dataset):
    with pytest.raises(UsageError, match="nor any other"):
        from_minari("bullet/car-circle/mixed-v1")
    to_minari(dataset, ID)
    with pytest.raises(UsageError, match=f"did you mean '{ID}'"):
        from_minari("bullet/car-circle/mixed-v1")


def test_gaps_within_an_episode_cannot_be_exported(dataset, minari_folder):
    dataset.next_observations[6] += 1e-6

    with pytest.raises(DataError, match="'next_observations', row 6: differs"):
        to_minari(dataset, ID)
    assert list(minari_folder.iterdir()) == []


def test_an_info_that_would_hide_the_costs_cannot_be_exported(dataset):
    clash = dataclasses.replace(dataset, infos={"cost": dataset.costs.numpy()})

    with pytest.raises(DataError, match=r"infos/cost.*\n.*rename"):
        to_minari(clash, ID)


def test_a_foreign_dataset_is_imported():
    foreign()

    dataset = from_minari("foreign-v0")

    assert dataset.costs.tolist() == [1, 2, 3]
    assert dataset.timeouts.tolist() == [False, False, True]
    assert dataset.next_observations.tolist() == [[2, 3], [4, 5], [6, 7]]
    assert list(dataset.infos) == ["seed"]
    assert dataset.infos["seed"].tolist() == [5, 5, 5]
    assert dataset.metadata.action_space.high == (1.0,)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"infos": {}}, "'infos/cost': in episode 0 there are no costs"),
        ({"infos": {"cost": np.zeros(3)}}, "3 costs for 3 steps"),
        ({"infos": {"cost": np.full(4, -1.0)}}, "'costs', row 0: .*negative"),
        ({"observations": np.zeros((3, 2))}, r"'observations': in episode 0 there is \(3, 2\)"),
        ({"actions": np.zeros((3, 1, 1))}, "'actions': in episode 0"),
        ({"actions": np.full((3, 1), 2.0)}, "'actions', row 0: the action 2"),
    ],
)
def test_foreign_datasets_that_cannot_be_used(changes, text):
    foreign(**changes)

    with pytest.raises(DataError, match=text) as caught:
        from_minari("foreign-v0")
    assert caught.value.remedy


def test_a_damaged_dataset_is_named(dataset, minari_folder):
    to_minari(dataset, "own-v0")
    file = minari_folder / "own-v0" / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:-5000])

    with pytest.raises(DataError, match=r"own-v0: Minari cannot read.*\n.*anew"):
        from_minari("own-v0")


def test_damaged_metadata_are_named(dataset, minari_folder):
    to_minari(dataset, "own-v0")
    file = minari_folder / "own-v0" / "data" / "metadata.json"
    content = json.loads(file.read_text())
    content["safer_offline"]["base_seed"] = "x"
    file.write_text(json.dumps(content))

    with pytest.raises(DataError, match="own-v0, 'base_seed'"):
        from_minari("own-v0")
