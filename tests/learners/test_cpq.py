"""CPQ against OSRL's own update, and what the paper has instead."""

import copy

import pytest
import torch
from beside_osrl import (
    CRITICS,
    SMALL,
    Noise,
    assert_same_parameters,
    copy_ensemble,
    copy_squashed,
    copy_vae,
    osrl,
)

from safer_offline.learners.cpq import CPQ, CPQConfig


def copy_all(theirs, ours):
    copy_squashed(theirs.actor, ours.actor)
    copy_vae(theirs.vae, ours.vae)
    copy_ensemble(theirs.critic.q_nets, ours.reward_critic.ensemble)
    copy_ensemble(theirs.cost_critic.q_nets, ours.cost_critic.ensemble)
    copy_ensemble(theirs.critic_old.q_nets, ours.reward_target.ensemble)
    copy_ensemble(theirs.cost_critic_old.q_nets, ours.cost_target.ensemble)


def test_it_is_osrl_s_update(points, monkeypatch):
    cpq = osrl("cpq", monkeypatch)
    config = CPQConfig(
        **SMALL, **CRITICS, push="none", unlikely_actions="unsquashed", alpha_rate=1e-2
    )
    ours = CPQ(config, points, steps=20, seed=0)
    theirs = cpq.CPQ(
        2, 2, 1.0, [16, 12], [12, 16], 24, sample_action_num=4, beta=0.5, num_q=2, num_qc=2,
        cost_limit=2, episode_len=20,
    )  # fmt: skip
    copy_all(theirs, ours)
    theirs.setup_optimizers(1e-3, 2e-3, 1e-2, 3e-3)
    noise, batches = Noise(), copy.deepcopy(ours.batches)
    ours.noise = noise
    for seed in range(20):
        noise.seed = seed
        batch = batches.sample()
        s, after, a = (batch[n] for n in ("observations", "next_observations", "actions"))
        r, c, done = batch["rewards"], batch["costs"], 1 - batch["going_on"]
        with noise.everywhere():
            expected = {
                "vae": theirs.vae_loss(s, a)[0],
                "reward_critic": theirs.critic_loss(s, after, a, r, done)[0],
                "cost_critic": theirs.cost_critic_loss(s, after, a, c, done)[0],
                "actor": theirs.actor_loss(s)[0],
            }
            theirs.sync_weight()
        losses = ours.update()
        for name, loss in expected.items():
            wanted = pytest.approx(float(loss.detach()), rel=1e-3, abs=1e-5)
            assert float(losses[name]) == wanted, (seed, name)
    torch.testing.assert_close(ours.log_alpha, theirs.log_alpha)
    twin = copy.deepcopy(theirs)
    copy_all(twin, ours)
    assert_same_parameters(theirs, twin, "cpq")


def test_the_push_raises_the_cost_of_unlikely_actions(points):
    """As in the paper; what OSRL computes leaves the critic where it was."""

    def cost_of_unlikely(push):
        config = CPQConfig(**SMALL | {"cost_limit": 0.5}, **CRITICS, push=push, alpha_rate=1e-2)
        learner = CPQ(config, points, steps=150, seed=0)
        return [float(learner.update()["unlikely_cost"]) for _ in range(150)][-1]

    assert cost_of_unlikely("critic") > cost_of_unlikely("none") + 0.1
