"""Critics: their targets against brute force, the batched networks against single ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from safer_offline.policies.critics import CriticEnsemble, critic_loss, discounted_to_go
from safer_offline.policies.layers import (
    EnsembleMLP,
    Standardizer,
    gradient_step,
    mlp,
    polyak_update,
)


def brute_force(episode, *, cut, discount):
    """Discounted sums of an episode that is written out, or continued for a very long time."""
    if cut:
        episode = np.concatenate([episode, np.full(3_000, episode.mean())])
    weights = discount ** np.arange(len(episode))
    return [weights[: len(episode) - start] @ episode[start:] for start in range(len(episode))]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=4),
    discount=st.sampled_from([0.3, 0.9, 0.99]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None)
def test_targets_are_the_sums_one_gets_by_writing_episodes_out(lengths, discount, seed):
    rng = np.random.default_rng(seed)
    episodes = [rng.standard_normal(length) for length, _ in lengths]
    ends = np.cumsum([length for length, _ in lengths]) - 1
    terminals, timeouts = np.zeros((2, ends[-1] + 1), np.bool_)
    for end, (_, cut) in zip(ends, lengths, strict=True):
        (timeouts if cut else terminals)[end] = True
    signal = torch.from_numpy(np.concatenate(episodes).astype(np.float32))
    expected = [
        brute_force(episode.astype(np.float32), cut=cut, discount=discount)[: len(episode)]
        for episode, (_, cut) in zip(episodes, lengths, strict=True)
    ]
    targets = discounted_to_go(
        signal, torch.from_numpy(terminals), torch.from_numpy(timeouts), discount=discount
    )
    assert targets.dtype == torch.float32
    assert targets.numpy() == pytest.approx(np.concatenate(expected), rel=1e-4, abs=1e-4)


def test_a_constant_signal_of_a_cut_episode_is_worth_the_same_at_every_time():
    timeouts = torch.tensor([False, False, False, True])
    targets = discounted_to_go(
        torch.full((4,), 3.0), torch.zeros(4, dtype=torch.bool), timeouts, discount=0.9
    )
    assert targets.tolist() == pytest.approx([30.0] * 4)


# Networks


def test_the_ensemble_equals_its_members_one_by_one():
    torch.manual_seed(0)
    sizes, inputs = (5, 8, 6, 2), torch.randn(11, 5)
    ensemble = EnsembleMLP(3, sizes)
    outputs = ensemble(inputs)
    assert outputs.shape == (3, 11, 2)
    for member in range(3):
        single = mlp(sizes)
        layers = [layer for layer in single if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(layers, ensemble.weights, ensemble.biases, strict=True):
            layer.weight.data, layer.bias.data = weight[member].T, bias[member, 0]
        torch.testing.assert_close(outputs[member], single(inputs), rtol=1e-5, atol=1e-6)
    assert not torch.equal(outputs[0], outputs[1])


def test_members_start_in_the_range_of_linear_layers():
    torch.manual_seed(0)
    ensemble = EnsembleMLP(50, (16, 64, 1))
    for weight, bias, inputs in zip(ensemble.weights, ensemble.biases, (16, 64), strict=True):
        for parameter in (weight, bias):
            assert parameter.abs().max() <= inputs**-0.5
            assert parameter.abs().max() > 0.9 * inputs**-0.5
            assert parameter.mean().abs() < 0.2 * inputs**-0.5


def test_standardizer_standardises_and_goes_back():
    values = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    values = values * torch.tensor([3.0, 0.1, 0.0]) + torch.tensor([5.0, -2.0, 7.0])
    standardizer = Standardizer(3).fit(values)
    standard = standardizer(values)
    torch.testing.assert_close(standard.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard[:, :2].std(0), torch.ones(2), atol=1e-4, rtol=0)
    assert standardizer.std[2] == pytest.approx(1e-3)  # what never varies is not blown up
    torch.testing.assert_close(standardizer.inverse(standard), values)


def test_standardizer_is_exact_far_from_zero():
    """Summing float32 numbers near 1000 would lose the deviations."""
    values = 1000 + 0.01 * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    standardizer = Standardizer(1).fit(values)
    assert float(standardizer.std) == pytest.approx(float(values.double().std()), rel=1e-5)


def test_polyak_update_moves_by_its_rate():
    target, source = nn.Linear(2, 1), nn.Linear(2, 1)
    expected = 0.9 * target.weight.detach() + 0.1 * source.weight.detach()
    kept = source.weight.detach().clone()
    polyak_update(target, source, 0.1)
    torch.testing.assert_close(target.weight.detach(), expected)
    assert torch.equal(source.weight, kept)


def test_gradient_step_clips_the_norm_and_forgets_old_gradients():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for _ in range(2):
        weight.data.zero_()
        gradient_step(optimizer, (weight @ torch.tensor([300.0, 400.0])), max_norm=10.0)
        assert weight.tolist() == pytest.approx([-6, -8], rel=1e-4)


# Critics


@pytest.fixture
def critic():
    torch.manual_seed(0)
    critic = CriticEnsemble(3, 2, members=4, hidden_sizes=(16,))
    critic.observations.fit(5 + 2 * torch.randn(100, 3))
    critic.values.fit(40 + 10 * torch.randn(100, 1))
    return critic


def test_estimates_are_in_the_units_of_the_targets(critic):
    observations, actions = 5 + 2 * torch.randn(64, 3), torch.randn(64, 2)
    estimates = critic(observations, actions)
    assert estimates.shape == (4, 64)
    assert estimates.mean().item() == pytest.approx(40, abs=15)
    standard = critic.ensemble(torch.cat([critic.observations(observations), actions], -1))
    torch.testing.assert_close(estimates, critic.values.inverse(standard).squeeze(-1))
    torch.testing.assert_close(critic.mean(observations, actions), estimates.mean(0))


def test_the_cautious_estimate_lies_above_the_mean_by_the_members_spread(critic):
    observations, actions = torch.randn(64, 3), torch.randn(64, 2)
    mean = critic.mean(observations, actions)
    spread = critic(observations, actions).detach().numpy().std(0)
    assert torch.equal(critic.upper(observations, actions, deviations=0.0), mean)
    upper = critic.upper(observations, actions, deviations=2.0)
    assert (upper > mean).all()
    assert (upper - mean).detach().numpy() == pytest.approx(2 * spread, rel=1e-3)


def test_a_lone_member_has_no_spread():
    critic = CriticEnsemble(3, 2, members=1, hidden_sizes=(4,))
    observations, actions = torch.randn(5, 3), torch.randn(5, 2)
    upper = critic.upper(observations, actions, deviations=3.0)
    assert torch.equal(upper, critic.mean(observations, actions))


def test_the_loss_is_the_members_summed_squared_error_in_deviations(critic):
    observations, actions, targets = torch.randn(9, 3), torch.randn(9, 2), 30 * torch.randn(9)
    errors = (critic(observations, actions) - targets) / critic.values.std
    expected = (errors**2).mean(1).sum()
    torch.testing.assert_close(critic_loss(critic, observations, actions, targets), expected)


def test_critics_learn_what_can_be_learned(critic):
    generator = torch.Generator().manual_seed(1)
    observations = 5 + 2 * torch.randn(512, 3, generator=generator)
    actions = torch.randn(512, 2, generator=generator)
    targets = 40 + 5 * (observations[:, 0] - 5) - 4 * actions[:, 1].abs()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    first = critic_loss(critic, observations, actions, targets).item()
    for _ in range(200):
        loss = critic_loss(critic, observations, actions, targets)
        gradient_step(optimizer, loss, max_norm=10.0)
    assert loss.item() < 0.02 * first
    error = critic.mean(observations, actions) - targets
    assert error.abs().mean() < 0.1 * targets.std()
