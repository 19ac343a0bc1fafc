"""What every registered algorithm must do, whatever it learns by."""

import copy

import numpy as np
import pytest
import torch

from safer_offline import load_policy, train
from safer_offline.attacks import GeneratorNoise, resolve_attacks
from safer_offline.datasets import save_dataset
from safer_offline.datasets.larger_than_memory.cache import open_cached
from safer_offline.errors import DataError, SaferOfflineError
from safer_offline.learners import ALGORITHMS
from safer_offline.settings import settings_of

SMALL = {
    "hidden_sizes": (16, 16),
    "critic_hidden_sizes": (16, 16),
    "vae_hidden_size": 16,
    "sampled_actions": 3,
    "batch_size": 32,
    "cost_limit": 2.0,
}
WITH_CRITICS = ("cpq", "bcq-lag", "bear-lag", "coptidice")


def small(name, **settings):
    """A configuration under which a step takes little time."""
    kind = ALGORITHMS.get(name).Config
    known = settings_of(kind)
    return kind(**{key: value for key, value in (SMALL | settings).items() if key in known})


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "safer"])
def test_a_state_goes_on_where_it_was_taken_and_a_seed_repeats(points, name):
    def learner():
        return ALGORITHMS.get(name)(small(name), points, steps=12, seed=3)

    whole, half, resumed = learner(), learner(), learner()
    for _ in range(5):
        half.update()
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    for one in (whole, half, resumed):
        while one.step < 12:
            one.update()
    wanted = whole.policy().state_dict()
    for one in (half, resumed):
        found = one.policy().state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_data_on_disk_give_the_policy_of_memory(points, tmp_path, name):
    file = tmp_path / "points.h5"
    save_dataset(file, points)
    states = []
    for data in (points, open_cached(file)):
        learner = ALGORITHMS.get(name)(small(name), data, steps=4, seed=0)
        for _ in range(4):
            learner.update()
        states.append(learner.policy().state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_setting_is_explained(name):
    unexplained = [s.name for s in settings_of(ALGORITHMS.get(name).Config).values()
                   if not s.explanation]  # fmt: skip
    assert not unexplained


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_its_policy_file_acts_and_can_be_attacked(points, tmp_path, name):
    run = train(small(name), points, out=tmp_path, algorithm=name, steps=30, progress=False)
    policy = load_policy(tmp_path)
    assert policy.fingerprint == run.policy.fingerprint
    assert policy.critics == ("reward", "cost")
    observations = points.observations[:50]
    actions = policy.predict(observations.numpy())
    torch.manual_seed(0)
    for given in (actions, policy.predict(observations.numpy(), deterministic=False)):
        assert (np.abs(given) <= 1).all()
    assert not np.array_equal(given, actions)
    epsilon = torch.full((2,), 0.1)
    for attack in resolve_attacks("mad,mc,mr", critics=policy.critics):
        noise = GeneratorNoise(torch.Generator().manual_seed(0))
        attacked = attack.perturb(policy, observations, epsilon=epsilon, noise=noise)
        value = attack.objective(policy, observations)
        assert value(attacked).mean() > value(observations).mean()


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_data_without_costs_are_refused_with_a_remedy(make_points, name):
    free = make_points(lanes=(-0.6,))
    with pytest.raises(DataError, match=r"no step costs anything[\s\S]*--algorithm bc"):
        ALGORITHMS.get(name)(small(name), free, steps=5, seed=0)


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_what_diverges_stops_the_run_by_name(points, tmp_path, name):
    config = small(name, critic_rate=1e30)
    with pytest.raises(SaferOfflineError, match=r"the loss '.*' became .* before step 100"):
        train(config, points, out=tmp_path, algorithm=name, steps=100, progress=False)
