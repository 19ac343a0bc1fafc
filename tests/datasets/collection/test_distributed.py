"""Collection on a Ray cluster: the same shards, whoever collects them."""

import dataclasses
import sys

import pytest

from safer_offline.datasets import load_dataset
from safer_offline.datasets.collection.cluster import collect_on_ray, shard_bytes
from safer_offline.datasets.collection.collector import collect
from safer_offline.datasets.collection.recipe import load_recipe
from safer_offline.datasets.collection.shards import CollectionPlan, collect_shard, shard_path
from safer_offline.errors import SaferOfflineError, UsageError

RECIPE = dataclasses.replace(load_recipe("ball-run"), transitions=500, seed=2)
PLAN = dataclasses.replace(CollectionPlan.make(RECIPE), shard_transitions=200)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine, as a user may have started one."""
    ray = pytest.importorskip("ray")
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture
def attached(cluster, monkeypatch):
    """Collection finds the cluster started, and must not end it."""
    import ray

    monkeypatch.setattr(ray, "init", lambda **settings: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return cluster


def test_the_same_content_as_collected_here(attached, tmp_path):
    there = collect(RECIPE, tmp_path / "there.h5", ray=attached, progress=False)
    here = collect(RECIPE, tmp_path / "here.h5", workers=1, progress=False)
    assert there.metadata.content_sha256 == here.metadata.content_sha256
    assert load_dataset(tmp_path / "there.h5").metadata == there.metadata
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.h5", "there.h5"]


def test_only_what_is_missing_is_collected(attached, tmp_path):
    assert PLAN.shards == (200, 200, 100)
    finished = list(collect_on_ray(PLAN, [0, 2], tmp_path, address=attached))
    assert sorted(finished) == [0, 2]
    for number in finished:
        shard = load_dataset(shard_path(tmp_path, number))
        assert (shard.actions == collect_shard(PLAN, number).actions).all()
    assert not shard_path(tmp_path, 1).exists()


def test_a_machine_with_other_versions_is_refused(attached, tmp_path):
    other = dataclasses.replace(PLAN, versions=(("numpy", "1.0"),))
    with pytest.raises(SaferOfflineError, match=r"shard 1 failed.*numpy"):
        list(collect_on_ray(other, [1], tmp_path, address=attached))
    assert not list(tmp_path.iterdir())


def test_the_bytes_of_a_shard_are_its_file(tmp_path):
    path = tmp_path / "shard.h5"
    path.write_bytes(shard_bytes(PLAN, 1))
    assert (load_dataset(path).actions == collect_shard(PLAN, 1).actions).all()


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'safer-offline\[ray\]'"):
        collect(RECIPE, tmp_path / "data.h5", ray="local", progress=False)


def test_where_there_is_no_cluster_it_says_so(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="no Ray cluster at nonsense"):
        list(collect_on_ray(PLAN, [0], tmp_path, address="nonsense"))
