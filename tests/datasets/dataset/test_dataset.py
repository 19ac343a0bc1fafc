"""The dataset in memory."""

import dataclasses

import numpy as np
import pytest
import torch

from safer_offline.datasets import OfflineDataset
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.errors import UsageError


def test_tensors_share_memory_with_the_arrays(make_arrays):
    arrays = make_arrays()

    dataset = OfflineDataset.from_arrays(arrays)

    assert dataset.observations.dtype == torch.float32
    assert dataset.terminals.dtype == torch.bool
    for name in ARRAYS:
        assert np.shares_memory(getattr(dataset, name).numpy(), arrays[name])
        assert np.shares_memory(dataset.to_arrays()[name], arrays[name])


def test_sizes(dataset):
    assert (dataset.num_transitions, dataset.num_episodes) == (19, 4)
    assert (dataset.observation_size, dataset.action_size) == (3, 2)


def test_the_table_of_episodes(dataset):
    table = dataset.episodes

    assert table["start"].tolist() == [0, 5, 10, 15]
    assert table["length"].tolist() == [5, 5, 5, 4]
    assert table["terminated"].tolist() == [False, False, False, True]
    assert table["seed"].tolist() == [2**40 + episode for episode in range(4)]
    assert table["behavior"].tolist() == ["broad", "frontier"] * 2
    for episode, start, length in zip(range(4), table["start"], table["length"], strict=True):
        rows = slice(start, start + length)
        assert table["return"][episode] == pytest.approx(dataset.rewards[rows].sum().item())
        assert table["cost"][episode] == dataset.costs[rows].sum().item()


def test_a_bare_dataset_has_neither_seed_nor_behavior(make_arrays):
    table = OfflineDataset.from_arrays(make_arrays(infos=False)).episodes

    assert list(table) == ["start", "length", "return", "cost", "terminated"]


def test_rows_know_their_episode_and_time(dataset):
    assert dataset.episode_index.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 4
    assert dataset.timestep.tolist() == [*range(5)] * 3 + [*range(4)]
    assert dataset.episode_index.dtype == dataset.timestep.dtype == torch.int64


def test_action_bounds_come_from_the_metadata_or_the_data(dataset, make_arrays, metadata):
    space = dataclasses.replace(metadata.action_space, low=(-2.0, -3.0), high=(2.0, 3.0))
    known = dataclasses.replace(dataset, metadata=dataclasses.replace(metadata, action_space=space))
    bare = OfflineDataset.from_arrays(make_arrays())

    assert (known.action_low.tolist(), known.action_high.tolist()) == ([-2, -3], [2, 3])
    assert (bare.action_low.tolist(), bare.action_high.tolist()) == ([-1, -1], [1, 1])


def test_selected_episodes_come_in_the_order_asked_for(dataset):
    dataset = dataclasses.replace(
        dataset, metadata=dataclasses.replace(dataset.metadata, content_sha256="abc")
    )

    selected = dataset.select_episodes([3, 1])

    assert selected.infos["episode_id"].tolist() == [3] * 4 + [1] * 5
    torch.testing.assert_close(selected.rewards[4:], dataset.rewards[5:10])
    assert selected.metadata.parents == ("abc",)
    assert selected.metadata.content_sha256 == ""
    assert selected.metadata.env_id == dataset.metadata.env_id


def test_episodes_are_selected_by_a_condition(dataset):
    cheapest = dataset.episodes["cost"] == dataset.episodes["cost"].min()

    selected = dataset.select_episodes(cheapest)

    assert selected.num_episodes == cheapest.sum()
    assert (selected.episodes["cost"] == dataset.episodes["cost"].min()).all()


@pytest.mark.parametrize(
    ("episodes", "text"),
    [
        ([], "no episode"),
        ([4], "episode 4 .* 0 to 3"),
        ([-1], "episode -1"),
        ([0.5], "1 of float64"),
        ([True], "4 truth values, not by 1 of bool"),
    ],
)
def test_impossible_selections(dataset, episodes, text):
    with pytest.raises(UsageError, match=text):
        dataset.select_episodes(episodes)


def test_joining_the_parts_gives_the_whole(dataset):
    parts = [dataset.select_episodes([0, 1]), dataset.select_episodes([2, 3])]

    whole = OfflineDataset.concatenate(parts)

    for name, array in dataset.to_arrays().items():
        np.testing.assert_array_equal(whole.to_arrays()[name], array)
    assert whole.metadata.behavior_policies == dataset.metadata.behavior_policies


def test_joining_keeps_only_what_the_parts_agree_on(dataset, metadata):
    other = dataclasses.replace(
        dataset,
        metadata=dataclasses.replace(metadata, base_seed=8, behavior_policies=()),
        infos={"episode_id": dataset.infos["episode_id"], "policy_id": dataset.infos["policy_id"]},
    )

    joint = OfflineDataset.concatenate([dataset, other])

    assert list(joint.infos) == ["episode_id"]
    assert joint.infos["episode_id"][-1] == 7
    assert joint.metadata.base_seed is None
    assert joint.metadata.cost_limit == 10


def test_what_cannot_be_joined(dataset, make_arrays, metadata):
    wider = OfflineDataset.from_arrays(make_arrays(observation_size=4))
    elsewhere = dataclasses.replace(dataset, metadata=dataclasses.replace(metadata, env_id="B"))
    for parts, text in (
        ([], "no datasets"),
        ([dataset, wider], r"observation_size: \[3, 4\]"),
        ([dataset, elsewhere], "environments: B, SafetyCarCircle-v0"),
    ):
        with pytest.raises(UsageError, match=text):
            OfflineDataset.concatenate(parts)


def test_importing_datasets_does_not_import_the_simulator():
    import subprocess
    import sys

    script = "import sys, safer_offline.datasets as d; dir(d); " + (
        "from safer_offline.datasets import load_dataset; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "safer_offline.datasets.storage.hdf5" in loaded
    assert not {
        "pybullet",
        "bullet_safety_gym",
        "safer_offline.environments.bullet.simulated",
        "minari",
    } & {*loaded}
