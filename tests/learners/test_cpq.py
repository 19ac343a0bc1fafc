"""CPQ against OSRL's own update, and what the paper has instead."""

from beside_osrl import (
    CRITICS,
    SMALL,
    compare_updates,
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
    theirs.setup_optimizers(1e-3, 2e-3, 1e-2, 3e-3)
    compare_updates(ours, theirs, copy_all)


def test_the_push_raises_the_cost_of_unlikely_actions(points):
    """As in the paper; what OSRL computes leaves the critic where it was."""

    def cost_of_unlikely(push):
        config = CPQConfig(**SMALL | {"cost_limit": 0.5}, **CRITICS, push=push, alpha_rate=1e-2)
        learner = CPQ(config, points, steps=150, seed=0)
        return [float(learner.update()["unlikely_cost"]) for _ in range(150)][-1]

    assert cost_of_unlikely("critic") > cost_of_unlikely("none") + 0.1
