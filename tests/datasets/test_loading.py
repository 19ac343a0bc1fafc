"""One way in: whatever a dataset is, `load_dataset` takes it, and so does `train`."""

import minari
import numpy as np
import pytest
import torch

import safer_offline
from safer_offline import SAFERConfig, train
from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset, to_minari
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.larger_than_memory.cache import CachedDataset
from safer_offline.errors import DataError, UsageError


@pytest.fixture
def file(tmp_path, dataset):
    save_dataset(tmp_path / "d.h5", dataset)
    return tmp_path / "d.h5"


def seven(dataset):
    return {name: getattr(dataset, name).numpy() for name in ARRAYS}


def test_every_kind_of_source_gives_the_same_rows(file, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    to_minari(dataset, "own/d-v0")
    sources = [
        file, str(file), dataset, seven(dataset), "own/d-v0", minari.load_dataset("own/d-v0"),
        {name: array.tolist() for name, array in seven(dataset).items()},
    ]  # fmt: skip
    for source in sources:
        loaded = load_dataset(source)
        assert isinstance(loaded, OfflineDataset)
        assert torch.equal(loaded.observations, dataset.observations)
        assert torch.equal(loaded.costs, dataset.costs)
    assert load_dataset(dataset) is dataset


def test_some_episodes_of_minari(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    to_minari(dataset, "own/d-v0")
    some = minari.load_dataset("own/d-v0").filter_episodes(lambda episode: episode.id == 1)
    assert torch.equal(load_dataset(some).rewards, dataset.select_episodes([1]).rewards)


def test_with_little_memory_a_file_is_read_from_a_cache(file, tmp_path):
    cached = load_dataset(file, max_memory="1kB", cache_dir=tmp_path / "cache", progress=False)
    assert isinstance(cached, CachedDataset)
    assert cached.fingerprint() == load_dataset(file).fingerprint()
    assert load_dataset(cached) is cached
    assert isinstance(load_dataset(file, max_memory="auto"), OfflineDataset)


@pytest.mark.parametrize("source", [None, 3, object(), ["a.h5"]])
def test_anything_else_is_refused_in_a_sentence(source):
    with pytest.raises(UsageError, match="a dataset is given as a file, an id of Minari"):
        load_dataset(source)


def test_arrays_are_checked(dataset):
    arrays = seven(dataset)
    arrays["costs"] = -np.ones_like(arrays["costs"])
    with pytest.raises(DataError, match="costs"):
        load_dataset(arrays)
    del arrays["costs"]
    with pytest.raises(DataError, match="costs"):
        load_dataset(arrays)
    with pytest.raises(UsageError, match="max_memory and cache_dir"):
        load_dataset("own/d-v0", max_memory=10)


def test_the_constructor_makes_tensors_of_arrays_and_refuses_what_are_none(dataset):
    made = OfflineDataset(**seven(dataset))
    assert isinstance(made.costs, torch.Tensor)
    assert made.terminals.dtype == torch.bool
    assert torch.equal(made.observations, dataset.observations)
    with pytest.raises(UsageError, match="rewards must be an array of numbers"):
        OfflineDataset(**seven(dataset) | {"rewards": "many"})
    with pytest.raises(UsageError, match="as a dict"):
        OfflineDataset.from_arrays([1, 2])


def test_length_and_a_short_repr(dataset):
    assert len(dataset) == dataset.num_transitions
    text = repr(dataset)
    assert "\n" not in text
    assert len(text) < 150
    assert f"{dataset.num_episodes} episodes" in text


SMALL = SAFERConfig(
    cost_limit=1e6, hidden_sizes=(8,), batch_size=8, recovery_states=8, candidates=2
)


def test_training_takes_what_loading_takes(file, dataset, tmp_path):
    policies = []
    for place, source in enumerate((file, str(file), dataset, seven(dataset))):
        run = train(SMALL, source, out=tmp_path / str(place), steps=2, progress=False)
        policies.append(run.policy.state_dict())
    for other in policies[1:]:
        assert all(torch.equal(policies[0][name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"config": SAFERConfig}, "not the class SAFERConfig"),
        ({"config": {"cost_limit": 1}}, "not dict"),
        ({"dataset": None}, "not as nothing"),
        ({"out": None}, "out must be the path"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": "0"}, "seed must be a whole number"),
        ({"algorithm": 3}, "is no algorithm"),
    ],
)
def test_wrong_types_get_a_sentence(dataset, tmp_path, wrong, text):
    given = {"config": SMALL, "dataset": dataset, "out": tmp_path / "r", "steps": 2} | wrong
    config, data = given.pop("config"), given.pop("dataset")
    with pytest.raises(UsageError, match=text):
        train(config, data, **given, progress=False)
    assert not (tmp_path / "r").exists()


def test_dir_shows_the_public_names_alone():
    public = {name for name in dir(safer_offline) if not name.startswith("__")}
    assert public == set(safer_offline.__all__)
    assert {"train", "evaluate", "load_dataset"} <= public


def test_what_nobody_needs_in_a_dict_is_left_out(make_arrays):
    arrays = make_arrays(infos=False)
    infos = {"robot": {"qpos": np.zeros((19, 2))}, "label": ["x"] * 19, "short": np.zeros(3)}
    odd = {"infos": infos, "metadata/algorithm": "SAC", "cost": np.zeros(19), "infos/version": 3}

    with pytest.warns(UserWarning, match="not read: ") as caught:
        dataset = load_dataset(arrays | odd)

    assert set(dataset.infos) == {"robot/qpos"}
    told = str(caught[0].message)
    for name in ("infos/label", "infos/short", "metadata/algorithm", "cost", "infos/version"):
        assert f"{name} (" in told
