"""What every registered algorithm must do, whatever it learns by."""

import copy

import numpy as np
import pytest
import torch

from safer_offline import load_policy, train
from safer_offline.attacks import MAD, GeneratorNoise, RowNoise, resolve_attacks
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
    "candidates": 4,
    "cost_limit": 2.0,
    "width": 20.0,
}
WITH_CRITICS = ("cpq", "bcq-lag", "bear-lag", "coptidice", "caps", "fisor", "safer-paper")
ROBUST_EXTRACTION = ("cpq", "bear-lag", "coptidice", "caps", "fisor")
"""Those whose critics or weights improve a policy that can be made robust."""

GAUSSIAN = {"actor": "gaussian"}
"""The kind of FISOR's policy that can."""


def small(name, **settings):
    """A configuration under which a step takes little time."""
    kind = ALGORITHMS.get(name).Config
    known = settings_of(kind)
    return kind(**{key: value for key, value in (SMALL | settings).items() if key in known})


@pytest.mark.parametrize("rho", [0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "safer"])
def test_a_state_goes_on_where_it_was_taken_and_a_seed_repeats(points, name, rho):
    config = small(name, adversarial_weight=rho, **(GAUSSIAN if rho else {}))

    def learner():
        return ALGORITHMS.get(name)(config, points, steps=12, seed=3)

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


def attacked_actions(learner, points):
    """How far MAD moves the mean action, on average."""
    victim, observations = learner.policy(), points.observations[:200]
    attacked = MAD(steps=10, restarts=2).perturb(
        victim,
        observations,
        epsilon=torch.full((2,), 0.3),
        noise=RowNoise.seeded(0, "mad", range(200)),
    )
    clean, moved = (victim.action_distribution(x)[0] for x in (observations, attacked))
    return float((clean - moved).norm(dim=1).mean())


@pytest.mark.parametrize("name", ROBUST_EXTRACTION)
def test_a_smooth_policy_is_moved_less(points, name):
    moved = []
    for rho in (0.0, 10.0):
        settings = {
            "epsilon": 0.3,
            "ramp_share": 0.0,
            "robustness": "kl",
            "actor_rate": 1e-3,
        } | GAUSSIAN
        config = small(name, adversarial_weight=rho, **settings)
        learner = ALGORITHMS.get(name)(config, points, steps=200, seed=0)
        for _ in range(200):
            learner.update()
        moved.append(attacked_actions(learner, points))
    assert moved[1] < 0.8 * moved[0]


@pytest.mark.parametrize("name", ROBUST_EXTRACTION)
@pytest.mark.parametrize("robustness", ["attack", "noise", "kl"])
def test_what_attacked_observations_add_is_weighed(points, name, robustness):
    """The same batch, noise and attack, half as much again of what they add."""
    losses = []
    for rho in (0.0, 1.0, 1.5):
        settings = {"robustness": robustness, "ramp_share": 0.0} | GAUSSIAN
        config = small(name, adversarial_weight=rho, **settings)
        learner = ALGORITHMS.get(name)(config, points, steps=10, seed=0)
        losses.append(float(learner.update()["actor"]))
    assert losses[1] != losses[0]
    assert losses[2] - losses[0] == pytest.approx(1.5 * (losses[1] - losses[0]), rel=2e-2)


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_data_without_costs_are_refused_with_a_remedy(make_points, name):
    free = make_points(lanes=(-0.6,))
    with pytest.raises(DataError, match=r"no step costs anything[\s\S]*--algorithm bc"):
        ALGORITHMS.get(name)(small(name), free, steps=5, seed=0)


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_what_diverges_stops_the_run_by_name(points, tmp_path, name):
    config = small(name, critic_rate=1e30)
    with pytest.raises(SaferOfflineError, match=r"the loss '.*' became .* before step \d+"):
        train(config, points, out=tmp_path, algorithm=name, steps=100, progress=False)
