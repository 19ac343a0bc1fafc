"""What baselines with a limit on the discounted cost share: ends, limits and units."""

import math

import pytest
import torch

from safer_offline.errors import UsageError
from safer_offline.learners import BCQLagConfig, BEARLagConfig, COptiDICEConfig, CPQConfig
from safer_offline.learners.bcq_lag import BCQLag
from safer_offline.learners.constrained import discounted_limit
from safer_offline.learners.cpq import CPQ

SMALL = {
    "hidden_sizes": (8,),
    "critic_hidden_sizes": (8,),
    "vae_hidden_size": 8,
    "batch_size": 64,
    "sampled_actions": 2,
}


def test_the_limit_is_the_discounted_sum_of_even_costs():
    costs = [3.0 / 20 * 0.9**step for step in range(2000)]
    for endless, steps in ((False, 20), (True, 2000)):
        limit = discounted_limit(3.0, episode_length=20, discount=0.9, endless=endless)
        assert limit == pytest.approx(math.fsum(costs[:steps]))


@pytest.mark.parametrize("timeouts_end", [False, True])
def test_a_time_limit_is_an_end_if_it_is_told_so(points, timeouts_end):
    learner = CPQ(CPQConfig(**SMALL, timeouts_end=timeouts_end), points, steps=1, seed=0)
    going_on = torch.cat([block["going_on"] for block in learner.table.stream()])
    assert torch.equal(going_on == 0, points.timeouts & timeouts_end)


@pytest.mark.parametrize(("kind", "config"), [(CPQ, CPQConfig), (BCQLag, BCQLagConfig)])
@pytest.mark.parametrize("cost_ends", [True, False])
def test_behind_an_end_there_is_nothing_but_osrl_s_cost(points, kind, config, cost_ends):
    learner = kind(config(**SMALL, cost_ends=cost_ends), points, steps=1, seed=0)
    batch = learner.batches.sample()
    batch["going_on"] = torch.zeros(64)
    rewards, costs = learner.targets(batch)
    assert torch.equal(rewards, batch["rewards"])
    assert torch.equal(costs, batch["costs"]) is cost_ends


def test_critics_learn_in_scaled_units_and_answer_in_raw_ones(points):
    learner = CPQ(CPQConfig(**SMALL, reward_scale=0.1), points, steps=1, seed=0)
    assert torch.allclose(learner.table.take(torch.arange(9))["rewards"], 0.1 * points.rewards[:9])
    batch = points.observations, points.actions
    scaled = learner.reward_critic.standardized(*batch).mean(0)
    torch.testing.assert_close(learner.policy().q_reward(*batch), 10 * scaled)


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (CPQConfig, {"cost_limit": -1}), (CPQConfig, {"discount": 1.0}),
        (CPQConfig, {"target_rate": 0}), (CPQConfig, {"unlikely_quantile": 1.0}),
        (CPQConfig, {"critic_rate": float("nan")}), (CPQConfig, {"episode_length": 0}),
        (BCQLagConfig, {"act_candidates": 0}), (BCQLagConfig, {"pid": (-1.0, 0.0, 0.0)}),
        (BCQLagConfig, {"lesser_share": 2.0}), (BEARLagConfig, {"cloning_steps": -1}),
        (BEARLagConfig, {"kernel_width": 0.0}), (COptiDICEConfig, {"alpha": 0}),
        (COptiDICEConfig, {"cost_slack": -0.1}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(config, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        config(**wrong)
