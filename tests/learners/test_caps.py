"""CAPS against its formulas on plain networks, and how it switches."""

import copy
import itertools

import pytest
import torch
from beside_osrl import SMALL, assert_same_parameters, copy_ensemble, copy_layers, linears
from torch import nn

from safer_offline import load_policy
from safer_offline.errors import UsageError
from safer_offline.learners.caps import CAPS, CAPSConfig, mixtures

SETTINGS = SMALL | {
    "value_rate": 3e-3, "heads": 3, "reward_beta": 2.0, "cost_beta": 4.0, "weight_cap": 3.0,
    "expectile": 0.8, "cost_expectile": 0.6, "actor_decay_steps": 30, "target_rate": 0.1,
}  # fmt: skip


def network(*sizes):
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Plain(nn.Module):
    """The same algorithm from the paper's formulas, with cost as negative reward throughout."""

    def __init__(self):
        super().__init__()
        self.body = network(2, 16, 12, 3 * 2)
        self.log_std = nn.Parameter(torch.zeros(3, 2))
        for name in ("r", "c"):
            for member in (1, 2):
                setattr(self, f"q{member}_{name}", network(4, 12, 16, 1))
                setattr(self, f"old{member}_{name}", network(4, 12, 16, 1))
            setattr(self, f"v_{name}", network(2, 12, 16, 1))

    def start(self):
        rates = {"q": 2e-3, "v": 3e-3, "actor": 1e-3}
        parts = {"q": [self.q1_r, self.q2_r, self.q1_c, self.q2_c], "v": [self.v_r, self.v_c]}
        groups = {key: [p for part in some for p in part.parameters()]
                  for key, some in parts.items()}  # fmt: skip
        groups["actor"] = [*self.body.parameters(), self.log_std]
        self.optimizers = {key: torch.optim.Adam(groups[key], lr=rates[key]) for key in rates}
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizers["actor"], 30)

    def step(self, name, loss):
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def update(self, batch):
        s, a, after = batch["observations"], batch["actions"], batch["next_observations"]
        sa, losses = torch.cat([s, a], 1), {}
        signs = {"r": 1.0, "c": -1.0}
        gains = {"r": batch["rewards"], "c": -batch["costs"]}
        following = {n: signs[n] * getattr(self, f"v_{n}")(after)[:, 0].detach() for n in "rc"}
        advantages, value_loss = {}, 0.0
        for n, tau in (("r", 0.8), ("c", 0.6)):
            olds = torch.cat([signs[n] * getattr(self, f"old{k}_{n}")(sa) for k in (1, 2)], 1)
            u = olds.min(1).values.detach() - signs[n] * getattr(self, f"v_{n}")(s)[:, 0]
            losses[f"value_{n}"] = (torch.abs(tau - (u < 0).float()) * u**2).mean()
            value_loss = value_loss + losses[f"value_{n}"]
            advantages[n] = u.detach()
        self.step("v", value_loss)
        critic_loss = 0.0
        for n in "rc":
            y = gains[n] + 0.99 * batch["going_on"] * following[n]
            errors = [(signs[n] * getattr(self, f"q{k}_{n}")(sa)[:, 0] - y) ** 2 for k in (1, 2)]
            losses[f"critic_{n}"] = sum(error.mean() for error in errors) / 2
            critic_loss = critic_loss + losses[f"critic_{n}"]
        self.step("q", critic_loss)
        for_reward = (2 * advantages["r"]).exp().clamp(max=3)
        for_cost = (4 * advantages["c"]).exp().clamp(max=100)
        means, actor_loss = torch.tanh(self.body(s)), 0.0
        for head, weight in enumerate([for_reward, for_reward + for_cost, for_cost]):
            normal = torch.distributions.Normal(
                means[:, 2 * head : 2 * head + 2], self.log_std[head].exp()
            )
            actor_loss = actor_loss - (weight * normal.log_prob(a).sum(1)).mean() / 3
        losses["actor"] = actor_loss
        self.step("actor", actor_loss)
        self.schedule.step()
        with torch.no_grad():
            for name in ("1_r", "2_r", "1_c", "2_c"):
                pairs = zip(getattr(self, f"old{name}").parameters(),
                            getattr(self, f"q{name}").parameters(), strict=True)  # fmt: skip
                for old, new in pairs:
                    old.copy_(0.9 * old + 0.1 * new)
        return losses


@torch.no_grad()
def copy_all(theirs, ours):
    copy_layers(linears(theirs.body), linears(ours.actor.network))
    theirs.log_std.copy_(ours.actor.log_std)
    for n, value in (("r", ours.reward), ("c", ours.cost)):
        copy_ensemble([getattr(theirs, f"q{k}_{n}") for k in (1, 2)], value.critic.ensemble)
        copy_ensemble([getattr(theirs, f"old{k}_{n}") for k in (1, 2)], value.target.ensemble)
        copy_ensemble([getattr(theirs, f"v_{n}")], value.value.ensemble)


def test_it_is_the_update_of_its_formulas(points):
    ours, theirs = CAPS(CAPSConfig(**SETTINGS), points, steps=20, seed=0), Plain()
    copy_all(theirs, ours)
    theirs.start()
    batches = copy.deepcopy(ours.batches)
    names = {"reward_value": "value_r", "cost_value": "value_c", "reward_critic": "critic_r",
             "cost_critic": "critic_c", "actor": "actor"}  # fmt: skip
    for update in range(20):
        expected, losses = theirs.update(batches.sample()), ours.update()
        for name, other in names.items():
            wanted = pytest.approx(float(expected[other].detach()), rel=1e-3, abs=1e-4)
            assert float(losses[name]) == wanted, (update, name)
    assert_same_parameters(theirs, ours, copy_all)


def test_each_head_weighs_reward_and_cost_in_its_way():
    assert mixtures(2).tolist() == [[1, 0], [0, 1]]
    assert mixtures(5).tolist() == [[1, 0], [1, 0.5], [1, 1], [1, 1.5], [0, 1]]
    with pytest.raises(UsageError, match="heads must be at least 2"):
        CAPSConfig(heads=1)


def test_a_fixed_deviation_stays_and_the_means_learn(points):
    stds, means = [], []
    for deviation in ("fixed", "learned"):
        config = CAPSConfig(**SETTINGS | {"deviation": deviation})
        learner = CAPS(config, points, steps=5, seed=0)
        before = learner.actor.network[0].weight.clone()
        for _ in range(5):
            learner.update()
        stds.append(learner.actor.log_std.detach())
        means.append(learner.actor.network[0].weight - before)
    assert (stds[0] == 0).all()
    assert (stds[1] != 0).all()
    assert all(mean.abs().max() > 1e-4 for mean in means)


@pytest.fixture(scope="module")
def trained(points):
    config = CAPSConfig(
        hidden_sizes=(32, 32), critic_hidden_sizes=(32, 32), batch_size=128, heads=4,
        actor_rate=3e-3, critic_rate=3e-3, value_rate=3e-3, target_rate=0.05, discount=0.9,
        reward_beta=30.0,
    )  # fmt: skip
    learner = CAPS(config, points, steps=400, seed=0)
    for _ in range(400):
        learner.update()
    return learner


def heads_and_estimates(actor, observations):
    """Of every head: actions, Q and Qc, each (B, K, ...)."""
    means, _ = actor.heads(observations)
    actions = actor.box.scale(means)
    estimates = []
    for critic in (actor.reward_critic, actor.cost_critic):
        by_head = [critic(observations, actions[:, k]) for k in range(actions.shape[1])]
        estimates.append(torch.stack(by_head, dim=-1))
    return actions, estimates[0].min(0).values, estimates[1].max(0).values


def test_it_takes_what_earns_most_within_the_limit(points, trained):
    policy, observations = trained.policy(), points.observations[::7]
    actions, reward, cost = heads_and_estimates(policy.actor, observations)
    within = without = 0
    for target in (0.0, 1.0, 2.0, 4.0, 8.0, 20.0):
        acted, std = policy.aimed_at(target_cost=target).action_distribution(observations)
        limit = target / 20 / (1 - 0.9)
        for row in range(len(observations)):
            heads = [k for k in range(4) if cost[row, k] <= limit]
            if heads:
                best = max(heads, key=lambda k: reward[row, k])
                within += 1
            else:
                best = min(range(4), key=lambda k: cost[row, k])
                without += 1
            assert torch.equal(acted[row], actions[row, best])
            wanted = trained.actor.log_std[best].exp().clamp_min(0.05)
            torch.testing.assert_close(std[row], wanted.detach())
    assert within > 100
    assert without > 100


def test_a_smaller_limit_never_costs_more_by_its_own_estimate(points, trained):
    policy, observations = trained.policy(), points.observations
    costs, rewards = [], []
    for target in (-5.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0):
        acted, _ = policy.aimed_at(target_cost=target).action_distribution(observations)
        costs.append(policy.actor.cost_critic(observations, acted).amax(0))
        rewards.append(policy.actor.reward_critic(observations, acted).amin(0))
    for less, more in itertools.pairwise(costs):
        assert (less <= more + 1e-5).all()
    assert torch.equal(rewards[0], rewards[1])  # a limit below zero is one of zero
    assert (costs[0] + 0.1 < costs[-1]).any()
    assert rewards[0].mean() < rewards[-1].mean()


def test_heads_for_reward_earn_more_and_heads_for_cost_cost_less(points, trained):
    _, reward, cost = heads_and_estimates(trained.policy().actor, points.observations)
    assert reward[:, 0].mean() > reward[:, -1].mean()
    assert cost[:, 0].mean() > cost[:, -1].mean()


def test_one_file_acts_under_any_limit_as_if_trained_for_it(points, tmp_path):
    """The limit plays no part in training."""
    policies = []
    for cost_limit in (1.0, 6.0):
        config = CAPSConfig(**SETTINGS | {"cost_limit": cost_limit})
        learner = CAPS(config, points, steps=10, seed=0)
        for _ in range(10):
            learner.update()
        policies.append(learner.policy())
    policies[0].save(tmp_path / "policy.safetensors")
    told = load_policy(tmp_path).aimed_at(target_cost=6.0)
    wanted, found = policies[1].state_dict(), told.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    observations = points.observations.numpy()
    assert (told.predict(observations) == policies[1].predict(observations)).all()
