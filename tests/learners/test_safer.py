"""Offline SAFER on a point that runs along lanes: one is forbidden, one is close to it."""

import copy
import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from lanes import BORDER, lane_weights, run_points

from safer_offline.attacks import attack_budget
from safer_offline.datasets import OfflineDataset
from safer_offline.errors import UsageError
from safer_offline.learners import SAFER, SAFERConfig, robust
from safer_offline.learners.margins import costs_within_margin
from safer_offline.learners.safer.offline_estep import endangered_states, information
from safer_offline.settings import parse_settings


def learner_after_estep(config, dataset, *, steps=400, seed=0):
    learner = SAFER(config, dataset, steps=steps, seed=seed)
    losses = {}
    while learner.imitation is None:
        losses = learner.update()
    return learner, losses


@pytest.fixture(scope="module")
def config(small_config):
    # The lane at 0.4 is 0.1 away from the border, within reach of half of this budget.
    return dataclasses.replace(small_config, epsilon=0.3, margin=0.5, learning_rate=3e-3)


@pytest.fixture(scope="module")
def estimated(config, points):
    return learner_after_estep(config, points)


# E-step


def test_chosen_episodes_keep_the_limit_even_within_reach_of_the_attacker(estimated, points):
    learner, _ = estimated
    weights = learner.imitation.answer.episode_weights.double()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert (weights >= 0).all()
    # The border, known here exactly and to the learner by its model only.
    reach = learner.config.margin * learner.config.epsilon
    robust = (points.next_observations[:, 0] + reach > BORDER).double()
    costs = torch.zeros(points.num_episodes, dtype=torch.float64)
    costs.index_add_(0, points.episode_index, robust)
    assert costs.mean() > 2 * learner.config.cost_limit
    assert weights @ costs <= 1.1 * learner.config.cost_limit
    modelled = costs_within_margin(
        learner.estimation.cost_model,
        points.next_observations,
        points.costs,
        reach=torch.full((2,), reach),
        generator=torch.Generator().manual_seed(9),
    ).double()
    costs = torch.zeros(points.num_episodes, dtype=torch.float64)
    costs.index_add_(0, points.episode_index, modelled)
    assert weights @ costs <= 1.1 * learner.config.cost_limit


def test_among_safe_episodes_those_of_high_return_are_chosen(estimated, points):
    weights = estimated[0].imitation.answer.episode_weights.double().numpy()
    lanes = lane_weights(points, weights)
    # Pay grows with x: the best lane that is out of reach of the border is that at 0.
    assert max(lanes, key=lanes.get) == 0.0
    assert lanes[0.6] + lanes[0.4] < 0.2
    returns = points.episodes["return"].to_numpy()
    safe = (points.episodes["cost"] == 0).to_numpy()
    assert weights @ returns > returns[safe].mean() + 0.5 * returns[safe].std()


def test_without_a_margin_the_lane_next_to_the_border_is_chosen(config, points):
    careless, _ = learner_after_estep(dataclasses.replace(config, margin=0.0), points)
    lanes = lane_weights(points, careless.imitation.answer.episode_weights.double().numpy())
    assert max(lanes, key=lanes.get) == 0.4
    assert lanes[0.6] < 0.2


def test_the_share_of_episodes_is_kept(estimated):
    learner, _ = estimated
    weights = learner.imitation.answer.episode_weights.double()
    positive = weights[weights > 0]
    divergence = math.log(len(weights)) + (positive * positive.log()).sum().item()
    assert divergence <= -math.log(learner.config.episode_share) + 1e-3


def test_candidates_begin_with_the_data_and_are_weighed_state_by_state(estimated, points):
    learner, losses = estimated
    answer, config = learner.imitation.answer, learner.config
    shape = (config.candidates, config.recovery_states)
    assert answer.candidates.shape == (*shape, 2)
    assert answer.candidate_weights.shape == shape
    assert torch.equal(answer.candidates[0], points.actions[answer.rows])
    assert (answer.candidates.abs() <= 1).all()
    torch.testing.assert_close(answer.candidate_weights.sum(0), torch.ones(shape[1]))
    for which in ("episodes", "candidates"):
        assert losses[f"{which}_kkt_residual"] <= 1e-6
        assert losses[f"{which}_lambda"] >= 0
        assert losses[f"{which}_eta"] > 0


@pytest.mark.parametrize("horizon", [1, 3, 1000])
def test_states_are_endangered_where_cost_followed_soon_in_their_episode(points, horizon):
    generator = torch.Generator().manual_seed(0)
    costly = torch.rand(points.num_transitions, generator=generator) < 0.02
    rows = torch.randint(points.num_transitions, (300,), generator=generator)
    ends = (points.episodes["start"] + points.episodes["length"]).to_numpy()
    expected = [
        bool(costly[row : min(row + horizon, ends[points.episode_index[row]])].any())
        for row in rows.tolist()
    ]
    assert 0 < sum(expected) < len(rows)
    found = endangered_states(points, rows, costly, horizon=horizon)
    assert found.tolist() == expected


def test_where_no_cost_followed_or_nobody_asks_all_states_are_endangered(points):
    rows = torch.arange(50)
    for costly, horizon in ((False, 30), (True, 0)):
        everywhere = torch.full((points.num_transitions,), costly)
        assert endangered_states(points, rows, everywhere, horizon=horizon).all()


def test_recovery_is_learned_at_endangered_states_only(config, points):
    learner, _ = learner_after_estep(dataclasses.replace(config, recovery_horizon=2), points)
    answer = learner.imitation.answer
    assert 0 < answer.endangered.double().mean() < 0.8
    drawn = torch.cat([learner.imitation.recovery.sample()["observations"] for _ in range(20)])
    endangered = points.observations[answer.rows[answer.endangered]]
    assert (drawn[:, None] == endangered).all(-1).any(-1).all()


def test_data_without_reward_or_cost_leave_nothing_to_recover_from(config):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(401, 2)).astype(np.float32)
    dataset = OfflineDataset.from_arrays(
        {
            "observations": observations[:-1],
            "next_observations": observations[1:],
            "actions": rng.uniform(-1, 1, (400, 2)).astype(np.float32),
            "rewards": np.zeros(400, np.float32),
            "costs": np.zeros(400, np.float32),
            "terminals": np.zeros(400, bool),
            "timeouts": np.arange(1, 401) % 20 == 0,
        }
    )
    learner, _ = learner_after_estep(config, dataset, steps=20)
    assert math.isfinite(float(learner.update()["policy"]))


def test_both_solvers_give_the_same_answer(config, make_points):
    points = make_points(episodes=30)
    answers = []
    for solver in ("newton", "cvxpy"):
        chosen = dataclasses.replace(config, estep_solver=solver, recovery_states=20)
        learner, _ = learner_after_estep(chosen, points, steps=100)
        answers.append(learner.imitation.answer)
    newton, cvxpy = answers
    assert newton.episode_weights.max() > 0.05
    torch.testing.assert_close(newton.episode_weights, cvxpy.episode_weights, atol=1e-4, rtol=0)
    torch.testing.assert_close(newton.candidate_weights, cvxpy.candidate_weights, atol=1e-3, rtol=0)


def test_a_limit_out_of_reach_is_relaxed_with_a_warning(config, make_points):
    # One safe episode in 30, and the E-step may not concentrate on fewer than 6.
    points = make_points(episodes=30, lanes=(0.6,) * 29 + (0.0,))
    with pytest.warns(UserWarning, match=r"few episodes stay within a cost of 2 at a margin of"):
        learner, losses = learner_after_estep(config, points, steps=100)
    assert losses["episodes_relaxed"] == 1
    assert losses["episodes_cost_limit"] > 2
    assert learner.imitation.answer.episode_weights.argmax() == 29


def test_an_easy_limit_is_not_relaxed(config, points):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, losses = learner_after_estep(dataclasses.replace(config, cost_limit=100.0), points)
    assert losses["episodes_relaxed"] == 0
    assert losses["episodes_lambda"] == 0
    assert losses["episodes_cost_limit"] == 100


def test_an_episode_that_breaks_the_limit_may_count_on_average_or_not_at_all(config, points):
    spends = dataclasses.replace(config, margin=0.0, cost_limit=4.0)
    each = dataclasses.replace(spends, limit_each_episode=True)
    average, alone = (
        learner_after_estep(one, points)[0].imitation.answer.episode_weights.double()
        for one in (spends, each)
    )
    safe = torch.tensor((points.episodes["cost"] <= 4).to_numpy())
    assert average[~safe].sum() > 0.1
    assert bool((alone[~safe] == 0).all())
    assert float(alone.sum()) == pytest.approx(1, abs=1e-6)
    # The share is one of all episodes, whoever may be followed: the KL limit binds, or nearly.
    for weights in (average, alone):
        positive = weights[weights > 0]
        divergence = math.log(len(weights)) + (positive * positive.log()).sum().item()
        assert divergence == pytest.approx(-math.log(config.episode_share), abs=1e-2)


def test_where_no_episode_keeps_the_limit_those_that_break_it_least_are_followed(
    config, make_points
):
    points = make_points(episodes=30, lanes=(0.6,))
    each = dataclasses.replace(config, limit_each_episode=True, cost_limit=1.0)
    with pytest.warns(UserWarning, match="few episodes stay within"):
        learner, _ = learner_after_estep(each, points, steps=100)
    assert torch.isfinite(learner.imitation.answer.episode_weights).all()


def test_a_single_episode_that_keeps_the_limit_is_followed(config, make_points):
    points = make_points(episodes=30, lanes=(0.6,) * 29 + (0.0,))
    each = dataclasses.replace(config, limit_each_episode=True)
    with pytest.warns(UserWarning, match="about 1 episodes carry"):
        learner, _ = learner_after_estep(each, points, steps=100)
    assert float(learner.imitation.answer.episode_weights[29]) == pytest.approx(1)


# Doubts


def doubts_of(config, dataset, *, steps=600):
    """What is said until the E-step is solved."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        learner_after_estep(config, dataset, steps=steps)
    return [str(one.message) for one in said]


def test_a_critic_of_what_nothing_explains_is_doubted(config, points):
    arrays = {name: array for name, array in points.to_arrays().items() if "/" not in name}
    chance = np.random.default_rng(0).random(len(arrays["costs"])) < 0.1
    by_chance = OfflineDataset.from_arrays(arrays | {"costs": chance.astype(np.float32)})
    # So far-sighted a critic would know its episode; this one sees a few steps.
    config = dataclasses.replace(config, discount=0.5, cost_limit=20.0, learning_rate=1e-3)
    (said,) = doubts_of(config, by_chance)
    assert said.startswith("the cost critic explains ")
    assert "--steps" in said
    assert doubts_of(config, by_chance, steps=100) == []  # a trial tells nothing yet
    assert doubts_of(dataclasses.replace(config, recovery_weight=0.0), points) == []


def test_a_critic_that_cannot_tell_actions_apart_is_no_guide_to_recovery(config, points):
    arrays = {name: array for name, array in points.to_arrays().items() if "/" not in name}
    order = np.random.default_rng(0).permutation(len(arrays["actions"]))
    anyhow = OfflineDataset.from_arrays(arrays | {"actions": arrays["actions"][order]})
    easy = dataclasses.replace(config, cost_limit=20.0)
    (said,) = doubts_of(easy, anyhow)
    assert said.startswith("the cost critic hardly tells actions apart")
    assert "recovery_weight=0" in said
    assert "foretold=15,45" in said
    assert doubts_of(dataclasses.replace(easy, recovery_weight=0.0), anyhow) == []
    assert doubts_of(easy, anyhow, steps=100) == []
    # Here the action is what costs.
    costs = (arrays["actions"][:, 0] > 0).astype(np.float32)
    by_action = OfflineDataset.from_arrays(arrays | {"costs": costs})
    assert doubts_of(dataclasses.replace(easy, discount=0.5), by_action) == []


def test_a_handful_of_episodes_is_doubted(config, make_points):
    few = make_points(episodes=12)
    config = dataclasses.replace(config, cost_limit=20.0)
    (said,) = doubts_of(config, few, steps=100)
    assert "episodes carry the weight" in said
    assert "episode_share" in said


# The whole


def test_it_learns_to_be_safe_and_good(config, points):
    config = dataclasses.replace(config, averaging_rate=0.05, recovery_weight=0.3)
    learner = SAFER(config, points, steps=1_000, seed=0)
    first, last = {}, {}
    while learner.step < learner.steps:
        losses = {name: float(loss) for name, loss in learner.update().items()}
        first, last = losses | first, last | losses
    for name in ("reward_critic", "cost_critic", "behavior", "cost_model", "nll"):
        assert last[name] < first[name], name
    assert last["epsilon_ramp"] == 1
    policy = learner.policy()
    lanes = np.repeat([-0.3, 0.0], 10)
    returns = points.episodes["return"][points.episodes["cost"] == 0]
    for attack in (0.0, config.epsilon):
        reward, cost = run_points(policy, starts=lanes, attack=attack)
        assert cost <= config.cost_limit
        assert reward > returns.mean()


def test_an_episode_is_imitated_in_proportion_to_its_weight_however_long_it_is(config, make_points):
    points = OfflineDataset.concatenate([make_points(length=20), make_points(length=10, seed=1)])
    config = dataclasses.replace(config, episode_share=0.8, cost_limit=100.0)
    learner, _ = learner_after_estep(config, points, steps=20)
    row_of = {tuple(row): number for number, row in enumerate(points.observations.tolist())}
    drawn = torch.zeros(points.num_episodes, dtype=torch.float64)
    for _ in range(400):
        for observation in learner.imitation.chosen.sample()["observations"].tolist():
            drawn[points.episode_index[row_of[tuple(observation)]]] += 1
    weights = learner.imitation.answer.episode_weights.double()
    drawn /= drawn.sum()
    torch.testing.assert_close(drawn, weights, atol=0.01, rtol=0)
    short = torch.tensor((points.episodes["length"] == 10).tolist())
    assert 0.1 < weights[short].sum() < 0.9
    assert float(drawn[short].sum()) == pytest.approx(float(weights[short].sum()), abs=0.02)


def test_recovery_states_are_weighed_against_chosen_episodes(config, points, monkeypatch):
    seen = {}
    robust_loss = robust.robust_loss

    def spy(policy, observations, attacked, actions, weights, **rest):
        seen.update(weights=weights, actions=actions, **rest)
        return robust_loss(policy, observations, attacked, actions, weights, **rest)

    monkeypatch.setattr(robust, "robust_loss", spy)
    config = dataclasses.replace(config, recovery_weight=0.25, adversarial_weight=3.0)
    learner, _ = learner_after_estep(config, points, steps=20)
    half = config.batch_size
    assert seen["weights"].tolist() == [1.0] * half + [0.25] * half
    assert seen["adversarial_weight"] == 3.0
    of_data = {tuple(row) for row in points.actions.tolist()}
    assert all(tuple(action) in of_data for action in seen["actions"][:half].tolist())
    candidates = {tuple(row) for row in learner.imitation.answer.candidates.reshape(-1, 2).tolist()}
    assert all(tuple(action) in candidates for action in seen["actions"][half:].tolist())


@pytest.mark.filterwarnings("ignore:few episodes stay within")
def test_same_seed_same_policy_and_the_policy_stays_as_it_was(small_config, points):
    def learn(seed):
        learner = SAFER(small_config, points, steps=20, seed=seed)
        for _ in range(15):
            learner.update()
        return learner

    torch.manual_seed(1)
    learner = learn(0)
    policy = learner.policy()
    before = policy.predict(points.observations.numpy())
    torch.manual_seed(2)  # the global generator plays no part
    assert np.array_equal(learn(0).policy().predict(points.observations.numpy()), before)
    assert not np.array_equal(learn(1).policy().predict(points.observations.numpy()), before)
    while learner.step < learner.steps:
        learner.update()
    assert np.array_equal(policy.predict(points.observations.numpy()), before)
    assert not np.array_equal(learner.policy().predict(points.observations.numpy()), before)


def test_learning_leaves_the_global_generator_alone(small_config, points):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    learner = SAFER(small_config, points, steps=4, seed=0)
    for _ in range(4):
        learner.update()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("step", [3, 10, 13])
def test_a_state_goes_on_where_it_was_taken(small_config, points, step):
    """In the first stage, on its edge, and in the second."""
    learner = SAFER(small_config, points, steps=20, seed=0)
    for _ in range(step):
        learner.update()
    state = copy.deepcopy(learner.state_dict())
    other = SAFER(small_config, points, steps=20, seed=0)
    other.load_state_dict(state)
    while learner.step < learner.steps:
        one, two = learner.update(), other.update()
        assert one.keys() == two.keys()
        assert all(float(one[name]) == float(two[name]) for name in one)
    for name, tensor in learner.policy().state_dict().items():
        assert torch.equal(other.policy().state_dict()[name], tensor)


def test_policy_tells_where_it_comes_from(small_config, points):
    info = SAFER(small_config, points, steps=20, seed=4).policy().info
    returns = points.episodes["return"]
    assert (info.algorithm, info.observation_size, info.action_size) == ("safer", 2, 2)
    assert info.cost_limit == small_config.cost_limit
    assert info.reward_range == (returns.min(), returns.max())
    assert info.training["seed"] == 4
    assert info.training["config"] == dataclasses.asdict(small_config)


def test_stages_split_the_steps_and_neither_is_empty(small_config, points):
    for share, steps, expected in ((0.25, 100, 25), (0.001, 10, 1), (0.999, 10, 9), (0.5, 2, 1)):
        config = dataclasses.replace(small_config, estimation_share=share)
        assert SAFER(config, points, steps=steps, seed=0).estimation.steps == expected
    for steps in (1, 0, -5):
        with pytest.raises(UsageError, match=f"at least 2 steps.* not {steps}"):
            SAFER(small_config, points, steps=steps, seed=0)


def test_what_never_varies_is_neither_read_nor_attacked(small_config, points):
    """A constant has a deviation of zero: any budget would be thousands of them."""
    arrays = points.to_arrays()
    for name in ("observations", "next_observations"):
        column = np.full((len(arrays[name]), 1), 0.1, np.float32)
        arrays[name] = np.concatenate([arrays[name], column], axis=1)
    constant = OfflineDataset.from_arrays({n: a for n, a in arrays.items() if "/" not in n})
    learner = SAFER(small_config, constant, steps=20, seed=0)
    while learner.step < learner.steps:
        learner.update()
    policy = learner.policy()
    observations = constant.observations.clone()
    observations[:, 2] += torch.linspace(-5, 5, len(observations))
    moved, still = policy.predict(observations.numpy()), policy.predict(arrays["observations"])
    assert np.array_equal(moved, still)
    actions = constant.actions
    for q in (policy.q_reward, policy.q_cost):
        assert torch.equal(q(observations, actions), q(constant.observations, actions))
    for units in ("raw", "std"):
        budget = attack_budget(0.05, policy.observation_std, units=units)
        assert budget[2] == 0
        assert (budget[:2] > 0).all()
        assert torch.isfinite(budget).all()


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cost_limit", -1.0),
        ("cost_limit", math.nan),
        ("cost_limit", math.inf),
        ("margin", -0.1),
        ("margin", math.nan),
        ("margin", math.inf),
        ("recovery_weight", -1.0),
        ("adversarial_weight", math.nan),
        ("cost_deviations", -1.0),
        ("episode_share", 0.0),
        ("episode_share", 1.0),
        ("estimation_share", 1.5),
        ("averaging_rate", 0.0),
        ("discount", 1.0),
        ("ramp_share", -0.1),
        ("candidate_kl", 0.0),
        ("candidate_kl", math.inf),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("attack_steps", 0),
        ("critic_members", 0),
        ("mixture_components", 0),
        ("batch_size", 0),
        ("candidates", 1),
        ("recovery_states", 0),
        ("hidden_sizes", (64, 0)),
        ("hidden_sizes", ()),
        ("estep_solver", "simplex"),
    ],
)
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"^{name} must be .*, but is "):
        SAFERConfig(**{name: value})


@pytest.mark.parametrize(
    ("epsilon", "units", "message"),
    [(-0.1, "raw", "not negative"), ((0.1,) * 3, "raw", "2 coordinates"), (0.1, "miles", "miles")],
)
def test_budgets_that_do_not_fit_the_data_are_refused(
    small_config, points, epsilon, units, message
):
    config = dataclasses.replace(small_config, epsilon=epsilon, epsilon_units=units)
    with pytest.raises(UsageError, match=message):
        SAFER(config, points, steps=10, seed=0)


def test_data_without_metadata_are_enough(small_config, points):
    arrays = {name: array for name, array in points.to_arrays().items() if "/" not in name}
    learner = SAFER(small_config, OfflineDataset.from_arrays(arrays), steps=4, seed=0)
    while learner.step < learner.steps:
        learner.update()
    policy = learner.policy()
    assert policy.env_id is None
    assert np.isfinite(policy.predict(points.observations.numpy())).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["margin=0.8"], {"margin": 0.8}),
        (["margin=1"], {"margin": 1.0}),
        (["batch_size=64", "discount=0.9"], {"batch_size": 64, "discount": 0.9}),
        (["hidden_sizes=256,256"], {"hidden_sizes": (256, 256)}),
        (["hidden_sizes=32"], {"hidden_sizes": (32,)}),
        (["estep_solver=cvxpy"], {"estep_solver": "cvxpy"}),
        (["margin=0.1", "margin=0.2"], {"margin": 0.2}),
        ([], {}),
    ],
)
def test_settings_as_text(settings, expected):
    config = parse_settings(SAFERConfig(cost_limit=3.0), settings)
    assert config == SAFERConfig(cost_limit=3.0, **expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("margn=0.8", "there is no 'margn'; the nearest is 'margin'"),
        ("margin", "NAME=VALUE"),
        ("=1", "there is no ''"),
        ("margin=wide", "must look like 0"),
        ("margin=", "must look like 0"),
        ("margin=True", "must look like 0"),
        ("margin=__import__('os')", "must look like 0"),
        ("batch_size=0.5", "must look like 256"),
        ("hidden_sizes=64,a", r"must look like 128,128"),
        ("hidden_sizes=64,2.5", r"must look like 128,128"),
        ("foretold=soon", r"must be whole numbers separated by commas"),
        ("batch_size=0", "batch_size must be >= 1"),
        ("recovery_horizon=-1", "recovery_horizon must be >= 0"),
        ("margin=1e999", "margin must be"),
        ("estep_solver=simplex", "newton or cvxpy"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        parse_settings(SAFERConfig(), [setting])


def test_the_estep_informs_where_it_prefers_an_action():
    weights = torch.tensor([[0.25, 1.0, 0.5], [0.25, 0.0, 0.5], [0.25, 0.0, 0.0], [0.25, 0.0, 0.0]])

    torch.testing.assert_close(information(weights), torch.tensor([0.0, 4.0, 2.0]).clamp(1).log())
