"""FISOR against its formulas on plain networks, and on chains whose feasible states are known."""

import copy

import numpy as np
import pytest
import torch
from beside_osrl import SMALL, Noise, assert_same_parameters, copy_ensemble, copy_layers, linears
from test_caps import network
from torch import nn

from safer_offline.datasets import BoxSpace, Metadata, OfflineDataset
from safer_offline.errors import UsageError
from safer_offline.learners.fisor import FISOR, FISORConfig, largest_violation

SETTINGS = SMALL | {
    "value_rate": 3e-3, "reward_beta": 2.0, "cost_beta": 4.0, "weight_cap": 3.0,
    "cost_weight_cap": 5.0, "expectile": 0.8, "cost_expectile": 0.6, "actor_decay_steps": 30,
    "target_rate": 0.1, "actor_target_rate": 0.05, "critic_batch_size": 20, "violation": 2.0,
    "dropout": 0.0, "candidates": 5,
}  # fmt: skip


class Plain(nn.Module):
    """The same algorithm from the formulas of the paper and its appendix."""

    def __init__(self):
        super().__init__()
        for name in ("r", "h"):
            for member in (1, 2):
                setattr(self, f"q{member}_{name}", network(4, 12, 16, 1))
                setattr(self, f"old{member}_{name}", network(4, 12, 16, 1))
            setattr(self, f"v_{name}", network(2, 12, 16, 1))
        self.waves = nn.Parameter(torch.zeros(32))
        self.time = nn.Sequential(nn.Linear(64, 128), nn.Mish(), nn.Linear(128, 128))
        self.first = nn.Linear(2 + 2 + 128, 16)
        self.norms = nn.ModuleList([nn.LayerNorm(16, eps=1e-6), nn.LayerNorm(16, eps=1e-6)])
        self.wide = nn.ModuleList([nn.Linear(16, 64), nn.Linear(16, 48)])
        self.narrow = nn.ModuleList([nn.Linear(64, 16), nn.Linear(48, 12)])
        self.short_cut, self.last = nn.Linear(16, 12), nn.Linear(12, 2)
        t = torch.arange(1, 6)
        betas = 1 - torch.exp(-0.1 / 5 - 0.5 * 9.9 * (2 * t - 1) / 25)
        self.kept = torch.stack([torch.prod(1 - betas[: k + 1]) for k in range(5)])

    def denoise(self, s, x, t):
        f = 2 * np.pi * t[:, None] * self.waves
        told = self.time(torch.cat([torch.cos(f), torch.sin(f)], 1))
        hidden = self.first(torch.cat([x, s, told], 1))
        for block in range(2):
            inner = self.narrow[block](nn.functional.mish(self.wide[block](
                self.norms[block](hidden))))  # fmt: skip
            hidden = (self.short_cut(hidden) if block else hidden) + inner
        return self.last(nn.functional.mish(hidden))

    def start(self):
        policy = [self.waves, *self.time.parameters(), *self.first.parameters(),
                  *self.norms.parameters(), *self.wide.parameters(), *self.narrow.parameters(),
                  *self.short_cut.parameters(), *self.last.parameters()]  # fmt: skip
        groups = {"actor": (policy, 1e-3)}
        for n in "rh":
            groups[f"v_{n}"] = (list(getattr(self, f"v_{n}").parameters()), 3e-3)
            critics = [p for k in (1, 2) for p in getattr(self, f"q{k}_{n}").parameters()]
            groups[f"q_{n}"] = (critics, 2e-3)
        self.optimizers = {n: torch.optim.Adam(p, lr=rate) for n, (p, rate) in groups.items()}

    def step(self, name, loss):
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()
        return loss

    def both(self, kind, name, batch):
        sa = torch.cat([batch["observations"], batch["actions"]], 1)
        return torch.cat([getattr(self, f"{kind}{k}_{name}")(sa) for k in (1, 2)], 1)

    @torch.no_grad()
    def weights(self, batch):
        q, qh = self.both("old", "r", batch).min(1).values, self.both("old", "h", batch).max(1)[0]
        v, vh = (getattr(self, f"v_{n}")(batch["observations"])[:, 0] for n in "rh")
        weights = []
        for row in range(len(q)):
            if vh[row] > 0:
                weights.append(min(5.0, float(torch.exp(4 * (vh[row] - qh[row])))))
            elif qh[row] > 0:
                weights.append(0.0)
            else:
                weights.append(min(3.0, float(torch.exp(2 * (q[row] - v[row])))))
        return torch.tensor(weights)

    def update(self, batch, times, noise, step):
        losses = {}
        for group in self.optimizers["actor"].param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * step / 30))
        for half in (0, 1):
            part = {name: column[16 * half : 16 * half + 16] for name, column in batch.items()}
            t, eps, weights = times(16), noise(16, 2), self.weights(part)
            kept = self.kept[t][:, None]
            x = kept.sqrt() * part["actions"] + (1 - kept).sqrt() * eps
            error = ((self.denoise(part["observations"], x, t) - eps) ** 2).sum(1)
            losses["actor"] = self.step("actor", (weights * error).mean())
        part = {name: column[:20] for name, column in batch.items()}
        s, after, going_on = part["observations"], part["next_observations"], part["going_on"]
        h = torch.tensor([2.0 if cost > 0 else -1.0 for cost in part["costs"]])
        for n, tau in (("r", 0.8), ("h", 0.6)):
            q = self.both("old", n, part).detach()
            q, v = q.min(1)[0] if n == "r" else q.max(1)[0], getattr(self, f"v_{n}")(s)[:, 0]
            heavy = (q > v) if n == "r" else (q < v)
            loss = (torch.where(heavy, tau, 1 - tau) * (q - v) ** 2).mean()
            losses[f"v_{n}"] = self.step(f"v_{n}", loss)
            following = getattr(self, f"v_{n}")(after)[:, 0].detach()
            if n == "r":
                y = part["rewards"] + 0.99 * going_on * following
            else:
                y = going_on * (0.01 * h + 0.99 * torch.maximum(h, following)) + (1 - going_on) * h
            loss = ((self.both("q", n, part) - y[:, None]) ** 2).mean()
            losses[f"q_{n}"] = self.step(f"q_{n}", loss)
            with torch.no_grad():
                for k in (1, 2):
                    pairs = zip(getattr(self, f"old{k}_{n}").parameters(),
                                getattr(self, f"q{k}_{n}").parameters(), strict=True)  # fmt: skip
                    for old, new in pairs:
                        old.copy_(0.9 * old + 0.1 * new)
        return losses


@torch.no_grad()
def copy_all(theirs, ours):
    for n, value in (("r", ours.reward), ("h", ours.cost)):
        copy_ensemble([getattr(theirs, f"q{k}_{n}") for k in (1, 2)], value.critic.ensemble)
        copy_ensemble([getattr(theirs, f"old{k}_{n}") for k in (1, 2)], value.target.ensemble)
        copy_ensemble([getattr(theirs, f"v_{n}")], value.value.ensemble)
    actor = ours.actor
    theirs.waves.copy_(actor.frequencies)
    layers = [theirs.first, theirs.last, *linears(theirs.time), theirs.short_cut]
    copy_layers(layers, [actor.first, actor.last, *linears(actor.time), actor.blocks[1].short_cut])
    for block, norm, wide, narrow in zip(
        actor.blocks, theirs.norms, theirs.wide, theirs.narrow, strict=True
    ):
        copy_layers([norm, wide, narrow], [block.norm, *linears(block.network)])


def test_it_is_the_update_of_its_formulas(points, monkeypatch):
    ours, theirs = FISOR(FISORConfig(**SETTINGS), points, steps=20, seed=0), Plain()
    with torch.no_grad():  # some states feasible, some not, and likewise actions
        for ensemble in (ours.cost.value.ensemble, ours.cost.target.ensemble):
            ensemble.weights[-1].mul_(10)
    copy_all(theirs, ours)
    theirs.start()
    noise, batches = Noise(), copy.deepcopy(ours.batches)

    def times(rows):
        return (noise(rows, 7).abs() * 100).long()[:, 0] % 5

    monkeypatch.setattr(ours, "noise", noise)
    monkeypatch.setattr(ours, "times", times)
    names = {"reward_value": "v_r", "cost_value": "v_h", "reward_critic": "q_r",
             "cost_critic": "q_h", "actor": "actor"}  # fmt: skip
    kinds = set()
    for update in range(20):
        noise.seed = update
        batch = batches.sample()
        kinds |= {float(weight) in (0.0, 3.0, 5.0) for weight in theirs.weights(batch)}
        expected, losses = theirs.update(batch, times, noise, update), ours.update()
        for name, other in names.items():
            wanted = pytest.approx(float(expected[other].detach()), rel=1e-3, abs=1e-4)
            assert float(losses[name]) == wanted, (update, name)
    assert kinds == {True, False}
    assert_same_parameters(theirs, ours, copy_all)


@pytest.mark.parametrize("normalize", [True, False])
def test_rewards_are_scaled_so_that_returns_differ_by_an_episode_s_length(points, normalize):
    config = FISORConfig(**SETTINGS | {"normalize_returns": normalize, "reward_scale": 0.5})
    learner = FISOR(config, points, steps=1, seed=0)
    scaled = learner.table.take(torch.arange(len(points.rewards)))["rewards"]
    spreads = [
        float(returns.max() - returns.min())
        for returns in (rewards.view(-1, 20).sum(1) for rewards in (scaled, points.rewards))
    ]
    assert spreads[0] == pytest.approx(0.5 * (20 if normalize else spreads[1]), rel=1e-4)
    # What the critic answers is in the data's units all the same.
    assert float(learner.reward.critic.values.std) == pytest.approx(spreads[1] / spreads[0])


# ------------------------------------------------------------------ a chain that is known

SAFE, FORK, LATE, DEAD, END = range(5)
STEPS = (  # state, action, next state, cost, whether the episode ends
    (SAFE, 0.0, SAFE, 0, False),
    (FORK, -1.0, SAFE, 0, False),
    (FORK, 1.0, LATE, 0, False),
    (LATE, 1.0, DEAD, 3, False),
    (DEAD, 0.0, DEAD, 1, False),
    (END, -1.0, SAFE, 0, True),
    (END, 1.0, DEAD, 2, True),
)
"""From FORK, one action leads to where violation cannot be helped; at END it is over at once."""

DISCOUNT, TAU, VIOLATION = 0.5, 0.8, 2.0


@pytest.fixture(scope="module")
def chain():
    """Each step as an episode of its own, each equally often."""
    states, actions, after, costs, ends = (list(x) for x in zip(*STEPS * 20, strict=True))
    one_hot = np.eye(5, dtype=np.float32)
    ends = np.array(ends)
    arrays = {
        "observations": one_hot[states],
        "next_observations": one_hot[after],
        "actions": np.array(actions, np.float32)[:, None],
        "rewards": np.array(costs, np.float32),  # what is forbidden pays
        "costs": np.array(costs, np.float32),
        "terminals": ends,
        "timeouts": ~ends,
    }
    metadata = Metadata(
        observation_space=BoxSpace(low=(0.0,) * 5, high=(1.0,) * 5),
        action_space=BoxSpace(low=(-1.0,), high=(1.0,)),
    )
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


def tables(backup, best):
    """Q of the steps and V of the states, by iteration; V is the expectile of one or two Q."""
    v = np.zeros(5)
    for _ in range(200):
        q = [
            backup(reward_or_cost, v[after], 0.0 if ends else 1.0)
            for _, _, after, reward_or_cost, ends in STEPS
        ]
        for state in range(5):
            mine = sorted(q[i] for i, step in enumerate(STEPS) if step[0] == state)
            v[state] = best * mine[-1] + (1 - best) * mine[0]
    return np.array(q), v


def violations():
    def backup(cost, following, going_on):
        h = VIOLATION if cost > 0 else -1.0
        to_come = (1 - DISCOUNT) * h + DISCOUNT * max(h, following)
        return to_come if going_on else h

    return tables(backup, 1 - TAU)


def test_the_tables_say_which_states_are_feasible():
    q, v = violations()
    assert q.tolist() == pytest.approx([-1, -1, 0.5, 2, 2, -1, 2])
    assert (v > 0).tolist() == [False, False, True, True, False]


def learned(chain, **settings):
    config = FISORConfig(
        actor="gaussian", hidden_sizes=(8,), critic_hidden_sizes=(32, 32), batch_size=140,
        critic_batch_size=140, actor_updates=1, discount=DISCOUNT, cost_expectile=TAU,
        violation=VIOLATION, critic_rate=5e-3, value_rate=5e-3, target_rate=0.1, **settings,
    )  # fmt: skip
    learner = FISOR(config, chain, steps=400, seed=0)
    for _ in range(400):
        learner.update()
    return learner


@pytest.fixture(scope="module")
def on_chain(chain):
    return learned(chain)


def judged(learner, chain):
    return learner.cost.judge(chain.observations[:7], chain.actions[:7]).numpy()


def test_it_learns_the_feasible_states_of_a_chain(chain, on_chain):
    q, v = violations()
    found = on_chain.cost.of_states(torch.eye(5)).detach().numpy()
    np.testing.assert_allclose(found, v, atol=0.1)
    np.testing.assert_allclose(judged(on_chain, chain), q, atol=0.1)


def test_it_imitates_no_way_out_of_the_feasible_states(chain, on_chain):
    """And elsewhere what is least bad; here every action is as good as the state."""
    unit = 1 / 3  # episodes of one step, whose returns are from 0 to 3
    q, v = tables(lambda r, following, going_on: unit * r + DISCOUNT * going_on * following, 0.9)
    wanted = np.exp(3 * (q - v[[step[0] for step in STEPS]]))
    wanted[[2, 6]], wanted[[3, 4]] = 0.0, 1.0
    rows = {name: getattr(chain, name)[:7] for name in ("observations", "actions")}
    found = on_chain.weights(rows).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0.5, atol=0)
    assert (found[[2, 6]] == 0).all()


def test_the_sum_of_costs_is_that_of_discounted_costs(chain):
    learner = learned(chain, violation_of="sum", cost_limit=1.0)
    # DEAD costs 1 a step, 2 in all; LATE 3 and half of that; FORK half of what LATE costs.
    np.testing.assert_allclose(judged(learner, chain), [0, 0, 2, 4, 2, 0, 2], atol=0.2)
    assert learner.bound == pytest.approx(2.0)  # 1 a step without end


def test_an_end_leaves_nothing_to_come():
    h, following = torch.tensor([-1.0, -1.0, 3.0]), torch.tensor([5.0, 5.0, -1.0])
    found = largest_violation(h, following, torch.tensor([1.0, 0.0, 1.0]), discount=0.9)
    torch.testing.assert_close(found, torch.tensor([4.4, -1.0, 3.0]))


# ------------------------------------------------------------------ how it acts


@pytest.mark.parametrize("actor", ["diffusion", "gaussian"])
def test_it_stays_where_nothing_costs(points, actor):
    """The lanes of the points right of the border cost at each step, though they pay more."""
    config = FISORConfig(
        actor=actor, hidden_sizes=(32, 32), critic_hidden_sizes=(32, 32), batch_size=128,
        actor_updates=1, actor_rate=5e-3, critic_rate=5e-3, value_rate=5e-3, target_rate=0.1,
        actor_target_rate=0.03, discount=0.9, violation=1.0,
    )  # fmt: skip
    learner = FISOR(config, points, steps=300, seed=0)
    for _ in range(300):
        learner.update()
    lanes = torch.arange(60).repeat_interleave(20) % 5
    feasible = learner.cost.of_states(points.observations) <= 0
    assert feasible[lanes < 3].float().mean() > 0.95
    assert feasible[lanes == 4].float().mean() < 0.05
    x = torch.tensor([[0.4, 0.0], [0.0, 0.0], [-0.3, 0.2]])
    for _ in range(10):
        action = torch.from_numpy(learner.policy().predict(x.numpy()))
        x = x + torch.tensor([0.5, 0.1]) * action
    assert (x[:, 0] < 0.5).all()


def test_it_takes_the_candidate_that_its_target_critics_find_safest(points):
    learner = FISOR(FISORConfig(**SETTINGS), points, steps=5, seed=0)
    for _ in range(5):
        learner.update()
    observations = 20 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    acted, _ = learner.policy().action_distribution(observations)
    actions = torch.stack([
        learner.actor_target.remove_noise(observations, latents.expand(len(observations), -1, -1))
        for latents in learner.act_latents
    ])  # fmt: skip
    violations = torch.stack([learner.cost.judge(observations, action) for action in actions])
    best = violations.argmin(0)
    torch.testing.assert_close(acted, actions[best, torch.arange(len(best))])
    assert len(best.unique()) > 1


def test_what_is_dropped_is_random_and_made_up_for(points):
    learner = FISOR(FISORConfig(**SETTINGS | {"dropout": 0.25}), points, steps=1, seed=0)
    dropped = learner.drop(torch.ones(1000, 100))
    assert dropped.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert not torch.equal(dropped, learner.drop(torch.ones(1000, 100)))


@pytest.mark.parametrize(
    "setting",
    [{"dropout": 1.0}, {"candidates": 0}, {"actor_target_rate": 2.0}, {"hidden_sizes": ()},
     {"batch_size": 1}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        FISORConfig(**setting)
