"""Metadata and their attributes."""

import json

import gymnasium
import numpy as np
import pytest

from safer_offline.datasets import BoxSpace, Metadata
from safer_offline.errors import DataError


def test_metadata_survive_their_attributes(metadata):
    attributes = metadata.to_attributes()

    assert all(isinstance(value, str | int | float) for value in attributes.values())
    assert Metadata.from_attributes(attributes) == metadata


def test_unknown_metadata_leave_only_the_schema():
    assert Metadata().to_attributes() == {"schema": "safer-offline/1"}


@pytest.mark.parametrize("schema", [None, "other/3", 5, np.array(["safer-offline/1"])])
def test_attributes_of_others_are_ignored(schema):
    assert Metadata.from_attributes({"schema": schema, "author": 3.0}) == Metadata()


def test_a_later_minor_version_is_read_and_strange_attributes_are_skipped():
    attributes = {"schema": "safer-offline/1.3", "env_id": "E", "invented_later": "x"}

    assert Metadata.from_attributes(attributes).env_id == "E"


def test_another_major_version_is_refused():
    with pytest.raises(DataError, match=r"a\.h5, 'schema'.*safer-offline/2.*\n.*update"):
        Metadata.from_attributes({"schema": "safer-offline/2"}, path="a.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("versions", "{not json"),
        ("versions", "[]"),
        ("env_spec", "3"),
        ("action_space", '{"low": [1]}'),
        ("action_space", '{"low": [1], "high": [1, 2]}'),
        ("behavior_policies", '[{"name": "x", "surprise": 1}]'),
        ("max_episode_steps", "300"),
        ("cost_limit", float("nan")),
        ("env_id", None),
        ("author", b"\xff"),
        ("versions", "[" * 100_000),
    ],
)
def test_an_attribute_that_breaks_its_promise_is_named(name, value):
    with pytest.raises(DataError, match=rf"a\.h5, '{name}': .*cannot be understood") as caught:
        Metadata.from_attributes({"schema": "safer-offline/1", name: value}, path="a.h5")
    assert "Remedy" in str(caught.value)


def test_an_attribute_too_large_for_hdf5_is_refused():
    with pytest.raises(DataError, match=r"'command': .*65001 bytes.*64000.*\n.*shorten"):
        Metadata(command="x" * 65_001).to_attributes()


def test_a_box_comes_from_gymnasium_and_reads_like_minari_writes_it():
    minari = pytest.importorskip("minari.serialization")
    box = gymnasium.spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))

    space = BoxSpace.from_gymnasium(box)

    assert space == BoxSpace(low=(-1.0, -2.0), high=(1.0, 2.0))
    assert minari.deserialize_space(space.to_json()) == box


def test_what_a_later_version_says_of_a_policy_is_passed_over(metadata):
    attributes = metadata.to_attributes()
    policies = json.loads(attributes["behavior_policies"])
    policies[0]["mood"] = "bold"
    attributes["behavior_policies"] = json.dumps(policies)
    assert Metadata.from_attributes(attributes) == metadata
