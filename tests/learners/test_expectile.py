"""Expectiles against those of known distributions, and what else implicit Q-learning needs."""

import pytest
import torch

from safer_offline.errors import UsageError
from safer_offline.learners.caps import CAPSConfig
from safer_offline.learners.expectile import (
    ImplicitValue,
    cosine_rate,
    expectile_loss,
    exponential_weights,
)
from safer_offline.policies.critics import CriticEnsemble, StateValue


def minimiser(loss, start=0.0):
    """Where a loss of one number is least."""
    value = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([value], max_iter=200, line_search_fn="strong_wolfe",
                                  tolerance_grad=1e-10, tolerance_change=1e-14)  # fmt: skip

    def closure():
        optimizer.zero_grad()
        result = loss(value)
        result.backward()
        return result

    optimizer.step(closure)
    return value.item()


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.7, 0.9, 0.99])
def test_the_loss_is_least_at_the_expectile(expectile):
    """Of a uniform distribution, and of two values, where it is known in closed form."""
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    found = minimiser(lambda v: expectile_loss(uniform - v, expectile=expectile))
    wanted = expectile**0.5 / (expectile**0.5 + (1 - expectile) ** 0.5)
    assert found == pytest.approx(wanted, abs=1e-5)

    two = torch.tensor([-1.0, 3.0], dtype=torch.float64)
    found = minimiser(lambda v: expectile_loss(two - v, expectile=expectile))
    assert found == pytest.approx(-(1 - expectile) + 3 * expectile, abs=1e-5)
    # Reversed: what should be small is valued by nearly the least.
    found = minimiser(lambda v: expectile_loss(v - two, expectile=expectile))
    assert found == pytest.approx(-expectile + 3 * (1 - expectile), abs=1e-5)


@pytest.mark.parametrize("less_is_better", [False, True])
def test_caution_doubts_rewards_and_fears_costs(less_is_better):
    torch.manual_seed(0)
    critic = CriticEnsemble(2, 1, members=3, hidden_sizes=(8,))
    value = ImplicitValue(
        critic, StateValue(2, members=1, hidden_sizes=(8,)), less_is_better=less_is_better
    )
    batch = {"observations": torch.randn(20, 2), "actions": torch.randn(20, 1)}
    estimates = critic(batch["observations"], batch["actions"])
    (states,) = value.value(batch["observations"])
    if less_is_better:
        wanted = states - torch.stack(list(estimates)).max(dim=0).values
    else:
        wanted = torch.stack(list(estimates)).min(dim=0).values - states
    torch.testing.assert_close(value.advantages(batch), wanted)


def test_weights_grow_with_the_advantage_up_to_a_cap():
    advantages = torch.tensor([-1.0, 0.0, 0.5, 100.0], requires_grad=True)
    weights = exponential_weights(advantages, beta=2.0, cap=50.0)
    torch.testing.assert_close(weights, torch.tensor([0.13533528, 1.0, 2.7182817, 50.0]))
    assert not weights.requires_grad


def test_the_learning_rate_is_pytorch_s_cosine_and_then_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for step in range(11):
        wanted = pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        assert cosine_rate(0.3, step=step, decay_steps=10) == wanted
        optimizer.step()
        schedule.step()
    assert cosine_rate(0.3, step=25, decay_steps=10) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "setting",
    [{"expectile": 1.0}, {"cost_expectile": 0.0}, {"reward_beta": -1.0}, {"target_rate": 1.5},
     {"value_rate": 0.0}, {"weight_cap": float("nan")}, {"actor_decay_steps": 0}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        CAPSConfig(**setting)
