"""Imitation of what drivers meant: told what followed, and what is left over carried on."""

import copy
import dataclasses
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safer_offline import load_policy, train
from safer_offline.datasets import BoxSpace, Metadata, OfflineDataset, save_dataset
from safer_offline.datasets.larger_than_memory.cache import open_cached
from safer_offline.errors import UsageError
from safer_offline.learners import SAFER, SAFERConfig
from safer_offline.learners.safer.conditioned import SAFERConditionedConfig
from safer_offline.learners.safer.foretelling import (
    MOST_UNLIKE,
    StepsInPairs,
    corrections,
    what_follows,
    whom_to_act_like,
)
from safer_offline.policies.aiming import tell

GAIN, LASTING = -1.5, 0.8
"""Of each driver, action per speed; and what is left of a driver's noise a step later."""


def drivers_of_one_speed_each(episodes=150, length=40, seed=0):
    """Whoever drives keeps a speed of its own, with noise that lasts; faster than 1 costs.

    Observed are speed and way. Nothing observed tells which speed is wanted, but that it is mostly
    the one there is.
    """
    rng = np.random.default_rng(seed)
    seen, actions, after, rewards = [], [], [], []
    for _ in range(episodes):
        wanted = rng.uniform(0.1, 1.1)
        speed, way, noise = wanted, 0.0, 0.0
        for _ in range(length):
            noise = LASTING * noise + 0.05 * rng.standard_normal()
            action = np.clip(GAIN * (speed - wanted) + noise, -1, 1)
            seen.append((speed, way))
            speed, way = speed + 0.2 * action, way + 0.05 * speed
            actions.append([action])
            after.append((speed, way))
            rewards.append(speed)
    ends = np.arange(1, episodes * length + 1) % length == 0
    after = np.array(after, np.float32)
    arrays = {
        "observations": np.array(seen, np.float32),
        "next_observations": after,
        "actions": np.array(actions, np.float32),
        "rewards": np.array(rewards, np.float32),
        "costs": (after[:, 0] > 1).astype(np.float32),
        "terminals": np.zeros(len(ends), np.bool_),
        "timeouts": ends,
    }
    metadata = Metadata(
        observation_space=BoxSpace(low=(-100.0,) * 2, high=(100.0,) * 2),
        action_space=BoxSpace(low=(-1.0,), high=(1.0,)),
    )
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


@pytest.fixture(scope="module")
def drivers():
    return drivers_of_one_speed_each()


@pytest.fixture(scope="module")
def plain_config(small_config):
    return dataclasses.replace(
        small_config,
        **SAFER.unattacked | {"margin": 0.5},
        learning_rate=3e-3,
        averaging_rate=0.02,
        estimation_share=0.2,
    )


@pytest.fixture(scope="module")
def config(plain_config):
    return dataclasses.replace(plain_config, foretold=(2, 12))


def learn(config, dataset, *, steps=3_000, seed=0):
    learner = SAFER(config, dataset, steps=steps, seed=seed)
    while learner.step < steps:
        learner.update()
    return learner


def gain(policy, speed, *, way=0.8):
    """Change of the action per change of the speed."""
    ends = np.array([[speed - 0.1, way], [speed + 0.1, way]], np.float32)
    low, high = policy.predict(ends)[:, 0]
    return (high - low) / 0.2


def test_it_steers_as_the_drivers_do_where_a_clone_keeps_the_speed_it_has(
    drivers, config, plain_config
):
    clone = learn(plain_config, drivers).policy()
    learner = learn(config, drivers)
    policy = learner.policy()
    assert gain(clone, 0.8) > 0.1 * GAIN
    assert gain(policy, 0.8) < 0.5 * GAIN
    assert 0.5 * LASTING < float(learner.imitation.carried.detach()) < LASTING
    alone = dataclasses.replace(config, carry_noise=False)
    assert float(learn(alone, drivers, steps=40).imitation.carried) == 0
    # It drives at the speed that is told, from wherever it starts, whatever offset it sees.
    for told in (0.4, 0.7):
        driver = policy.aimed_at(reward_ahead=told)
        speed, way = np.array([0.3, 0.6, 0.9]), np.zeros(3)
        for _ in range(30):
            action = driver.predict(np.stack([speed, way], 1).astype(np.float32))[:, 0]
            speed, way = speed + 0.2 * action, way + 0.05 * speed
        assert np.abs(speed - told).max() < 0.12
    # As fast as the margin allows: it reaches to 0.95.
    assert 0.75 < policy.aims["reward_ahead"] < 0.96
    assert policy.aims["cost_ahead"] == 0


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    window=st.tuples(st.integers(0, 5), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_what_follows_is_what_the_window_holds(lengths, window, seed):
    first, last = window[0], window[0] + window[1]
    lengths = torch.tensor(lengths)
    starts = lengths.cumsum(0) - lengths
    signals = torch.rand(int(lengths.sum()), 2, generator=torch.Generator().manual_seed(seed))
    means, known = what_follows(signals, starts, lengths, first=first, last=last)
    wanted, half = [], []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        episode = signals[start : start + length]
        for step in range(length):
            left = episode[step + first : step + last]
            if 2 * (step + first) + (last - first) <= 2 * length:
                half.append(start + step)
            wanted.append((left if len(left) else episode[-1:]).mean(0))
    torch.testing.assert_close(means, torch.stack(wanted))
    assert known.tolist() == (half or list(range(len(signals))))


def test_steps_come_with_those_before_them(points):
    starts = torch.tensor(points.episodes["start"].to_numpy())
    ahead = torch.rand(points.num_transitions, 2)
    rows = torch.tensor([0, 1, 19, 20, 21, 400, 39])
    table = StepsInPairs(points, ahead, rows=rows, firsts=starts)
    assert table.num_rows == 7
    wanted = torch.tensor([6, 0, 3, 1])
    found, at = table.take(wanted), rows[wanted]
    follows = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert torch.equal(found["follows"], follows)
    for name, whole in (
        ("observations", points.observations),
        ("actions", points.actions),
        ("ahead", ahead),
    ):
        assert torch.equal(found[name], whole[at])
        assert torch.equal(found[f"{name}_before"], whole[at - follows.long()])
    (whole,) = table.stream()
    assert torch.equal(whole["actions"], points.actions[rows])


def test_it_acts_like_the_faster_of_those_who_are_followed_and_cost_least():
    ahead = torch.tensor([[1.0, 0.0], [9.0, 0.5], [2.0, 0.0], [3.0, 0.0], [7.0, 0.0]])
    assert whom_to_act_like(ahead, torch.tensor([0.2, 5.0, 0.1, 0.5, 0.0])) == (3.0, 0.0)
    assert whom_to_act_like(ahead, torch.tensor([0.6, 0.0, 0.35, 0.05, 0.0])) == (2.0, 0.0)
    assert whom_to_act_like(ahead, torch.tensor([0.92, 0.0, 0.05, 0.03, 0.0])) == (1.0, 0.0)
    assert whom_to_act_like(ahead, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])) == (9.0, 0.5)
    assert whom_to_act_like(ahead, torch.zeros(5)) == (7.0, 0.0)


def test_what_is_corrected_is_unlike_what_follows():
    rewards = torch.tensor([1.0, 1.1, 1.0, 1.3, 5.0])
    found = corrections(rewards, torch.ones(5))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.0, 3.0, MOST_UNLIKE]))
    torch.testing.assert_close(corrections(7 * rewards, 7 * torch.ones(5)), found)
    seldom = corrections(torch.tensor([0.0, 0.0, 0.0, 2.0]), torch.zeros(4))
    assert seldom.tolist() == [0, 0, 0, 4]
    assert corrections(torch.ones(3), torch.ones(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_corrections_are_drawn_more_often(config, drivers, weight):
    learner = learn(dataclasses.replace(config, correction_weight=weight), drivers, steps=20)
    starts, lengths = (torch.tensor(drivers.episodes[n].to_numpy()) for n in ("start", "length"))
    ahead, known = what_follows(drivers.rewards[:, None], starts, lengths, first=2, last=12)
    weights = 1 + weight * corrections(drivers.rewards[known], ahead[known, 0])
    apart = (drivers.observations[known, 0] - ahead[known, 0]).abs()
    batches = [learner.imitation.rows.sample() for _ in range(400)]
    drawn = torch.cat([one["observations"][:, 0] - one["ahead"][:, 0] for one in batches]).abs()
    wanted = float((weights * apart).sum() / weights.sum())
    assert float(drawn.mean()) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("step", [3, 9, 15])
def test_a_state_goes_on_where_it_was_taken(config, drivers, step):
    def learner():
        return SAFER(dataclasses.replace(config, estimation_share=0.5), drivers, steps=20, seed=0)

    whole, half, resumed = learner(), learner(), learner()
    for _ in range(step):
        half.update()
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    for one in (whole, half, resumed):
        while one.step < 20:
            one.update()
    wanted = whole.policy().state_dict()
    for one in (half, resumed):
        found = one.policy().state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert torch.equal(one.imitation.carried, whole.imitation.carried)


def test_data_on_disk_give_the_policy_of_memory(config, points, tmp_path):
    file = tmp_path / "points.h5"
    save_dataset(file, points)
    states = [
        learn(config, data, steps=8).policy().state_dict() for data in (points, open_cached(file))
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_its_file_acts_and_can_be_told_otherwise(config, points, tmp_path):
    made = train(config, points, out=tmp_path, steps=30, progress=False).policy
    policy = load_policy(tmp_path)
    assert policy.fingerprint == made.fingerprint
    assert policy.aims.keys() == {"reward_ahead", "cost_ahead"}
    observations = points.observations[:20].numpy()
    slower = policy.aimed_at(reward_ahead=policy.aims["reward_ahead"] - 1)
    assert not np.array_equal(policy.predict(observations), slower.predict(observations))


def test_who_tells_it_what_nobody_had_ahead_hears_of_it(config, points):
    policy = learn(config, points, steps=10).policy()
    ahead, _ = what_follows(
        points.rewards[:, None],
        torch.tensor(points.episodes["start"].to_numpy()),
        torch.tensor(points.episodes["length"].to_numpy()),
        first=config.foretold[0],
        last=config.foretold[1],
    )
    most = float(ahead[:, 0].quantile(0.99))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tell(policy, {"reward_ahead": most}).aims["reward_ahead"] == pytest.approx(most)
    with pytest.warns(UserWarning, match=r"reward_ahead 1000 is \d+ standard deviations"):
        assert tell(policy, {"reward_ahead": 1000.0}).aims["reward_ahead"] == 1000


@pytest.mark.parametrize("length", [1, 2, 5])
def test_episodes_shorter_than_the_window_are_learned_from(config, make_points, length):
    policy = learn(config, make_points(episodes=40, length=length), steps=10).policy()
    assert np.isfinite(policy.predict(np.zeros((1, 2), np.float32))).all()


def test_data_without_costs_are_learned_from(config, make_points):
    policy = learn(config, make_points(lanes=(-0.6, -0.3)), steps=10).policy()
    assert policy.aims["cost_ahead"] == 0
    assert np.isfinite(policy.predict(np.zeros((1, 2), np.float32))).all()


@pytest.mark.parametrize("window", [(3,), (5, 5), (-1, 4), (1, 2, 3)])
def test_windows_that_are_none_are_refused(window):
    with pytest.raises(UsageError, match=r"foretold must be two numbers of steps.*15,45"):
        SAFERConfig(foretold=window, adversarial_weight=0.0, recovery_weight=0.0)


@pytest.mark.parametrize("besides", [{"adversarial_weight": 0.0}, {"recovery_weight": 0.0}])
def test_it_is_in_place_of_attacks_and_recovery(besides):
    with pytest.raises(UsageError, match="adversarial_weight=0 and recovery_weight=0"):
        SAFERConfig(foretold=(15, 45), **besides)


def test_several_limits_and_budgets_cannot_be_foretold():
    with pytest.raises(UsageError, match="algorithm safer"):
        SAFERConditionedConfig(foretold=(15, 45), adversarial_weight=0.0, recovery_weight=0.0)
