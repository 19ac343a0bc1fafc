"""Policies that remember: each row its own episode, whatever the batch, the copies and the age."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from safer_offline.attacks import MAD, RowNoise
from safer_offline.attacks.base import rows_of
from safer_offline.errors import UsageError
from safer_offline.policies.actors import ActionBox
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy
from safer_offline.policies.transformer import SequencePolicy, attention, causal

DS, DA, LENGTH = 3, 2, 4


def trained(actor):
    info = PolicyInfo(algorithm="test", observation_size=DS, action_size=DA)
    return TrainedPolicy(info, actor=actor).requires_grad_(False)


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    box = ActionBox(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 4.0]))
    actor = SequencePolicy(
        DS, box, embedding_size=8, layers=2, heads=2, sequence_length=LENGTH, episode_length=20,
        reward_scale=0.5, cost_origin=3.0, stochastic=True,
    )  # fmt: skip
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return trained(actor).aimed_at(target_return=6.0, target_cost=2.0)


def story(seed, steps):
    """Observations, rewards and costs of one episode."""
    generator = np.random.default_rng(seed)
    return [
        (generator.standard_normal(DS).astype(np.float32), generator.random(), generator.random())
        for _ in range(steps)
    ]


def lived(policy, seed, steps):
    episode = policy.begin()
    actions = []
    for observation, reward, cost in story(seed, steps):
        actions.append(episode.predict(observation))
        episode.earn(reward, cost)
    return np.array(actions)


def test_the_same_observation_is_another_one_in_another_episode(policy):
    episode = policy.begin()
    observation = np.ones(DS, np.float32)
    actions = [episode.predict(observation) for _ in range(3)]
    assert actions[0].shape == (DA,)
    assert not np.array_equal(actions[0], actions[1])
    before = episode.action_distribution(torch.ones(1, DS))[0]
    episode.earn(5.0, 1.0)
    assert not torch.equal(before, episode.action_distribution(torch.ones(1, DS))[0])
    episode.restart()
    np.testing.assert_array_equal(episode.predict(observation), actions[0])


def test_rows_of_different_ages_live_as_if_alone(policy):
    """Row 1 begins anew after 3 steps, row 2 after 5, in the middle of what is remembered."""
    stories = {0: story(0, 9), 1: story(1, 3) + story(3, 6), 2: story(2, 5) + story(4, 4)}
    episodes = policy.begin(3)
    actions = []
    for step in range(9):
        if step == 3:
            episodes.restart(np.array([False, True, False]))
        if step == 5:
            episodes.restart([2])
        seen, rewards, costs = zip(*(stories[row][step] for row in range(3)), strict=True)
        actions.append(episodes.predict(np.array(seen)))
        episodes.earn(rewards, costs)
    actions = np.array(actions)
    alone = (
        lived(policy, 0, 9),
        np.concatenate([lived(policy, 1, 3), lived(policy, 3, 6)]),
        np.concatenate([lived(policy, 2, 5), lived(policy, 4, 4)]),
    )
    for row, expected in enumerate(alone):
        np.testing.assert_allclose(actions[:, row], expected, atol=1e-5)


def begun(policy, rows, steps):
    episodes = policy.begin(rows)
    for step in range(steps):
        episodes.predict(np.array([story(row, steps)[step][0] for row in range(rows)]))
        episodes.earn(np.arange(rows), np.ones(rows))
    return episodes


def test_copies_of_the_batch_and_some_of_its_rows_have_the_memory_of_theirs(policy):
    episodes = begun(policy, 4, 6)
    now = torch.randn(4, DS, generator=torch.Generator().manual_seed(0))
    mean, std = episodes.action_distribution(now)
    assert std.shape == (4, DA)
    copies, _ = episodes.action_distribution(torch.cat([now, now + 1, now]))
    torch.testing.assert_close(copies[:4], mean)
    torch.testing.assert_close(copies[8:], mean)
    assert not torch.isclose(copies[4:8], mean).all()
    mask = torch.tensor([True, False, True, True])
    some = rows_of(episodes, mask)
    torch.testing.assert_close(some.action_distribution(now[mask])[0], mean[mask])
    fewer = rows_of(some, torch.tensor([2]))
    torch.testing.assert_close(fewer.action_distribution(now[3:])[0], mean[3:])
    # What happens to some of them happens to them, and to no other.
    fewer.earn([4.0], [1.0])
    after, _ = episodes.action_distribution(now)
    torch.testing.assert_close(after[:3], mean[:3])
    assert not torch.isclose(after[3], mean[3]).all()
    with pytest.raises(UsageError, match="rows_of"):
        episodes.action_distribution(now[:3])


def test_an_attack_meets_the_memory_and_changes_none_of_it(policy):
    episodes = begun(policy, 4, 6)
    now = torch.randn(4, DS, generator=torch.Generator().manual_seed(0))
    expected, _ = episodes.action_distribution(now)
    epsilon = torch.full((DS,), 0.2)

    def attacked(victim):
        return MAD(steps=5, restarts=3).perturb(
            victim, now, epsilon=epsilon, noise=RowNoise.seeded(0, "mad", range(4))
        )

    shown = attacked(episodes)
    torch.testing.assert_close(episodes.action_distribution(now)[0], expected)
    harm = MAD().objective(episodes, now)
    assert (harm(shown) >= harm(attacked(policy))).float().mean() > 0.5
    assert not torch.equal(shown, attacked(policy))  # which stands at the beginning


def test_samples_are_within_bounds_and_remembered(policy):
    torch.manual_seed(0)
    one, other = policy.begin(2), policy.begin(2)
    seen = np.zeros((2, DS), np.float32)
    sampled = one.predict(seen, deterministic=False)
    assert not np.array_equal(sampled, other.predict(seen))
    assert (sampled >= [-1, -2]).all()
    assert (sampled <= [1, 4]).all()
    assert not np.array_equal(one.predict(seen), other.predict(seen))


def test_later_steps_than_the_training_saw_share_an_embedding(policy):
    assert np.isfinite(lived(policy, 0, 25)).all()


def test_who_asks_wrongly_is_told_how(policy):
    with pytest.raises(UsageError, match=r"policy\.begin\(\)"):
        policy.predict(np.zeros(DS))
    with pytest.raises(UsageError, match=r"begin\(rows=2\)"):
        policy.begin().predict(np.zeros((2, DS)))
    with pytest.raises(UsageError, match="coordinate 1 is nan"):
        policy.begin().predict(np.array([0, np.nan, 0]))
    with pytest.raises(UsageError, match="costs must be a finite number for each of 1"):
        policy.begin().earn(1.0, [1.0, 2.0])
    with pytest.raises(UsageError, match="at least one"):
        policy.begin(0)


def test_a_policy_without_memory_takes_the_same_calls():
    box = ActionBox(-torch.ones(DA), torch.ones(DA))
    policy = trained(GaussianPolicy(DS, box, hidden_sizes=(8,)))
    assert not policy.remembers
    episodes = policy.begin(2)
    seen = np.ones((2, DS), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(episodes.predict(seen), policy.predict(seen))
        episodes.earn([1.0, 2.0], [0.0, 0.0])
        episodes.restart()


@pytest.mark.parametrize("size", [2, 3, 8, 16])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_drops_what_pytorch_drops(size, masked):
    given = [torch.randn(5, 7, 2, size).transpose(1, 2).requires_grad_() for _ in range(3)]
    mask = causal(7, torch.device("cpu"))
    mask = (mask & (torch.rand(7, 7) < 0.7)) | torch.eye(7).bool() if masked else None
    results = []
    for drop in (0.0, 0.3):
        torch.manual_seed(1)
        wanted = scaled_dot_product_attention(
            *given, attn_mask=mask, is_causal=not masked, dropout_p=drop
        )
        torch.manual_seed(1)
        found = attention(*given, mask=mask, drop=drop)
        torch.testing.assert_close(found, wanted)
        for one, other in zip(
            torch.autograd.grad(found.square().sum(), given),
            torch.autograd.grad(wanted.square().sum(), given),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
        results.append(found)
    assert not torch.allclose(*results)
