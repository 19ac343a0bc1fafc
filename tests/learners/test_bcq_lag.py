"""BCQ-Lag against OSRL's own update, and how it acts."""

import pytest
import torch
from beside_osrl import (
    CRITICS,
    SMALL,
    compare_updates,
    copy_double,
    copy_layers,
    copy_vae,
    linears,
    osrl,
)

from safer_offline.learners.bcq_lag import BCQLag, BCQLagConfig


def copy_all(theirs, ours):
    copy_layers(linears(theirs.actor), linears(ours.actor))
    copy_layers(linears(theirs.actor_old), linears(ours.actor_target))
    copy_vae(theirs.vae, ours.vae)
    copy_double(theirs.critic, ours.reward_critic)
    copy_double(theirs.critic_old, ours.reward_target)
    copy_double(theirs.cost_critic, ours.cost_critic)
    copy_double(theirs.cost_critic_old, ours.cost_target)


def test_it_is_osrl_s_update(points, monkeypatch):
    """With a limit that the data exceed, so that the controller works."""
    bcql = osrl("bcql", monkeypatch)
    config = BCQLagConfig(**SMALL | {"cost_limit": 0.0}, **CRITICS, pid=(0.5, 0.2, 0.3))
    ours = BCQLag(config, points, steps=20, seed=0)
    theirs = bcql.BCQL(
        2, 2, 1.0, [16, 12], [12, 16], 24, sample_action_num=4, PID=[0.5, 0.2, 0.3],
        num_q=2, num_qc=2, cost_limit=0, episode_len=20,
    )  # fmt: skip
    theirs.setup_optimizers(1e-3, 2e-3, 3e-3)
    compare_updates(ours, theirs, copy_all)
    assert float(ours.multiplier) > 0


@pytest.mark.parametrize("multiplier", [0.0, 100.0])
def test_it_acts_by_the_candidate_of_the_best_value_at_its_price(points, multiplier):
    config = BCQLagConfig(**SMALL, **CRITICS, act_candidates=7)
    learner = BCQLag(config, points, steps=40, seed=0)
    for _ in range(40):
        learner.update()
    learner.multiplier.fill_(multiplier)
    policy = learner.policy()
    observations = points.observations[:40]
    acted, _ = policy.action_distribution(observations)
    values = []
    for latent in learner.act_latents:
        proposed = learner.vae.actions(observations, latent.expand(40, -1))
        actions = learner.actor(observations, proposed)
        reward = learner.reward_critic.standardized(observations, actions).amin(0)
        cost = learner.cost_critic.standardized(observations, actions).amin(0)
        values.append((reward - multiplier * cost, actions))
    best = torch.stack([value for value, _ in values]).argmax(0)
    wanted = torch.stack([actions for _, actions in values])[best, torch.arange(40)]
    torch.testing.assert_close(acted, wanted)
    assert len(best.unique()) > 1
