"""Exchange with Minari, read and written by Minari itself."""

import dataclasses
import json

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from safer_offline.datasets import OfflineDataset, from_minari, to_minari
from safer_offline.datasets.formats.minari import find_minari_problems
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
    with pytest.raises(UsageError, match=r"no Minari dataset id.*bullet/car-circle/mixed-v1"):
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

    with pytest.warns(UserWarning, match="not read, because they are no numbers.*infos label$"):
        dataset = from_minari("foreign-v0")

    assert dataset.costs.tolist() == [1, 2, 3]
    assert dataset.timeouts.tolist() == [False, False, True]
    assert dataset.next_observations.tolist() == [[2, 3], [4, 5], [6, 7]]
    assert list(dataset.infos) == ["seed"]
    assert dataset.infos["seed"].tolist() == [5, 5, 5]
    assert dataset.metadata.action_space.high == (1.0,)


@pytest.mark.filterwarnings("ignore:.*not read, because")
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"infos": {}}, "'infos/cost': there are no costs"),
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

    with pytest.raises(DataError, match=r"main_data.hdf5: the file is cut short.*\n.*anew"):
        from_minari("own-v0")


DISTURBANCES = {
    "empty": ("", "metadata.json is empty"),
    "braces": ("{}", "metadata.json is empty"),
    "cut": ('{"data_format": "hd', "metadata.json cannot be understood"),
    "mark": (None, None),
}


@pytest.mark.parametrize("how", DISTURBANCES)
def test_metadata_that_minari_cannot_read(minari_folder, how, recwarn):
    foreign()
    file = minari_folder / "foreign-v0" / "data" / "metadata.json"
    content, text = DISTURBANCES[how]
    if content is None:  # as an editor on Windows saves it
        file.write_text(file.read_text(), encoding="utf-8-sig")
    else:
        file.write_text(content)
    with pytest.raises((ValueError, KeyError, AssertionError)):
        minari.load_dataset("foreign-v0")
    recwarn.clear()

    assert from_minari("foreign-v0").costs.tolist() == [1, 2, 3]

    told = " ".join(str(entry.message) for entry in recwarn)
    assert (text or "infos label") in told
    if text:
        assert text in " ".join(problem.problem for problem in find_minari_problems("foreign-v0"))
        assert all(problem.severity == "warning" for problem in find_minari_problems("foreign-v0"))


def edit_metadata(folder, **entries):
    file = folder / "foreign-v0" / "data" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.filterwarnings("ignore:.*not read, because")
def test_a_space_that_minari_does_not_know(minari_folder):
    foreign()
    edit_metadata(minari_folder, observation_space=json.dumps({"type": "Hypersphere", "n": 3}))
    with pytest.raises(TypeError):
        minari.load_dataset("foreign-v0")

    with pytest.warns(UserWarning, match="does not know the observation_space .*Hypersphere"):
        dataset = from_minari("foreign-v0")

    assert dataset.next_observations.tolist() == [[2, 3], [4, 5], [6, 7]]
    assert dataset.metadata.observation_space is None
    assert dataset.metadata.action_space.high == (1.0,)


@pytest.mark.filterwarnings("ignore:.*not read, because")
def test_a_specification_of_another_gymnasium(minari_folder):
    foreign()
    spec = {
        "id": "Own-v3",
        "entry_point": "own:Env",
        "max_episode_steps": 3,
        "future_entry": {},
        "additional_wrappers": [],
    }
    edit_metadata(minari_folder, env_spec=json.dumps(spec), eval_env_spec=json.dumps(spec))
    with pytest.raises(ValueError, match="EnvSpec"):
        minari.load_dataset("foreign-v0")

    metadata = from_minari("foreign-v0").metadata

    assert (metadata.env_id, metadata.max_episode_steps) == ("Own-v3", 3)
    assert metadata.env_spec == spec


@pytest.mark.filterwarnings("ignore:.*not read, because")
@pytest.mark.parametrize("spec", ["{", "7", {"id": "x"}])
def test_a_specification_that_nobody_understands(minari_folder, spec):
    foreign()
    edit_metadata(minari_folder, env_spec=spec)

    with pytest.warns(UserWarning, match="specification cannot be understood, and is left out"):
        metadata = from_minari("foreign-v0").metadata

    assert metadata.env_spec is None


def test_a_specification_that_cannot_be_exported_is_left_out(dataset, metadata):
    spec = {"id": "Own-v3", "entry_point": "own:Env", "additional_wrappers": "not a list of any"}
    odd = dataclasses.replace(dataset, metadata=dataclasses.replace(metadata, env_spec=spec))

    with pytest.warns(UserWarning, match="does not understand"):
        to_minari(odd, ID)

    assert minari.load_dataset(ID).spec.env_spec is None
    assert from_minari(ID).metadata.env_spec == spec


def test_infos_within_infos_come_back(dataset, make_arrays):
    robot = np.arange(57.0).reshape(19, 3)
    nested = dataclasses.replace(
        dataset, infos={**dataset.infos, "robot/arm/q": robot, "robot/speed": robot[:, 0]}
    )

    to_minari(nested, ID)

    first = next(iter(minari.load_dataset(ID).iterate_episodes()))
    np.testing.assert_array_equal(first.infos["robot"]["arm"]["q"][1:], robot[:5])
    back = from_minari(ID)
    assert back.infos.keys() == nested.infos.keys()
    np.testing.assert_array_equal(back.infos["robot/arm/q"], robot)


def test_infos_that_cannot_be_kept_are_named():
    foreign(infos={"cost": np.zeros(4), "robot": {"name": np.array([b"x"] * 4), "q": np.zeros(2)}})

    with pytest.warns(UserWarning, match="infos robot/name, robot/q$"):
        from_minari("foreign-v0")
    problems = find_minari_problems("foreign-v0")
    assert any("robot/name, robot/q" in problem.problem for problem in problems)


def test_costs_of_another_name():
    foreign(infos={"safety": {"constraint_cost": np.arange(4.0)}, "fuel": np.zeros(4)})

    with pytest.raises(DataError, match=r"infos: fuel, safety/constraint_cost\).*\n.*foreign-v0 "
                       "--cost-from safety/constraint_cost --to"):  # fmt: skip
        from_minari("foreign-v0")
    with pytest.raises(UsageError, match="no info 'costs'; it has fuel, safety/constraint_cost"):
        from_minari("foreign-v0", cost_from="costs")
    with pytest.raises(UsageError, match="exclude each other"):
        from_minari("foreign-v0", cost_from="fuel", zero_costs=True)
    with pytest.warns(UserWarning, match="costs taken from the info 'safety/constraint_cost'"):
        dataset = from_minari("foreign-v0", cost_from="infos/safety/constraint_cost")

    assert dataset.costs.tolist() == [1, 2, 3]
    assert dataset.metadata.cost_definition == "the info 'safety/constraint_cost'"
    assert "Changed on import: costs taken" in dataset.metadata.description
    with pytest.warns(UserWarning, match="all costs are 0"):
        assert not from_minari("foreign-v0", zero_costs=True).costs.any()


@pytest.mark.filterwarnings("ignore:.*not read, because")
def test_costs_have_one_source():
    foreign()

    for options in ({"cost_from": "label"}, {"zero_costs": True}):
        with pytest.raises(UsageError, match="holds costs already"):
            from_minari("foreign-v0", **options)
    assert from_minari("foreign-v0", cost_from="cost").costs.tolist() == [1, 2, 3]


def test_discrete_actions_say_so(minari_folder):
    foreign(actions=np.array([0, 1, 2]))

    with pytest.raises(DataError, match=r"'actions': .*discrete actions, for which there is no"):
        from_minari("foreign-v0")


def test_damaged_metadata_are_named(dataset, minari_folder):
    to_minari(dataset, "own-v0")
    file = minari_folder / "own-v0" / "data" / "metadata.json"
    content = json.loads(file.read_text())
    content["safer_offline"]["base_seed"] = "x"
    file.write_text(json.dumps(content))

    with pytest.raises(DataError, match="own-v0, 'base_seed'"):
        from_minari("own-v0")
