"""Attacks that follow gradients are held against what is found without them."""

import pytest
import torch
from torch import nn

from safer_offline import evaluate
from safer_offline.attacks import MAD, CoupledMaxCost, GradientAttack, MaxCost
from safer_offline.evaluation.gates import gradients_lead_somewhere

BUDGET = torch.tensor([0.1, 0.1, 0.0])


class Smooth:
    """Acts by an S-shaped curve; its critics like what is above."""

    def __init__(self, seen=lambda observations: observations):
        self.seen = seen

    def action_distribution(self, observations):
        mean = torch.tanh(3 * self.seen(observations)[:, :2])
        return mean, torch.full_like(mean, 0.1)

    def q_reward(self, observations, actions):
        return actions[:, 1]

    def q_cost(self, observations, actions):
        return observations[:, 2] + actions[:, 0]


def in_steps(observations):
    """The same to within a sixteenth, but flat: no gradient gets through."""
    return (16 * observations).round() / 16


class Lost(GradientAttack):
    """Its steps lead down instead of up, so that the best it meets are its starts."""

    name = "lost"
    critics = ("cost",)
    starts = ("zero",)

    def objective(self, target, clean):
        def value(seen):
            cost = target.q_cost(clean, target.action_distribution(seen)[0])
            return cost.detach() - (cost - cost.detach())

        return value


def visited(rows=300):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))


def gates(*attacks, policy=None):
    victims = [(attack, policy or Smooth()) for attack in attacks]
    return gradients_lead_somewhere(victims, visited(), budget=BUDGET)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_where_gradients_lead_somewhere_nothing_is_said(steps):
    settings = {"steps": steps, "restarts": 2}
    assert gates(MAD(**settings), MaxCost(**settings), CoupledMaxCost(**settings)) == []


def test_masked_gradients_are_found_by_whoever_needs_none():
    (only,) = gates(MAD(restarts=1), policy=Smooth(in_steps))
    assert "a search without gradients" in only
    assert "add 'search'" in only


def test_an_attack_that_noise_outdoes_is_named():
    failures = gates(Lost(restarts=1), MaxCost(steps=3, restarts=1))
    assert len(failures) == 1
    assert failures[0].startswith("lost reaches")
    assert "uniform noise" in failures[0]


def test_an_attack_that_gets_worse_with_more_steps_is_named():
    class Tiring(MaxCost):
        """Its objective turns when it is asked too often."""

        name = "tiring"

        def objective(self, target, clean):
            value, sign = super().objective(target, clean), 1 if self.steps <= 5 else -1
            return lambda seen: sign * value(seen)

        def allowed(self, clean, *, epsilon, previous):
            return super().allowed(clean, epsilon=epsilon, previous=previous)

    Tiring.allowed = GradientAttack.allowed
    failures = gates(Tiring(steps=5, restarts=1))
    assert len(failures) == 1
    assert "less with twice the gradient steps" in failures[0]


class Masked(nn.Module):
    def forward(self, observations):
        return in_steps(observations)


def test_the_report_says_so():
    report = evaluate(
        Masked(), env="toy_environments:make_point", attacks="natural,mad", epsilon=0.1,
        attack_set=["mad.restarts=1"], episodes=2, workers=0, cost_limit=3, progress=False,
    )  # fmt: skip
    (failure,) = report.gate_failures()
    assert "a search without gradients" in failure
    honest = evaluate(
        nn.Tanh(), env="toy_environments:make_point", attacks="natural,mad", epsilon=0.1,
        attack_set=["mad.restarts=1"], episodes=2, workers=0, cost_limit=3, progress=False,
    )  # fmt: skip
    assert honest.gate_failures() == []
    without = evaluate(
        Masked(), env="toy_environments:make_point", attacks="natural,mad", epsilon=0.0,
        attack_set=["mad.restarts=1"], episodes=2, workers=0, cost_limit=3, progress=False,
    )  # fmt: skip
    assert without.gate_failures() == []
