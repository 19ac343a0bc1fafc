"""The Constrained Decision Transformer against OSRL's update and roll-out, and its targets."""

import copy
import types

import numpy as np
import pytest
import torch
from beside_osrl import copy_layers, osrl
from torch import nn

from safer_offline import load_policy, train
from safer_offline.attacks import MAD, GeneratorNoise
from safer_offline.datasets import save_dataset
from safer_offline.datasets.larger_than_memory.cache import open_cached
from safer_offline.errors import DataError, UsageError
from safer_offline.learners.cdt import CDT, CDTConfig

SMALL = {
    "embedding_size": 16, "layers": 2, "heads": 2, "sequence_length": 6, "batch_size": 70,
    "learning_rate": 1e-3, "warmup_steps": 5, "cost_limit": 2.0, "reward_scale": 0.5,
}  # fmt: skip
AS_OSRL = {"dropout": 0.0, "standardize": False}


def learner(points, *, steps=20, seed=0, **settings):
    return CDT(CDTConfig(**SMALL | settings), points, steps=steps, seed=seed)


@torch.no_grad()
def copy_all(theirs, ours):
    """Our weights into OSRL's model."""
    actor = ours.actor
    copy_layers(
        (theirs.return_emb, theirs.cost_emb, theirs.state_emb, theirs.action_emb),
        (actor.of_return, actor.of_cost, actor.of_observation, actor.of_action),
    )
    copy_layers([theirs.cost_pred_head], [ours.next_cost])
    theirs.timestep_emb.weight[: len(actor.of_time.weight)] = actor.of_time.weight
    copy_layers((theirs.emb_norm, theirs.out_norm), (actor.first_norm, actor.last_norm))
    for to, source in zip(theirs.blocks, actor.blocks, strict=True):
        to.attention.in_proj_weight.copy_(source.query_key_value.weight)
        to.attention.in_proj_bias.copy_(source.query_key_value.bias)
        copy_layers(
            (to.norm1, to.norm2, to.attention.out_proj, to.mlp[0], to.mlp[2]),
            (source.attention_norm, source.hidden_norm, source.attended, source.widen,
             source.narrow),
        )  # fmt: skip
    if theirs.stochastic:
        heads = actor.head.weight.chunk(2), actor.head.bias.chunk(2)
        for to, weight, bias in zip(
            (theirs.action_head.mu, theirs.action_head.log_std), *heads, strict=True
        ):
            to.weight.copy_(weight)
            to.bias.copy_(bias)
    else:
        copy_layers([theirs.action_head[0]], [actor.head])


def osrl_trainer(ours, monkeypatch, *, env=None):
    cdt, config = osrl("cdt", monkeypatch), ours.config
    theirs = cdt.CDT(
        2, 2, 1.0, seq_len=config.sequence_length, episode_len=20, embedding_dim=16, num_layers=2,
        num_heads=2, use_rew=True, use_cost=True, cost_transform=True, target_entropy=-2,
        stochastic=config.stochastic, init_temperature=config.initial_temperature,
    )  # fmt: skip
    copy_all(theirs, ours)
    log = {}
    trainer = cdt.CDTTrainer(
        theirs, env, types.SimpleNamespace(store=lambda tab, **values: log.update(values)),
        learning_rate=config.learning_rate, weight_decay=config.weight_decay,
        clip_grad=config.max_norm, lr_warmup_steps=config.warmup_steps,
        reward_scale=config.reward_scale, loss_cost_weight=config.cost_loss_weight,
    )  # fmt: skip
    return trainer, log


@pytest.mark.parametrize("stochastic", [True, False])
def test_it_is_osrl_s_update(points, monkeypatch, stochastic):
    ours = learner(points, stochastic=stochastic, cost_loss_weight=0.3, **AS_OSRL)
    trainer, log = osrl_trainer(ours, monkeypatch)
    batches = copy.deepcopy(ours.batches)
    for _ in range(20):
        batch = batches.sample()
        steps = batch["steps"].long()
        mask = (steps == steps[:, :1] + torch.arange(6)).float()
        assert 0.7 < mask.mean() < 1
        trainer.train_one_step(
            batch["observations"], batch["actions"], 0.5 * batch["returns_to_come"],
            batch["costs_to_come"], steps, mask, None, batch["costs"],
        )  # fmt: skip
        losses = ours.update()
        names = {"policy": "act_loss", "cost": "cost_loss"}
        names |= {"nll": "nll", "entropy": "ent"} if stochastic else {}
        expected = {name: log[other] for name, other in names.items()}
        expected["policy"] += 0.3 * expected["cost"]
        for name, value in expected.items():
            assert float(losses[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name
    if stochastic:
        torch.testing.assert_close(ours.log_temperature, trainer.model.log_temperature.data.float())
    before = copy.deepcopy(trainer.model)
    copy_all(trainer.model, ours)
    for (name, one), other in zip(
        before.named_parameters(), trainer.model.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5, msg=name)


class Line:
    """A point that is pushed about; what it earns and costs follows from where it is."""

    def __init__(self, scale=1.0, length=20):
        self.scale, self.length, self.actions = scale, length, []

    def reset(self):
        self.place, self.steps, self.actions = np.array([0.3, -0.2], np.float32), 0, []
        return self.place, {}

    def step(self, action):
        self.actions.append(action)
        self.place = (0.9 * self.place + 0.3 * action).astype(np.float32)
        self.steps += 1
        reward, cost = float(self.place.sum()), float(self.place[0] > 0.2)
        return self.place, self.scale * reward, False, self.steps == self.length, {"cost": cost}


def ride(episode, env):
    observation, _ = env.reset()
    over = False
    while not over:
        observation, reward, _, over, info = env.step(episode.predict(observation))
        episode.earn(reward, info["cost"])
    return np.array(env.actions)


def lively(ours):
    """Weights that make much of everything that is remembered."""
    with torch.no_grad():
        for parameter in ours.actor.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return ours


def test_it_acts_as_osrl_s_roll_out_does(points, monkeypatch):
    ours = lively(learner(points, **AS_OSRL))
    trainer, _ = osrl_trainer(ours, monkeypatch, env=Line(scale=0.5))
    trainer.model.eval()
    trainer.rollout(trainer.model, trainer.env, 0.5 * 7.0, 3.0)
    policy = ours.policy().aimed_at(target_return=7.0, target_cost=3.0)
    actions = ride(policy.begin(), Line())
    np.testing.assert_allclose(actions, trainer.env.actions, atol=1e-5)
    assert np.ptp(actions, axis=0).min() > 0.1
    for targets in ({"target_return": 1.0}, {"target_cost": 60.0}):
        assert np.abs(ride(policy.aimed_at(**targets).begin(), Line()) - actions).max() > 0.01
