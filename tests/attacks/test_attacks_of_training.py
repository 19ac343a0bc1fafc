"""Attacks that a policy meets while it learns: by name, together where that changes nothing."""

import pytest
import torch

from safer_offline.attacks import (
    CoupledMaxCost,
    GeneratorNoise,
    Jointly,
    MaxCost,
    MaxReward,
    MinReward,
    Uniform,
    training_attacks,
)
from safer_offline.errors import UsageError
from safer_offline.learners.robust import Adversary, RobustConfig
from safer_offline.policies.gaussian import ActionBox, GaussianPolicy
from safer_offline.policies.layers import gradient_step


def test_attacks_that_follow_gradients_within_all_of_the_budget_climb_together():
    (attack,) = training_attacks(("mc", "mr", "minr"), steps=3)
    assert isinstance(attack, Jointly)
    assert [type(one) for one in attack.attacks] == [MaxCost, MaxReward, MinReward]
    assert (attack.steps, attack.restarts) == (3, 1)


@pytest.mark.parametrize(("other", "kind"), [("uniform", Uniform), ("coupled", CoupledMaxCost)])
def test_others_attack_their_rows_by_themselves(other, kind):
    first, second = training_attacks(("mc", other), steps=3)
    assert (type(first), first.steps, first.restarts) == (MaxCost, 3, 1)
    assert type(second) is kind


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ((), "^attacks names nobody; adversarial_weight=0 goes without"),
        (("mc", "amad"), "'amad' needs a finished policy"),
        (("learned",), "'learned' needs a finished policy"),
        (("mcc",), "the nearest known one is 'mc'"),
    ],
)
def test_whom_nobody_can_train_under_is_refused(names, match):
    with pytest.raises(UsageError, match=match):
        training_attacks(names, steps=3)


class Tempted:
    """A victim that is paid for large actions."""

    def __init__(self, policy):
        self.action_distribution = policy

    def q_reward(self, observations, actions):
        return actions[:, 0]


def mean_excess(*attacks):
    """Of what a policy does above what it imitates, a sine, after training under attacks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = GaussianPolicy(1, ActionBox(-torch.ones(1), torch.ones(1)), hidden_sizes=(32, 32))
    generator = torch.Generator().manual_seed(0)
    adversary = Adversary(
        RobustConfig(adversarial_weight=1.0, ramp_share=0.0),
        budget=torch.tensor([0.3]),
        noise=GeneratorNoise(generator),
        attacks=training_attacks(attacks, steps=4),
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    for _ in range(400):
        observations = 6 * torch.rand(96, 1, generator=generator) - 3
        actions = 0.6 * torch.sin(2 * observations)
        loss, _ = adversary.loss(
            policy, Tempted(policy), observations, actions, torch.ones(96), done=1.0
        )
        gradient_step(optimizer, loss, max_norm=10.0)
    observations = torch.linspace(-2.5, 2.5, 200)[:, None]
    with torch.no_grad():
        return (policy(observations)[0] - 0.6 * torch.sin(2 * observations)).mean().item()


def test_who_tempts_makes_too_careful_and_who_holds_back_undoes_that():
    tempted, both = mean_excess("mr"), mean_excess("mr", "minr")
    assert tempted < -0.05
    assert abs(both) < 0.4 * -tempted
