import numpy as np
import pytest

from safer_offline.datasets import BehaviorPolicy, BoxSpace, Metadata, OfflineDataset, save_dataset


@pytest.fixture(autouse=True)
def minari_folder(tmp_path, monkeypatch):
    folder = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


@pytest.fixture
def make_arrays():
    """Arrays of whole episodes: the last one terminates, the others time out."""

    def make(lengths=(5, 5, 5, 4), observation_size=3, action_size=2, seed=0, infos=True):
        rng = np.random.default_rng(seed)
        paths = [rng.standard_normal((n + 1, observation_size), np.float32) for n in lengths]
        rows, ends = sum(lengths), np.cumsum(lengths) - 1
        flags = {name: np.zeros(rows, np.bool_) for name in ("terminals", "timeouts")}
        flags["timeouts"][ends[:-1]] = True
        flags["terminals"][ends[-1]] = True
        arrays = {
            "observations": np.concatenate([path[:-1] for path in paths]),
            "next_observations": np.concatenate([path[1:] for path in paths]),
            "actions": rng.uniform(-1, 1, (rows, action_size)).astype(np.float32),
            "rewards": rng.standard_normal(rows, np.float32),
            "costs": rng.integers(0, 2, rows).astype(np.float32),
            **flags,
        }
        if infos:
            episode = np.repeat(np.arange(len(lengths)), lengths)
            arrays["infos/episode_id"] = episode.astype(np.int32)
            arrays["infos/seed"] = 2**40 + episode.astype(np.int64)
            arrays["infos/policy_id"] = (episode % 2).astype(np.int16)
        return arrays

    return make


@pytest.fixture
def metadata():
    return Metadata(
        env_id="SafetyCarCircle-v0",
        env_kwargs={"obstacles": {}},
        max_episode_steps=5,
        observation_space=BoxSpace(low=(-1000.0,) * 3, high=(1000.0,) * 3),
        action_space=BoxSpace(low=(-1.0, -1.0), high=(1.0, 1.0)),
        cost_limit=10.0,
        cost_definition="1 outside |x| <= 6, else 0",
        base_seed=7,
        behavior_policies=(
            BehaviorPolicy(name="broad", share=0.5),
            BehaviorPolicy(name="frontier", share=0.5, parameters={"margin": [0.5, 1.5]}),
        ),
        versions={"numpy": "2.0"},
        created_at="2026-01-01T00:00:00+00:00",
        author="Änne",
        parents=("ab" * 32,),
    )


@pytest.fixture
def dataset(make_arrays, metadata):
    return OfflineDataset.from_arrays(make_arrays(), metadata=metadata)


@pytest.fixture
def file(tmp_path, dataset):
    path = tmp_path / "data.h5"
    save_dataset(path, dataset)
    return path
