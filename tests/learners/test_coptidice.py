"""COptiDICE against OSRL's own update, and the limit that OSRL's never reaches."""

import copy

import pytest
import torch
from beside_osrl import (
    SMALL,
    Noise,
    assert_same_parameters,
    copy_ensemble,
    copy_squashed,
    osrl,
)

from safer_offline.learners.coptidice import DIVERGENCES, COptiDICE, COptiDICEConfig


def copy_all(theirs, ours):
    copy_squashed(theirs.actor, ours.actor)
    copy_ensemble(theirs.nu_network.q_nets, ours.nu.ensemble)
    copy_ensemble(theirs.chi_network.q_nets, ours.chi.ensemble)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("slack", [0.0, 0.05])
def test_it_is_osrl_s_update(points, monkeypatch, divergence, slack):
    coptidice = osrl("coptidice", monkeypatch)
    config = COptiDICEConfig(
        **SMALL, divergence=divergence, cost_slack=slack, limit_of="sum", likelihood="unsquashed",
        scalar_rate=1e-2,
    )  # fmt: skip
    ours = COptiDICE(config, points, steps=20, seed=0)
    theirs = coptidice.COptiDICE(
        2, 2, 1.0, divergence, ours.initial_share, ours.observation_noise.numpy() / config.noise,
        ours.action_noise.numpy() / config.noise, [16, 12], [12, 16], alpha=0.5,
        cost_ub_epsilon=slack, num_nu=2, num_chi=2, cost_limit=2, episode_len=20,
    )  # fmt: skip
    copy_all(theirs, ours)
    theirs.setup_optimizers(1e-3, 2e-3, 1e-2)
    names = {"nu": "nu_loss", "actor": "actor_loss", "price": "lmbda"}
    if slack:
        names |= {"chi": "chi_loss", "distance": "D_kl"}
    noise, batches = Noise(), copy.deepcopy(ours.batches)
    ours.noise = noise
    for seed in range(20):
        noise.seed = seed
        batch = batches.sample()
        arrays = [batch[n] for n in ("observations", "next_observations", "actions", "rewards")]
        with noise.everywhere():
            expected = theirs.update(
                [*arrays, batch["costs"], 1 - batch["going_on"], batch["initial"]]
            )
        losses = ours.update()
        for name, other in names.items():
            wanted = pytest.approx(expected[f"loss/{other}"], rel=1e-3, abs=1e-4)
            assert float(losses[name]) == wanted, (seed, name)
    assert_same_parameters(theirs, ours, copy_all)
    torch.testing.assert_close(ours.price.view(1), theirs.lmbda)
    torch.testing.assert_close(ours.tau.view(1), theirs.tau)


def test_the_limit_of_a_step_binds_where_that_of_a_sum_never_does(points):
    """Half a cost an episode is far below what the data cost."""

    def price(limit_of):
        config = COptiDICEConfig(
            **SMALL | {"cost_limit": 0.5}, limit_of=limit_of, scalar_rate=1e-2, attack_critics=False
        )
        learner = COptiDICE(config, points, steps=100, seed=0)
        return float([learner.update() for _ in range(100)][-1]["price"])

    assert price("step") > 1.32 > price("sum")
    assert points.episodes["cost"].mean() > 2


def test_without_critics_for_attacks_the_policy_is_the_same(points):
    actors = []
    for attack_critics in (False, True):
        config = COptiDICEConfig(**SMALL, attack_critics=attack_critics)
        learner = COptiDICE(config, points, steps=5, seed=0)
        for _ in range(5):
            learner.update()
        policy = learner.policy()
        assert policy.critics == (("reward", "cost") if attack_critics else ())
        actors.append(policy.actor.state_dict())
    assert all(torch.equal(actors[0][name], actors[1][name]) for name in actors[0])
