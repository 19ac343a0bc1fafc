"""SAFER as published: E-step, critics and M-step against oracles, and lanes to choose among."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from safer_offline.datasets import BoxSpace, Metadata, OfflineDataset
from safer_offline.errors import UsageError
from safer_offline.estep import solve_estep_cvxpy
from safer_offline.learners import SAFERPaperConfig
from safer_offline.learners.decoupled import Moments, Pair
from safer_offline.learners.safer_paper.learner import SAFERPaper

SMALL = {
    "cost_limit": 6.0,
    "discount": 0.9,
    "hidden_sizes": (16, 16),
    "critic_hidden_sizes": (16, 16),
    "batch_size": 32,
    "sampled_actions": 8,
    "actor_rate": 3e-3,
    "critic_rate": 3e-3,
    "attack_steps": 1,
}


def trained(dataset, *, steps=60, until=None, **settings):
    learner = SAFERPaper(SAFERPaperConfig(**SMALL | settings), dataset, steps=steps, seed=0)
    for _ in range(steps if until is None else until):
        learner.update()
    return learner


def diagonal(mean, std):
    return Independent(Normal(mean, std), 1)


# E-step


@pytest.mark.parametrize("settings", [{}, {"anchor": "policy", "kl_limit": 0.1}])
def test_the_weights_of_candidates_are_those_that_cvxpy_finds(points, settings):
    learner = trained(points, until=40, **settings)
    batch = learner.batches.sample()
    asked = batch["observations"], batch["next_observations"]
    generator = learner.generator.get_state()
    costs = []
    for learner.limit in (1e6, -1e6):  # the dearest and the cheapest answer
        learner.generator.set_state(generator)
        candidates, answer = learner.estep(*asked)
        costs.append(float((answer.weights * candidates.cost).sum(0).mean()))
    learner.limit = sum(costs) / 2
    learner.generator.set_state(generator)
    candidates, answer = learner.estep(*asked)
    assert answer.status == "active"
    assert answer.lam > 0
    expected = solve_estep_cvxpy(
        candidates.value,
        candidates.cost,
        cost_limit=learner.limit,
        kl_limit=learner.config.kl_limit,
        base_weights=candidates.base_weights,
    )
    torch.testing.assert_close(answer.weights, expected.weights, atol=1e-3, rtol=0)
    assert answer.lam == pytest.approx(expected.lam, rel=1e-2)


def test_candidates_are_the_behaviour_s_whatever_the_policy_does(points):
    learner = trained(points, until=30)
    observations = points.observations[:20]
    generator = learner.generator.get_state()
    expected = learner.behavior.sample(observations, 8, generator=learner.generator)
    for parameter in learner.actor.parameters():
        parameter.data.fill_(torch.nan)
    learner.generator.set_state(generator)
    candidates = learner.candidates(observations)
    assert torch.equal(candidates.actions, expected)
    assert candidates.value.isfinite().all()
    assert candidates.base_weights is None


def test_the_policy_as_an_anchor_is_its_density_over_the_behaviour_s(points):
    learner = trained(points, until=30, anchor="policy")
    observations = points.observations[:20]
    candidates = learner.candidates(observations)
    log_weights, means, stds = learner.behavior(observations)
    behavior = MixtureSameFamily(Categorical(logits=log_weights), diagonal(means, stds))
    policy = diagonal(*learner.actor(observations))
    ratio = policy.log_prob(candidates.actions) - behavior.log_prob(candidates.actions)
    expected = ratio.exp() / ratio.exp().sum(0)
    torch.testing.assert_close(candidates.base_weights.float(), expected, atol=1e-5, rtol=1e-3)


def test_values_are_lower_and_costs_upper_estimates(points):
    learner = trained(points, until=10, reward_deviations=0.5, cost_deviations=2.0)
    observations, actions = points.observations[:9], points.actions[:9]
    value, cost = learner.estimates(observations, actions)
    one, other = learner.reward_target(observations, actions) * learner.config.reward_scale
    torch.testing.assert_close(value, (one + other) / 2 - 0.5 * (one - other).abs() / 2)
    one, other = learner.cost_target(observations, actions)
    torch.testing.assert_close(cost, (one + other) / 2 + 2.0 * (one - other).abs() / 2)


def test_a_limit_out_of_reach_is_said_and_one_in_reach_is_not(points):
    with pytest.warns(UserWarning, match=r"no weighting of the candidates[\s\S]*--cost-limit 0"):
        learner = trained(points, steps=24, cost_limit=0.0)
    assert learner.relaxed > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained(points, steps=24, cost_limit=20.0).relaxed == 0


# Critics


def test_targets_weigh_the_candidates_of_the_next_states(points):
    learner = trained(points, until=30)
    batch = learner.batches.sample()
    batch["going_on"][:5] = 0
    candidates, answer = learner.estep(batch["observations"], batch["next_observations"])
    found = learner.targets(batch, candidates, answer.weights[:, 32:])
    for row in range(32):
        state = batch["next_observations"][row].repeat(8, 1)
        values, costs = learner.estimates(state, candidates.actions[:, 32 + row])
        q, going_on = answer.weights[:, 32 + row], float(row >= 5)
        value = batch["rewards"][row] + 0.9 * going_on * (q @ values)
        cost = batch["costs"][row] + 0.9 * going_on * (q @ costs)
        torch.testing.assert_close(found[0][row], value)
        torch.testing.assert_close(found[1][row], cost.clamp(0, 1 / (1 - 0.9)))


def test_no_target_of_cost_is_beyond_what_steps_can_cost(points):
    learner = trained(points, until=30)
    batch = learner.batches.sample()
    candidates, answer = learner.estep(batch["observations"], batch["next_observations"])
    for shift, bound in ((1e3, 10.0), (-1e3, 0.0)):
        shifted = candidates._replace(cost=candidates.cost + shift)
        _, cost = learner.targets(batch, shifted, answer.weights[:, 32:])
        torch.testing.assert_close(cost, torch.full((32,), bound))


@pytest.mark.parametrize("timeouts_end", [False, True])
def test_critics_begin_with_what_the_episodes_went_on_to_cost(points, timeouts_end):
    learner = trained(points, until=0, timeouts_end=timeouts_end)
    costs = points.costs[80:100].double().numpy()  # the fifth episode, in the costly lane
    assert costs.any()
    expected = [sum(0.9**k * c for k, c in enumerate(costs[t:])) for t in range(20)]
    if not timeouts_end:
        tail = costs.mean() / (1 - 0.9)
        expected = [value + 0.9 ** (20 - t) * tail for t, value in enumerate(expected)]
    found = learner.table.take(torch.arange(80, 100))["cost_to_go"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_first_estep_asks_what_the_warm_up_has_learned(points):
    learner = trained(points, steps=40, until=10)
    assert learner.step == learner.warmup == 10
    learned = copy.deepcopy(learner.cost_critic.state_dict())
    seen = {}
    estimates = learner.estimates

    def watch(*asked):
        seen.update(copy.deepcopy(learner.cost_target.state_dict()))
        return estimates(*asked)

    learner.estimates = watch
    learner.update()
    assert all(torch.equal(seen[name], learned[name]) for name in learned)


# M-step


def measured(dataset, *, steps=80, **settings):
    """KL of mean and deviation in every M-step of a training, by torch.distributions, (n, 2)."""
    learner = SAFERPaper(SAFERPaperConfig(**SMALL | settings), dataset, steps=steps, seed=0)
    mstep, found = learner.mstep, []

    def watch(observations, *rest):
        old_mean, old_std = learner.actor(observations)
        losses = mstep(observations, *rest)
        mean, std = learner.actor(observations)
        old = diagonal(old_mean, old_std)
        found.append(
            [
                kl_divergence(old, new).mean().item()
                for new in (diagonal(mean, old_std), diagonal(old_mean, std))
            ]
        )
        return losses

    learner.mstep = watch
    for _ in range(steps):
        learner.update()
    return np.array(found)


def test_every_mstep_stays_in_the_trust_region_and_makes_use_of_it(points):
    limits = np.array([0.01, 1e-4])
    held = measured(points)
    assert len(held) == 60
    assert (held <= 1.001 * limits + 1e-7).all()
    assert (held / limits).max(1).mean() > 0.2
    penalised = measured(points, trust_region="penalised")
    assert (penalised > 2 * limits).any()


def test_what_is_right_at_a_state_is_asked_for_at_what_the_adversary_shows(points):
    learner = trained(points, until=30, adversarial_weight=2.0)
    observations = points.observations[:32]
    candidates = learner.candidates(observations)
    weights = torch.rand(8, 32).softmax(0)
    shown = []
    robust = learner.mstep_loss

    def watch(true, attacked, moments, multipliers):
        shown.append((attacked - true).abs().amax(0))
        loss, parts = robust(true, attacked, moments, multipliers)
        clean, false = (moments.nll(*learner.actor(place)).mean() for place in (true, attacked))
        torch.testing.assert_close((parts["nll"], parts["nll_attacked"]), (clean, false))
        found = moments.divergences(*learner.actor(true))
        price = multipliers.mean * found.mean + multipliers.deviation * found.deviation
        torch.testing.assert_close(loss, clean + 2.0 * false + price.mean())
        return loss, parts

    learner.mstep_loss = watch
    learner.step = 59
    learner.mstep(observations, candidates.actions, weights)
    assert len(shown) == learner.config.mstep_iterations
    assert all((moved > 0).all() and (moved <= 0.05 + 1e-6).all() for moved in shown)


def test_under_kl_it_is_the_decoupled_divergence(points):
    learner = trained(points, until=30, robustness="kl")
    clean, attacked = points.observations[:32], points.observations[32:64]
    _, answer = learner.estep(clean, attacked)
    batch = learner.candidates(clean)
    with torch.no_grad():
        old = learner.actor(clean)
        mean, std = learner.actor(attacked)
    moments = Moments.of(batch.actions, answer.weights[:, :32], old)
    _, parts = learner.mstep_loss(clean, attacked, moments, Pair(*torch.zeros(2)))
    here = diagonal(*old)
    expected = kl_divergence(here, diagonal(mean, old[1])) + kl_divergence(
        here, diagonal(old[0], std)
    )
    torch.testing.assert_close(parts["nll_attacked"], expected.mean())


# What it learns


LANES = (-0.6, 0.6)


def follow(act, *, start):
    """States, actions and next states of a point on a line, each (steps, points)."""
    x, path, actions = start, [start], []
    for _ in range(6):
        actions.append(np.clip(act(x), -1, 1))
        x = x + 0.5 * actions[-1]
        path.append(x)
    return np.array(path[:-1]), np.array(actions), np.array(path[1:])


@pytest.fixture(scope="module")
def crossroads():
    """Points that go to one of two lanes from anywhere; the one at the right pays, and costs 1."""
    rng = np.random.default_rng(0)
    lane = rng.choice(LANES, 120)
    path = follow(
        lambda x: lane - x + 0.05 * rng.standard_normal(120), start=rng.uniform(-0.6, 0.6, 120)
    )
    before, actions, after = (array.T.reshape(-1).astype(np.float32) for array in path)
    ends = np.arange(1, len(before) + 1) % 6 == 0
    arrays = {
        "observations": before[:, None],
        "actions": actions[:, None],
        "next_observations": after[:, None],
        "rewards": 1 + after,
        "costs": (after > 0.3).astype(np.float32),
        "terminals": np.zeros(len(ends), np.bool_),
        "timeouts": ends,
    }
    metadata = Metadata(
        observation_space=BoxSpace(low=(-100.0,), high=(100.0,)),
        action_space=BoxSpace(low=(-1.0,), high=(1.0,)),
    )
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


@pytest.mark.filterwarnings("ignore:in .* of the last E-steps")
@pytest.mark.parametrize(("cost_limit", "lane"), [(2.0, LANES[0]), (5.9, LANES[1])])
def test_the_costly_lane_is_avoided_and_taken_where_the_limit_allows(crossroads, cost_limit, lane):
    settings = {"cost_limit": cost_limit, "adversarial_weight": 0.0, "warmup_share": 0.4}
    policy = trained(crossroads, steps=200, **settings).policy()
    start = np.linspace(-0.5, 0.5, 11)
    _, _, after = follow(lambda x: policy.predict(x[:, None].astype(np.float32))[:, 0], start=start)
    assert abs(after[-1] - lane).mean() < 0.2


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"kl_limit": 0}, {"sampled_actions": 1}, {"warmup_share": 1.0}, {"target_rate": 0},
        {"mean_kl_limit": 0}, {"deviation_kl_limit": -1}, {"cost_deviations": -1},
        {"anchor": "data"}, {"trust_region": "none"}, {"multiplier_caps": (-1.0, 1.0)},
        {"attacks": ()}, {"discount": 1.0}, {"ramp_share": 2.0}, {"estep_solver": "adam"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SAFERPaperConfig(**wrong)


@pytest.mark.parametrize(
    ("attack", "match"),
    [("amad", "'amad' needs a finished policy"), ("mcc", "the nearest known one is 'mc'")],
)
def test_attacks_that_cannot_be_trained_with_are_refused(points, attack, match):
    with pytest.raises(UsageError, match=match):
        trained(points, until=0, attacks=(attack,))
