"""SAFER trained for several limits and budgets, on the point that runs along lanes."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from lanes import lane_weights, run_points

from safer_offline import load_policy, train
from safer_offline.attacks import attack_budget
from safer_offline.errors import UsageError
from safer_offline.learners.safer.conditioned import (
    SAFERConditioned,
    SAFERConditionedConfig,
    conditions_of,
    limits_of,
    settings_at,
)
from safer_offline.learners.safer.learner import SAFER
from safer_offline.policies.aiming import tell

SHARES = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def config(small_config):
    # At its full budget the attacker reaches from the lane at 0.4 over the border at 0.5.
    return SAFERConditionedConfig(
        **dataclasses.asdict(small_config)
        | {"epsilon": 0.3, "margin": 0.5, "learning_rate": 3e-3, "averaging_rate": 0.05},
        limit_multiples=(0.5, 1.0, 4.0),
        budget_shares=SHARES,
    )


@pytest.fixture(scope="module")
def learned(config, points):
    learner = SAFERConditioned(config, points, steps=1_000, seed=0)
    while learner.step < learner.steps:
        learner.update()
    return learner


def test_each_condition_has_its_own_estep(learned, config, points):
    weights = learned.imitation.answer.episode_weights.view(3, 3, -1)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 3).double())
    limits = limits_of(config)
    assert limits == [1.0, 2.0, 8.0]
    assert conditions_of(config)[2:4] == [(0.0, 8.0), (0.5, 1.0)]
    given = limits.index(config.cost_limit)
    unattacked = lane_weights(points, weights[0, given].numpy())
    attacked = lane_weights(points, weights[2, given].numpy())
    # The lane next to the border is followed where the border is out of reach.
    assert unattacked[0.4] > 0.2
    assert attacked[0.4] < 0.05
    assert max(attacked, key=attacked.get) == 0.0
    # Where nobody attacks, none is followed that breaks the limit by itself.
    broken = torch.tensor((points.episodes["cost"] > config.cost_limit).tolist())
    assert float(weights[0, given, broken].sum()) == 0
    returns = torch.tensor(points.episodes["return"].tolist()).double()
    for earned in (weights @ returns).tolist():
        assert earned == sorted(earned)
    assert earned[-1] > earned[0] + 1


def test_the_estep_at_the_settings_given_is_that_of_safer(config, points):
    """The same networks and the same sums; only the search within reach draws other numbers."""
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(SAFER.Config)}
    alone = SAFER(SAFER.Config(**settings), points, steps=200, seed=0)
    several = SAFERConditioned(config, points, steps=200, seed=0)
    for learner in (alone, several):
        while learner.imitation is None:
            learner.update()
    wanted = alone.imitation.answer.episode_weights
    place = conditions_of(config).index((1.0, config.cost_limit))
    found = several.imitation.answer.episode_weights[place]
    assert float((wanted - found).abs().sum()) < 0.1


def test_what_only_attacks_are_worth_grows_with_the_budget(config):
    full = dataclasses.replace(config, margin=2.0, recovery_weight=0.6)
    none, half, given = (settings_at(full, share) for share in SHARES)
    assert given == full
    assert (none.margin, half.margin) == pytest.approx((0.25, 1.125))
    assert (none.recovery_weight, half.recovery_weight) == pytest.approx((0.0, 0.3))
    assert (none.adversarial_weight, half.adversarial_weight) == (0.0, 1.0)
    assert (none.limit_each_episode, half.limit_each_episode) == (True, False)
    assert settings_at(dataclasses.replace(config, margin=0.1), 0.0).margin == pytest.approx(0.1)


def test_each_network_is_attacked_within_its_share(learned, config):
    parts = learned.imitation.parts
    assert list(parts)[-2:] == ["", "_1_of_budget_8"]
    for (share, limit), part in zip(conditions_of(config), parts.values(), strict=True):
        assert part._config == settings_at(config, share, limit=limit)
        seen = part.recovery.sample()["observations"]
        moved = (part._adversary.attack(part._victim, seen, done=1.0) - seen).abs().max()
        assert float(moved) == pytest.approx(share * config.epsilon, rel=0.2)
        assert float(moved) <= share * config.epsilon + 1e-6


def test_one_condition_is_safer_itself_but_for_what_is_drawn_within_reach(config, points):
    """Without margin and attacks nothing is, and the policies are the same."""
    plain = {"margin": 0.0, "adversarial_weight": 0.0}
    alone = dataclasses.replace(config, limit_multiples=(1.0,), budget_shares=(1.0,), **plain)
    settings = {f.name: getattr(alone, f.name) for f in dataclasses.fields(SAFER.Config)}
    policies = []
    for learner in (
        SAFER(SAFER.Config(**settings), points, steps=60, seed=0),
        SAFERConditioned(alone, points, steps=60, seed=0),
    ):
        while learner.step < learner.steps:
            learner.update()
        policies.append(learner.policy())
    observations = points.observations[:100].numpy()
    assert np.array_equal(*(policy.predict(observations) for policy in policies))


def test_who_acts_keeps_at_most_and_withstands_at_least_what_is_told(learned, config):
    policy = learned.policy()
    conditions = conditions_of(config)
    for told, acts in (
        ((2.0, 1.0), (1.0, 2.0)),
        ((7.9, 0.4), (0.5, 2.0)),
        ((8.0, 0.5), (0.5, 8.0)),
        ((1.0, 0.01), (0.5, 1.0)),
        ((100.0, 0.0), (0.0, 8.0)),
        ((0.0, 0.6), (1.0, 1.0)),
        ((-1.0, 1.7), (1.0, 1.0)),
        ((2.0 - 1e-8, 0.5 + 1e-8), (0.5, 2.0)),
    ):
        actor = policy.aimed_at(target_cost=told[0], budget_share=told[1]).actor
        assert actor.acting() is actor.experts[conditions.index(acts)], told


def test_it_goes_nearer_to_the_cost_the_less_it_reckons_with(learned, config, points):
    policy = learned.policy()
    starts = np.repeat([-0.3, 0.0], 10)
    returns = []
    for share in (1.0, 0.5, 0.0):
        told = policy.aimed_at(budget_share=share)
        reward, cost = run_points(told, starts=starts, attack=share * config.epsilon)
        assert cost <= config.cost_limit
        returns.append(reward)
    assert returns[0] < returns[-1]


def test_its_file_is_told_limit_and_budget(config, points, tmp_path):
    made = train(config, points, out=tmp_path, steps=30, progress=False).policy
    policy = load_policy(tmp_path)
    assert policy.aims == {"target_cost": config.cost_limit, "budget_share": 1.0}
    assert policy.fingerprint == made.fingerprint
    full = attack_budget(config.epsilon, policy.observation_std)
    told = tell(policy, cost_limit=1.0, budget=0.5 * full)
    assert told.aims == {"target_cost": 1.0, "budget_share": pytest.approx(0.5)}
    assert tell(policy, {"budget_share": 0.25}, budget=full).aims["budget_share"] == 0.25
    assert tell(policy).aims == policy.aims
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tell(policy, budget=full).aims["budget_share"] == pytest.approx(1)
    with pytest.warns(UserWarning, match=r"a limit of 0.5 is below the least .* that one, 1$"):
        assert tell(policy, cost_limit=0.5).aims["target_cost"] == 0.5
    with pytest.warns(UserWarning, match="this budget is 2 times the largest"):
        assert tell(policy, budget=2 * full).aims["budget_share"] == 1
    observations = points.observations[:20].numpy()
    one, two = (policy.aimed_at(target_cost=cost).predict(observations) for cost in (1.0, 8.0))
    assert not np.array_equal(one, two)
    # What it never learned with is the nearest that it did.
    beyond = policy.aimed_at(target_cost=1e6).predict(observations)
    assert np.array_equal(beyond, two)
    below = [policy.aimed_at(target_cost=cost).predict(observations) for cost in (-3.0, 0.0, 1.0)]
    assert np.array_equal(below[0], below[2])
    assert np.array_equal(below[1], below[2])


def test_a_limit_of_zero_is_one_limit(config, points):
    learner = SAFERConditioned(dataclasses.replace(config, cost_limit=0.0), points, steps=8, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while learner.step < learner.steps:
            learner.update()
    policy = learner.policy()
    actions = policy.predict(points.observations[:5].numpy())
    assert np.isfinite(actions).all()
    assert not np.array_equal(
        actions, policy.aimed_at(budget_share=0.0).predict(points.observations[:5].numpy())
    )


def test_limits_that_nobody_asked_for_are_no_cause_for_alarm(config, points):
    """The least of them cannot be kept within the margin; who is told it acts as near as can be."""
    strict = dataclasses.replace(config, limit_multiples=(0.0, 1.0))
    learner = SAFERConditioned(strict, points, steps=4, seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while learner.step < learner.steps:
            learner.update()
    assert not [one for one in caught if "few episodes stay within" in str(one.message)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit_multiples", (0.5, 2.0)),
        ("limit_multiples", (1.0, -1.0)),
        ("limit_multiples", (1.0, float("inf"))),
        ("limit_multiples", ()),
        ("budget_shares", ()),
        ("budget_shares", (0.0, 0.5)),
        ("budget_shares", (1.0, 0.0)),
        ("budget_shares", (-0.5, 1.0)),
        ("budget_shares", (0.0, 1.0, 1.0)),
        ("budget_shares", (0.0, 1.0, 2.0)),
        ("budget_shares", (0.0, float("nan"), 1.0)),
    ],
)
def test_impossible_conditions_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} must"):
        SAFERConditionedConfig(**{name: value})
