"""BEAR-Lag against OSRL's own update."""

import pytest
from beside_osrl import (
    CRITICS,
    SMALL,
    compare_updates,
    copy_double,
    copy_squashed,
    copy_vae,
    osrl,
)

from safer_offline.learners.bear_lag import BEARLag, BEARLagConfig


def copy_all(theirs, ours):
    copy_squashed(theirs.actor, ours.actor)
    copy_squashed(theirs.actor_old, ours.actor_target)
    copy_vae(theirs.vae, ours.vae)
    copy_double(theirs.critic, ours.reward_critic)
    copy_double(theirs.critic_old, ours.reward_target)
    copy_double(theirs.cost_critic, ours.cost_critic)
    copy_double(theirs.cost_critic_old, ours.cost_target)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_it_is_osrl_s_update(points, monkeypatch, kernel):
    """With a limit that the data exceed, and ten updates of cloning first."""
    bearl = osrl("bearl", monkeypatch)
    config = BEARLagConfig(
        **SMALL | {"cost_limit": 0.0}, **CRITICS, pid=(0.5, 0.2, 0.3), kernel=kernel,
        kernel_width=2.0, matched_actions=5, alpha_rate=1e-2, cloning_steps=10,
    )  # fmt: skip
    ours = BEARLag(config, points, steps=20, seed=0)
    theirs = bearl.BEARL(
        2, 2, 1.0, [16, 12], [12, 16], 24, sample_action_num=4, PID=[0.5, 0.2, 0.3], num_q=2,
        num_qc=2, cost_limit=0, episode_len=20, mmd_sigma=2.0, kernel=kernel,
        num_samples_mmd_match=5, start_update_policy_step=10,
    )  # fmt: skip
    theirs.setup_optimizers(1e-3, 2e-3, 3e-3, 1e-2)
    compare_updates(ours, theirs, copy_all)
    assert float(ours.log_alpha) == pytest.approx(float(theirs.log_alpha), abs=1e-4)
