"""Certificates: nothing is ever outside of them, and they say what they do not cover."""

import dataclasses
import itertools
import json
import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from safer_offline.attacks import attack_budget
from safer_offline.cli.main import app
from safer_offline.context import BoxSpace, EnvironmentContext
from safer_offline.environments.source import EnvironmentSource
from safer_offline.evaluation.budgets import evaluate_budgets
from safer_offline.evaluation.certificates import bounds
from safer_offline.evaluation.certificates.bounds import (
    Dense,
    Interval,
    Network,
    mean_bounds,
    network_bounds,
    split_bounds,
)
from safer_offline.evaluation.certificates.certificate import certify
from safer_offline.evaluation.certificates.measures import certified_actions, certified_cost
from safer_offline.evaluation.certificates.networks import action_network
from safer_offline.evaluation.foreign import ForeignPolicy
from safer_offline.evaluation.harness import evaluate
from safer_offline.policies.actors import ActionBox
from safer_offline.policies.conditioned import CostConditionedPolicy
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.foretold import ForetoldPolicy
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.limit_and_budget import LimitAndBudgetPolicy
from safer_offline.policies.squashed import SquashedGaussianPolicy
from safer_offline.policies.switching import SwitchingPolicy
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy

DS, DA = 7, 2
SOURCE = EnvironmentSource(name="ball-run", max_episode_steps=12)
FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh}


def random_network(seed, *, inputs, hidden, outputs, activation, scale):
    generator = torch.Generator().manual_seed(seed)
    sizes = [inputs, *hidden, outputs]
    layers = [
        Dense(
            scale * torch.randn(after, before, generator=generator).double() / before**0.5,
            torch.randn(after, generator=generator).double(),
        )
        for before, after in itertools.pairwise(sizes)
    ]
    return Network(tuple(layers), (activation,) * len(hidden))


def answers(network, inputs):
    hidden = inputs
    for depth, (weight, bias) in enumerate(network.layers):
        hidden = hidden @ weight.T + bias
        if depth < len(network.activations):
            hidden = FUNCTIONS[network.activations[depth]](hidden)
    return hidden


def by_intervals_alone(network, box, *, rounding):
    """Interval bounds as everybody writes them down, widened at each layer by its rounding."""
    lower, upper = box
    for depth, (weight, bias) in enumerate(network.layers):
        up, down = weight.clamp_min(0), weight.clamp_max(0)
        largest = torch.maximum(lower.abs(), upper.abs())
        spare = rounding * (1 + largest @ weight.abs().T + bias.abs())
        lower, upper = (
            lower @ up.T + upper @ down.T + bias - spare,
            upper @ up.T + lower @ down.T + bias + spare,
        )
        if depth < len(network.activations):
            lower, upper = (FUNCTIONS[network.activations[depth]](x) for x in (lower, upper))
    return Interval(lower, upper)


def points_of(box, count, generator):
    """Random points of boxes (B, n), corners, and whatever lies on a side: (count, B, n)."""
    units = 2 * torch.rand(count, *box.lower.shape, generator=generator).double() - 1
    units[: count // 3] = units[: count // 3].sign()
    units[count // 3 : count // 2] = (3 * units[count // 3 : count // 2]).clamp(-1, 1)
    units[0] = 0
    return (box.lower + box.upper) / 2 + (box.upper - box.lower) / 2 * units


@given(
    seed=st.integers(0, 10_000),
    hidden=st.lists(st.integers(1, 12), max_size=3),
    kind=st.tuples(st.sampled_from(["relu", "tanh"]), st.sampled_from([0.1, 1.0, 5.0, 40.0])),
    reach=st.lists(st.sampled_from([0.0, 1e-9, 0.01, 0.3, 4.0]), min_size=3, max_size=3),
    splits=st.integers(0, 2),
)
@settings(deadline=None, max_examples=120)
def test_no_answer_is_outside_of_the_bounds_and_they_are_no_looser_than_intervals(
    seed, hidden, kind, reach, splits
):
    activation, scale = kind
    network = random_network(
        seed, inputs=3, hidden=hidden, outputs=2, activation=activation, scale=scale
    )
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(5, 3, generator=generator)
    box = Interval.around(centres, torch.tensor(reach))
    found = answers(network, points_of(box, 600, generator))
    whole = network_bounds(network, box).interval
    for lower, upper in (whole, split_bounds(network, box, splits=splits)):
        assert (found >= lower).all()
        assert (found <= upper).all()
        simple = by_intervals_alone(network, box, rounding=1.1 * bounds.ROUNDING)
        assert (lower >= simple.lower).all()
        assert (upper <= simple.upper).all()
        assert (lower >= whole.lower).all()
        assert (upper <= whole.upper).all()


def test_bounds_are_exact_where_nothing_bends():
    network = random_network(0, inputs=3, hidden=(), outputs=2, activation="relu", scale=1.0)
    box = Interval.around(torch.randn(4, 3), torch.tensor([0.1, 0.0, 2.0]))
    corners = torch.stack([torch.where(torch.tensor(c), *box) for c in
                           itertools.product([True, False], repeat=3)])  # fmt: skip
    found = answers(network, corners)
    lower, upper = network_bounds(network, box).interval
    torch.testing.assert_close(lower, found.amin(0))
    torch.testing.assert_close(upper, found.amax(0))


def test_crown_sees_what_intervals_forget():
    """relu(x + 3) - relu(x + 3) is zero, and intervals do not know it."""
    one = torch.ones(2, 1).double()
    network = Network(
        (Dense(one, 3 * one[:, 0]), Dense(torch.tensor([[1.0, -1.0]]).double(), one[:1, 0] * 0)),
        ("relu",),
    )
    box = Interval(-one[:1], one[:1])
    lower, upper = network_bounds(network, box).interval
    assert by_intervals_alone(network, box, rounding=0) == (-2, 2)
    assert upper.item() - lower.item() < 1e-9


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_lines_stay_on_their_side_of_the_activation(activation):
    ends = torch.tensor([-30.0, -3, -1, -1e-9, 0, 1e-12, 0.2, 1, 1 + 1e-15, 7, 400]).double()
    pairs = torch.tensor([p for p in itertools.product(ends, ends) if p[0] <= p[1]]).double()
    interval = Interval(pairs[:, :1], pairs[:, 1:])
    below, above = bounds.LINES[activation](interval)
    shares = torch.linspace(0, 1, 401).double()
    x = interval.lower + shares * (interval.upper - interval.lower)
    y = FUNCTIONS[activation](x)
    spare = 1e-13 * (1 + x.abs())
    assert (below.slope * x + below.constant <= y + spare).all()
    assert (above.slope * x + above.constant >= y - spare).all()


def test_the_mean_of_networks_is_bounded_as_one():
    """A network and its opposite cancel: their mean is zero, whatever each of them is."""
    network = random_network(3, inputs=3, hidden=(8,), outputs=1, activation="relu", scale=1.0)
    last = Dense(-network.layers[-1].weight, -network.layers[-1].bias)
    opposite = network._replace(layers=(network.layers[0], last))
    box = Interval.around(torch.randn(6, 3), torch.full((3,), 0.5))
    lower, upper = mean_bounds([network, opposite], box)
    alone = network_bounds(network, box).interval
    assert ((lower <= 0) & (upper >= 0)).all()
    assert (upper - lower <= alone.upper - alone.lower).all()
    assert (upper - lower).mean() < 0.9 * (alone.upper - alone.lower).mean()


# Policies


def make_policy(kind=GaussianPolicy, *, critic=True, seed=0, discount=0.95, **more):
    torch.manual_seed(seed)
    box = ActionBox(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0]))
    experts = {"limits": 2, "shares": 2} if kind is LimitAndBudgetPolicy else {}
    actor = kind(DS, box, hidden_sizes=(16, 16), **experts, **more)
    with torch.no_grad():
        for weights in actor.parameters():
            weights.mul_(1.5)
    seen = 0.5 + torch.randn(500, DS) * torch.tensor([0.1, 0.3, 1.0, 2.0, 0.2, 0.5, 0.0])
    actor.observations.fit(seen, leave_out_constants=True)
    if kind is CostConditionedPolicy:
        actor.standardize_told(type(actor.observations)(1).fit(torch.linspace(0, 30, 100)[:, None]))
        actor.target_cost.fill_(12.0)
    if kind is ForetoldPolicy:
        ahead = type(actor.observations)(2).fit(torch.randn(100, 2) * torch.tensor([2.0, 0.1]))
        actor.standardize_told(ahead)
        actor.reward_ahead.fill_(3.0)
        actor.cost_ahead.fill_(0.1)
    if kind is LimitAndBudgetPolicy:
        actor.standardize(actor.observations)
        actor.limits.copy_(torch.tensor([5.0, 10.0]))
        actor.shares.copy_(torch.tensor([0.5, 1.0]))
        actor.target_cost.fill_(12.0)
    cost = None
    if critic:
        cost = CriticEnsemble(DS, DA, members=2, hidden_sizes=(12, 12))
        cost.observations.fit(seen, leave_out_constants=True)
        cost.values.fit(3 + torch.randn(100, 1))
    info = PolicyInfo(
        algorithm="test",
        observation_size=DS,
        action_size=DA,
        context=EnvironmentContext(),
        cost_limit=10.0,
        training={"config": {"discount": discount}},
    )
    policy = TrainedPolicy(info, actor=actor, cost_critic=cost)
    return policy.requires_grad_(False), seen


KINDS = [
    GaussianPolicy,
    SquashedGaussianPolicy,
    CostConditionedPolicy,
    ForetoldPolicy,
    LimitAndBudgetPolicy,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [0.0, 0.02, [0.0, 0.3, 0.0, 0.1, 0.0, 0.02, 0.5]])
def test_no_action_is_outside_of_what_is_certified(kind, budget):
    policy, seen = make_policy(kind)
    acting, states = action_network(policy), seen[:20]
    reach = attack_budget(budget, policy.observation_std)
    assert reach[-1] == 0, "what never varies is not read, so there is nothing to attack"
    lower, upper = certified_actions(acting, states, reach, done=lambda rows: None)
    box = Interval.around(states, reach)
    met = points_of(box, 2000, torch.Generator().manual_seed(1)).float()
    met[..., -1] = 1e6  # whatever stands where the policy does not look
    actions = torch.from_numpy(policy.predict(met.flatten(0, 1).numpy())).view(-1, 20, DA)
    spare = 1e-5 * (acting.high - acting.low)
    assert (actions >= lower - spare).all()
    assert (actions <= upper + spare).all()
    assert (lower >= acting.low - spare).all()
    assert (upper <= acting.high + spare).all()
    if budget == 0:
        natural = torch.from_numpy(policy.predict(states.numpy())).double()
        assert ((upper - lower) <= spare).all()
        assert ((natural - lower).abs() <= spare).all()


def foreign(network, **bounds):
    low, high = bounds.get("low", (-1.0,) * DA), bounds.get("high", (1.0,) * DA)
    return ForeignPolicy(
        network or (lambda observations: observations[:, :DA]),
        differentiable=True,
        context=EnvironmentContext(
            env_id="somewhere",
            observation_space=BoxSpace(low=(-9.0,) * DS, high=(9.0,) * DS),
            action_space=BoxSpace(low=low, high=high),
        ),
        network=network,
    )


SEQUENTIALS = {
    "clipped": lambda: (nn.Linear(DS, 16), nn.ReLU(), nn.Linear(16, DA)),
    "squashed": lambda: (nn.Linear(DS, 16), nn.Tanh(), nn.Linear(16, 8), nn.ReLU(),
                         nn.Linear(8, DA), nn.Tanh()),
    "folded": lambda: (nn.Sequential(nn.Linear(DS, 9), nn.Linear(9, 5, bias=False)), nn.Identity(),
                       nn.Tanh(), nn.Linear(5, DA)),
    "linear": lambda: (nn.Linear(DS, DA),),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENTIALS)
def test_networks_of_others_are_bounded_behind_the_clipping_of_their_actions(name):
    torch.manual_seed(4)
    policy = foreign(nn.Sequential(*SEQUENTIALS[name]()).requires_grad_(False))
    states, reach = 3 * torch.randn(20, DS), torch.full((DS,), 0.2)
    lower, upper = certified_actions(action_network(policy), states, reach, done=lambda rows: None)
    met = points_of(Interval.around(states, reach), 1000, torch.Generator().manual_seed(0)).float()
    actions = torch.from_numpy(policy.predict(met.flatten(0, 1).numpy())).view(-1, 20, DA)
    assert (actions >= lower - 1e-5).all()
    assert (actions <= upper + 1e-5).all()
    assert (lower >= -1).all()
    assert (upper <= 1).all()
    assert (upper - lower).mean() < 1.5, "the bounds say something"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: foreign(None), "what it is inside is not known"),
        (lambda: foreign(nn.Sequential(nn.Linear(DS, DA), nn.LayerNorm(DA))), "has a LayerNorm"),
        (lambda: foreign(nn.Sequential(nn.ReLU(), nn.Linear(DS, DA))), "has a ReLU"),
        (lambda: foreign(nn.Sequential(nn.Linear(DS, DA), nn.Tanh(), nn.ReLU())), "has a ReLU"),
        (lambda: foreign(nn.Sequential(nn.Identity())), "has no layer"),
        (lambda: foreign(nn.Linear(DS, DA), high=(1.0, math.inf)), "actions have no bounds"),
        (lambda: make_policy(SwitchingPolicy, critic=False, heads=2, critic_members=2,
                             critic_hidden_sizes=(4,))[0], r"network (switching) is none"),
        (object, "a object cannot be looked into"),
    ],
)  # fmt: skip
def test_what_cannot_be_certified_is_told_and_why(make, told):
    found = certify(make(), torch.zeros(5, DS), budget=torch.ones(DS), cost_limit=1.0, horizon=10)
    assert told in found.refused
    assert found.certified is found.cost is None
    assert found.failures == ()


def test_a_subclass_that_acts_otherwise_is_not_taken_for_its_base():
    class Contrary(GaussianPolicy):
        def forward(self, observations):
            mean, std = super().forward(observations)
            return -mean, std

    policy, _ = make_policy()
    policy.actor.__class__ = Contrary
    assert isinstance(action_network(policy), str)


# Cost


def test_no_action_of_an_interval_is_expected_to_cost_more_than_is_certified():
    policy, seen = make_policy()
    states = seen[:15]
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([-1.0, 0.0]).double(), torch.tensor([1.0, 5.0]).double()
    ends = low + (high - low) * torch.rand(2, 15, DA, generator=generator).double()
    ends[:, 0] = ends[0, 0]  # an interval of one action
    actions = Interval(ends.amin(0), ends.amax(0))
    worst = certified_cost(policy.cost_critic, states, actions, done=lambda rows: None)
    met = points_of(actions, 1000, generator).float()
    cost = policy.q_cost(states.repeat(1000, 1), met.flatten(0, 1)).view(1000, 15)
    assert (cost.double() <= worst + 1e-5).all()
    assert cost[0, 0].item() == pytest.approx(worst[0].item(), abs=1e-5)
    assert (worst - cost.amax(0)).mean() < 1, "a deviation of the values is 1"


def certified(policy, seen, *, budget=0.05, cost_limit=10.0, horizon=20, seed=0):
    reach = attack_budget(budget, policy.observation_std)
    return certify(
        policy, seen, budget=reach, cost_limit=cost_limit, horizon=horizon, seed=seed,
        progress=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [0.0, 0.01, 0.2])
def test_attacks_find_no_more_than_is_certified_and_nothing_goes_beyond_what_is_possible(
    kind, budget
):
    policy, seen = make_policy(kind)
    found = certified(policy, seen[:150], budget=budget)
    assert found.states == 150
    assert found.failures == ()
    for name in ("mean", "worst"):
        least, most, any_action = (
            getattr(one, name) for one in (found.found, found.certified, found.possible)
        )
        assert 0 <= least <= most + 1e-6
        assert most <= any_action + 1e-6
        assert any_action <= 1 + 1e-6
    assert found.cost.certified <= found.cost.found <= found.cost.natural
    if budget == 0:
        assert found.certified.worst < 1e-6
        assert found.cost.certified == pytest.approx(found.cost.natural, abs=0.01)
    else:
        assert found.found.mean > 0.1 * found.certified.mean, "the attack is one"
    assert certified(policy, seen[:150], budget=budget) == found


def test_more_states_than_are_looked_at_are_drawn_from(monkeypatch):
    policy, seen = make_policy(critic=False)
    monkeypatch.setattr("safer_offline.evaluation.certificates.certificate.STATES", 30)
    one, other = (certified(policy, seen, seed=seed) for seed in (0, 1))
    assert one.states == other.states == 30
    assert one.certified != other.certified


def test_the_limit_is_told_in_the_unit_of_the_critic():
    policy, seen = make_policy(discount=0.95)
    found = certified(policy, seen[:5], cost_limit=10.0, horizon=20).cost
    # Half a unit of cost a step, for ever: 0.5 + 0.5 * 0.95 + ...
    assert found.limit == pytest.approx(sum(0.5 * 0.95**step for step in range(2000)))
    assert found.discount == 0.95
    ending = dict(policy.info.training, config={"discount": 0.95, "timeouts_end": True})
    policy.info = dataclasses.replace(policy.info, training=ending)
    found = certified(policy, seen[:5], cost_limit=10.0, horizon=20).cost
    assert found.limit == pytest.approx(sum(0.5 * 0.95**step for step in range(20)))


@pytest.mark.parametrize(
    ("policy", "given", "told"),
    [
        ({"critic": False}, {}, "it has no critic of cost"),
        ({}, {"cost_limit": None}, "nobody says what an episode may cost"),
        ({"discount": None}, {}, "does not say by what its critic discounts"),
        ({}, {"horizon": None}, "nobody says how long an episode is"),
    ],
)
def test_without_what_it_takes_nothing_is_said_of_cost(policy, given, told):
    made, seen = make_policy(**policy)
    found = certified(made, seen[:5], **given)
    assert told in found.cost_refused
    assert found.cost is None
    assert found.certified is not None


def test_a_contradiction_is_a_failed_gate(monkeypatch):
    """If bounds were wrong, the attacks would show it, and nobody would miss it."""
    policy, seen = make_policy()

    def shrunk(*given, **options):
        lower, upper = split_bounds(*given, **options)
        return Interval(lower + 0.3 * (upper - lower), upper - 0.3 * (upper - lower))

    monkeypatch.setattr("safer_offline.evaluation.certificates.measures.split_bounds", shrunk)
    monkeypatch.setattr(
        "safer_offline.evaluation.certificates.certificate.certified_cost",
        lambda critic, states, actions, done: torch.full((len(states),), -50.0).double(),
    )
    action, cost = certified(policy, seen[:50], budget=0.02).failures
    assert "moves the action out of the certified bounds at" in action
    assert "expected cost above the certified one at 50 of 50 states" in cost


# In an evaluation


def settings_of(**more):
    shared = {"env": SOURCE, "attacks": "natural,uniform", "episodes": 2, "workers": 0}
    return shared | {"progress": False, "cost_limit": 5.0} | more


@pytest.mark.filterwarnings("ignore:.*trained")
def test_an_evaluation_takes_its_certificate_along(tmp_path):
    policy, _ = make_policy()
    report = evaluate(policy, **settings_of(certify=True))
    plain = evaluate(policy, **settings_of())
    pd.testing.assert_frame_equal(report.episodes, plain.episodes, check_exact=True)
    assert report.plan.name != plain.plan.name, "neither replaces the other"
    assert plain.certificate is None
    assert "ertified" not in str(plain)
    text = " ".join(str(report).split())
    assert "Certified at 240 visited states" in text
    assert "critic counts discounted cost, in which the limit of 5 is 8.33" in text
    assert "Not certified: whole episodes" in text


@pytest.mark.filterwarnings("ignore:.*trained")
def test_each_budget_has_its_certificate_and_the_larger_certifies_less():
    policy, _ = make_policy(critic=False)
    report = evaluate_budgets(policy, budgets=(0, 1, 2), **settings_of(certify=True))
    one, two = (report.reports[multiple].certificate for multiple in (1, 2))
    assert report.reports[0].certificate is None
    assert one.certified.mean < two.certified.mean
    told = report.certified()
    assert [line.split(":")[0] for line in told] == ["ε = 0.05", "ε = 0.1", "Not certified"]
    alone = evaluate(policy, **settings_of(certify=True, epsilon=0.1))
    assert alone.certificate == two


def test_the_command_line_certifies_several_runs_and_says_of_whom_it_cannot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy, _ = make_policy()
    policy.save("ours/policy.safetensors")
    (tmp_path / "steady.py").write_text("def still(observation):\n    return [0.0, 0.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["evaluate", "ours", "steady:still", "--certify", "--env", "ball-run"]
    arguments += ["--attacks", "natural", "--episodes", "1", "--max-episode-steps", "5"]
    done = CliRunner().invoke(app, [*arguments, "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "Certified at 100 visited states: no attack moves the action by more" in done.output
    assert "Nothing is certified: what it is inside is not known; give a Sequential" in done.output
    reports = {
        document["config"]["policy_sha256"]: document
        for document in (json.loads(p.read_text()) for p in tmp_path.glob("**/evaluation.json"))
    }
    assert len(reports) == 2
    ours = reports.pop(policy.fingerprint)
    (other,) = reports.values()
    assert ours["config"]["certify"] is True
    assert ours["certificate"]["states"] == 100
    assert ours["certificate"]["certified"]["mean"] >= ours["certificate"]["found"]["mean"]
    assert len(ours["certificate"]["certified"]["by_coordinate"]) == DA
    assert 0 <= ours["certificate"]["cost"]["certified"] <= 1
    assert other["certificate"]["certified"] is None
    assert other["certificate"]["refused"]
