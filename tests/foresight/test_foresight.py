"""Episodes foreseen in models of the data, beside those of the world that the data come from."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from safer_offline.attacks import make_attack
from safer_offline.datasets import OfflineDataset
from safer_offline.datasets.dataset.sampling import MemoryTable
from safer_offline.errors import UsageError
from safer_offline.foresight import DynamicsConfig, fit_dynamics, foresee, foresee_episodes
from safer_offline.foresight.estimate import attacks_for, disagreement_on_data
from safer_offline.foresight.model import transitions_of, usual_changes
from safer_offline.foresight.worst_bias import worst_bias
from safer_offline.learners import SAFER
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy

CONFIG = DynamicsConfig(steps=1_500, hidden_sizes=(64, 64))
BORDER, LENGTH = 0.5, 20


class Lane(torch.nn.Module):
    """Runs along a lane at a speed, as the drivers of the data do."""

    targets = ()

    def __init__(self, lane, speed, gain=1.0):
        super().__init__()
        self.lane, self.speed, self.gain = lane, speed, gain

    def forward(self, observations):
        pull = (self.gain * (self.lane - observations[:, :1])).clamp(-1, 1)
        mean = torch.cat([pull, torch.full_like(pull, self.speed)], dim=1)
        return mean, torch.full_like(mean, 0.05)

    @property
    def observations(self):
        return type("Scale", (), {"std": torch.ones(2)})


def driver(*arguments, cost_limit=2.0):
    info = PolicyInfo(
        algorithm="lane", observation_size=2, action_size=2, cost_limit=cost_limit, critics=()
    )
    policy = TrainedPolicy.__new__(TrainedPolicy)
    torch.nn.Module.__init__(policy)
    policy.info, policy.actor = info, Lane(*arguments)
    policy.reward_critic = policy.cost_critic = None
    return policy


@pytest.fixture(scope="module")
def data(make_points):
    return make_points(episodes=120)


@pytest.fixture(scope="module")
def model(data):
    return fit_dynamics(data, CONFIG, seed=0)


def test_a_rare_crash_is_no_unit_of_what_is_usual(data):
    """A few changes of thousands of deviations do not hide the others, nor do contacts vanish."""
    table = transitions_of(data)
    plain = usual_changes(table, (data.next_observations - data.observations).std(0))
    hit = data.next_observations.clone()
    hit[::50] += 1_000
    crashing = MemoryTable({"observations": data.observations, "next_observations": hit})
    deviations = (hit - data.observations).std(0)
    usual = usual_changes(crashing, deviations)
    assert (deviations > 100 * plain).all()
    torch.testing.assert_close(usual, plain, rtol=0.2, atol=0)
    still = {name: data.observations.clone() for name in ("observations", "next_observations")}
    still["next_observations"][::50] += 1
    assert torch.equal(usual_changes(MemoryTable(still), torch.ones(2)), torch.ones(2))


def beginnings(data, count=24):
    rows = torch.tensor(data.episodes["start"].to_numpy(copy=True)[:count])
    return data.observations[rows]


def in_the_world(policy, starts, attack=None, epsilon=0.0, seed=0):
    """Returns and costs of the same episodes in the world of `make_points`."""
    rng = np.random.default_rng(seed)
    position = starts.double().numpy().copy()
    reward, cost = np.zeros(len(starts)), np.zeros(len(starts))
    for _ in range(LENGTH):
        seen = position + epsilon * rng.uniform(-1, 1, position.shape) * (attack == "uniform")
        action = policy.predict(seen.astype(np.float32)).astype(float)
        position += action * [0.5, 0.1]
        reward += action[:, 1] * (1 + position[:, 0])
        cost += position[:, 0] > BORDER
    return reward, cost


@pytest.mark.parametrize("lane", [-0.6, -0.3, 0.0, 0.4, 0.6])
@pytest.mark.parametrize("attack", ["natural", "uniform"])
def test_return_and_cost_are_those_of_the_world(data, model, lane, attack):
    policy, starts = driver(lane, 0.6), beginnings(data)
    foreseen = foresee_episodes(
        model,
        policy,
        starts,
        length=LENGTH,
        attack=make_attack(attack),
        epsilon=torch.full((2,), 0.05),
        seed=0,
    )
    reward, cost = in_the_world(policy, starts, attack, 0.05)
    assert foreseen.returns.shape == foreseen.costs.shape == (3, len(starts))
    assert float(foreseen.returns.mean()) == pytest.approx(reward.mean(), rel=0.05)
    assert float(foreseen.costs.mean()) == pytest.approx(cost.mean(), abs=1.0)


def test_what_the_policy_is_shown_is_attacked_and_not_the_world(data, model):
    """A lane without feedback drives alike whatever it sees."""

    def costs(gain, name):
        return foresee_episodes(
            model,
            driver(0.4, 0.6, gain),
            beginnings(data),
            length=LENGTH,
            attack=make_attack(name),
            epsilon=torch.full((2,), 0.3),
            seed=0,
        ).costs

    assert torch.equal(costs(0.0, "uniform"), costs(0.0, "natural"))
    assert float(costs(1.0, "uniform").mean()) > float(costs(1.0, "natural").mean()) + 1


def test_the_worst_offset_is_found_and_does_in_the_world_what_it_does_in_the_model(data, model):
    """Whoever sees himself to the left of his lane drives to the right of it."""
    policy, starts, epsilon = driver(0.3, 0.6), beginnings(data), torch.full((2,), 0.3)
    given = {"length": LENGTH, "epsilon": epsilon, "seed": 0}
    bias = worst_bias(model, policy, starts[:4], **given)
    assert bias.offset[0] == -1
    foreseen = foresee_episodes(model, policy, starts, attack=bias, **given)

    class Fooled:
        def predict(self, seen):
            return policy.predict(seen + np.float32(0.3) * np.asarray(bias.offset, np.float32))

    _, cost = in_the_world(Fooled(), starts)
    assert cost.mean() > 5
    assert float(foreseen.costs.mean()) == pytest.approx(cost.mean(), abs=1.5)
    nowhere = worst_bias(model, policy, starts, **given | {"epsilon": torch.zeros(2)})
    assert nowhere.offset == (0, 0)


def test_where_the_data_say_nothing_the_members_disagree_and_nobody_need_believe(data, model):
    usual = disagreement_on_data(model, data, seed=0)
    # Backwards, which nobody in the data ever drove.
    lost = foresee(driver(0.0, -1.0), data, model=model)
    known = foresee(driver(0.0, 0.6), data, model=model)
    assert usual > 0
    assert all(one.trusted for one in known.estimates)
    assert not any(one.trusted for one in lost.estimates)
    assert "the models disagree" in "\n".join(lost.lines())
    assert "not to be trusted" in "\n".join(lost.lines())
    assert "disagree" not in "\n".join(known.lines())


def test_an_interval_holds_its_mean_and_costs_are_never_negative(data, model):
    for one in foresee(driver(0.4, 0.6), data, model=model, epsilon=0.2).estimates:
        low, high = one.reward_interval
        assert low < one.reward < high
        low, high = one.cost_interval
        assert 0 <= low <= one.cost <= high


def test_the_verdict_follows_the_limit(data, model):
    def verdict(lane, epsilon):
        return foresee(driver(lane, 0.6), data, model=model, epsilon=epsilon).lines()[-1]

    assert "the limit of 2 is kept" in verdict(-0.3, 0.02)
    assert "Even unattacked" in verdict(0.6, 0.02)
    assert "Under 'bias'" in verdict(0.4, 0.4)


def test_same_seed_same_estimate_and_the_global_generator_is_left_alone(data):
    small, policy = DynamicsConfig(steps=20, hidden_sizes=(16,)), driver(0.0, 0.6)
    found = []
    for number in range(2):
        torch.manual_seed(number)
        expected = torch.get_rng_state()
        model = fit_dynamics(data, small, seed=3)
        found.append(foresee(policy, data, model=model, seed=3).to_json())
        assert torch.equal(torch.get_rng_state(), expected)
    assert found[0] == found[1]
    other = foresee(policy, data, model=fit_dynamics(data, small, seed=4), seed=4).to_json()
    assert other != found[0]
    assert json.loads(json.dumps(found[0])) == json.loads(json.dumps(found[1]))


def test_what_never_happens_in_the_data_is_not_foreseen(make_points):
    safe = make_points(episodes=20, lanes=(-0.3, 0.0))
    model = fit_dynamics(safe, DynamicsConfig(steps=5, hidden_sizes=(8,)), seed=0)
    found = foresee(driver(0.0, 0.6), safe, model=model)
    assert all(one.cost < 1e-6 for one in found.estimates)


def test_an_episode_that_ends_earns_nothing_more(data, model):
    """Ends are learned from `terminals`: here every episode of the data ends when x is large."""
    arrays = {n: a.copy() for n, a in data.to_arrays().items() if "/" not in n}
    over = arrays["next_observations"][:, 0] > BORDER
    arrays["terminals"] = np.zeros(len(over), bool)
    keep, alive = np.zeros(len(over), bool), True
    for row, (is_over, last) in enumerate(zip(over, data.timeouts.tolist(), strict=True)):
        keep[row] = alive
        arrays["terminals"][row] = alive and is_over
        arrays["timeouts"][row] = alive and last and not is_over
        alive = True if last else alive and not is_over
    ended = OfflineDataset.from_arrays({n: a[keep] for n, a in arrays.items()})
    model_of_ends = fit_dynamics(ended, CONFIG, seed=0)

    def returns(model, lane):
        return foresee_episodes(
            model,
            driver(lane, 0.6),
            torch.tensor([[0.0, 0.0]]),
            length=LENGTH,
            attack=make_attack("natural"),
            epsilon=torch.zeros(2),
            seed=0,
        ).returns.mean()

    assert float(returns(model_of_ends, 0.6)) < 0.5 * float(returns(model, 0.6))
    assert float(returns(model_of_ends, 0.0)) == pytest.approx(float(returns(model, 0.0)), rel=0.1)


def test_the_attacks_are_those_that_the_policy_has_critics_for(small_config, points):
    config = dataclasses.replace(small_config, recovery_states=20)
    policy = SAFER(config, points, steps=4, seed=0).policy()
    assert [one.name for one in attacks_for(policy)] == ["natural", "uniform", "mc", "mr"]
    assert [one.name for one in attacks_for(driver(0.0, 0.5))] == ["natural", "uniform"]
    found = foresee(policy, points, model=fit_dynamics(points, CONFIG, seed=0), starts=4)
    assert [one.attack for one in found.estimates] == ["natural", "uniform", "mc", "mr", "bias"]


def test_a_policy_of_another_robot_is_refused(data, make_points):
    arrays = {n: a for n, a in data.to_arrays().items() if "/" not in n}
    arrays["actions"] = np.repeat(arrays["actions"], 2, axis=1)
    with pytest.raises(UsageError, match="actions of size 2, but the dataset has 2 and 4"):
        foresee(driver(0.0, 0.5), OfflineDataset.from_arrays(arrays))


@pytest.mark.parametrize("name", ["members", "steps", "batch_size"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} must be at least"):
        DynamicsConfig(**{name: 0})
