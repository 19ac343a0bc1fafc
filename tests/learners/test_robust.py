"""The robust loss by hand, its three kinds, and who attacks which row."""

import pytest
import torch
from torch import distributions as dist

from safer_offline.attacks import MAD, Attack, GeneratorNoise, Jointly, MaxCost, MaxReward, Uniform
from safer_offline.learners.robust import Adversary, RobustConfig, mixed_attack, robust_loss
from safer_offline.policies.gaussian import ActionBox, GaussianPolicy
from safer_offline.policies.layers import gradient_step

DS, DA, ROWS = 3, 2, 10
EPSILON = torch.tensor([0.1, 0.0, 0.5])


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return GaussianPolicy(DS, ActionBox(-torch.ones(DA), torch.ones(DA)), hidden_sizes=(16,))


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    observations, noise = torch.randn(2, ROWS, DS, generator=generator)
    return {
        "observations": observations,
        "attacked": observations + 0.1 * noise,
        "actions": 2 * torch.rand(ROWS, DA, generator=generator) - 1,
        "weights": torch.rand(ROWS, generator=generator),
    }


class Victim:
    """A policy, and critics that are linear in the action."""

    def __init__(self, policy):
        self.action_distribution = policy

    def q_reward(self, observations, actions):
        return actions.sum(-1)

    def q_cost(self, observations, actions):
        return actions[:, 0]


class Mark(Attack):
    """Moves every coordinate by its share of the budget."""

    name = "mark"

    def __init__(self, share):
        self.share, self.seen = share, None

    def perturb(self, target, observations, *, epsilon, noise, previous=None):
        self.seen = observations.clone()
        return observations + self.share * epsilon


@pytest.mark.parametrize("rho", [0.0, 1.0, 2.5])
def test_loss_is_weighted_likelihood_at_true_and_at_attacked_observations(policy, rows, rho):
    def weighted_nll(observations):
        mean, std = policy(observations)
        log_prob = dist.Normal(mean, std).log_prob(rows["actions"]).sum(-1)
        return -(rows["weights"] * log_prob).mean()

    clean, attacked = weighted_nll(rows["observations"]), weighted_nll(rows["attacked"])
    loss, parts = robust_loss(policy, **rows, adversarial_weight=rho)
    torch.testing.assert_close(loss, clean + rho * attacked)
    torch.testing.assert_close(parts["nll"], clean.detach())
    torch.testing.assert_close(parts["nll_attacked"], attacked.detach())
    assert loss.requires_grad
    assert not parts["nll"].requires_grad


def test_noise_asks_for_the_same_action_and_kl_for_the_same_distribution(policy, rows):
    def loss(robustness):
        return robust_loss(policy, **rows, adversarial_weight=2.0, robustness=robustness)[0]

    true, false = (dist.Normal(*policy(rows[name])) for name in ("observations", "attacked"))
    clean = -(rows["weights"] * true.log_prob(rows["actions"]).sum(-1)).mean()
    apart = (rows["weights"] * dist.kl_divergence(true, false).sum(-1)).mean()
    torch.testing.assert_close(loss("kl"), clean + 2 * apart)
    torch.testing.assert_close(loss("noise"), loss("attack"))


def test_an_adversary_of_noise_has_no_plan_and_its_budget_grows(policy, rows):
    settings = {"budget": EPSILON, "noise": noise(seed=0)}
    quiet = Adversary(RobustConfig(robustness="noise"), **settings, attacks=(Mark(1.0),))
    moved = quiet.attack(Victim(policy), rows["observations"], done=0.25) - rows["observations"]
    assert quiet.ramp(0.25) == 0.5
    assert 0.3 * EPSILON[0] < moved[:, 0].abs().max() <= 0.5 * EPSILON[0] + 1e-6
    assert len(moved[:, 0].abs().unique()) == ROWS
    loud = Adversary(RobustConfig(ramp_share=0.0), **settings, attacks=(Mark(1.0),))
    attacked = loud.attack(Victim(policy), rows["observations"], done=0.0)
    torch.testing.assert_close(attacked, rows["observations"] + EPSILON)


def test_rows_of_no_weight_teach_nothing(policy, rows):
    rows["weights"] = torch.zeros(ROWS)
    rows["weights"][3] = 1.0
    loss, _ = robust_loss(policy, **rows, adversarial_weight=1.0)
    others = torch.arange(ROWS) != 3
    rows["actions"][others] = 0.0
    rows["attacked"][others] = 5.0
    same, _ = robust_loss(policy, **rows, adversarial_weight=1.0)
    torch.testing.assert_close(loss, same)


def test_fitting_makes_the_policy_act_right_where_an_adversary_leads_it(policy):
    """The action depends on the sign of one coordinate, and attacks carry it nearly to zero."""
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(2, (256,), generator=generator) * 2.0 - 1
    observations = torch.stack([side, *torch.zeros(2, 256)], 1)
    actions = 0.7 * torch.stack([side, side], 1)
    attacked = observations * torch.tensor([0.1, 1, 1])
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)

    def error_under_attack(rho):
        for _ in range(150):
            loss, _ = robust_loss(
                policy,
                observations,
                attacked,
                actions,
                torch.ones(256),
                adversarial_weight=rho,
            )
            gradient_step(optimizer, loss, max_norm=10.0)
        return (policy(attacked)[0] - actions).abs().mean().item()

    brittle = error_under_attack(0.0)
    robust = error_under_attack(1.0)
    assert brittle > 0.2
    assert robust < 0.05


# Attacks


@pytest.mark.parametrize("rows_in_batch", [1, 2, 9, 10])
def test_attacks_take_turns_row_by_row(policy, rows, rows_in_batch):
    observations = rows["observations"][:rows_in_batch]
    kept = observations.clone()
    attacks = [Mark(share) for share in (0.25, -0.5, 1.0)]
    attacked = mixed_attack(
        attacks, Victim(policy), observations, epsilon=EPSILON, noise=noise(seed=0)
    )
    shares = torch.tensor([(0.25, -0.5, 1.0)[row % 3] for row in range(rows_in_batch)])
    torch.testing.assert_close(attacked, observations + shares[:, None] * EPSILON)
    assert torch.equal(observations, kept)
    for number, attack in enumerate(attacks):
        assert torch.equal(attack.seen, observations[number::3])


def noise(seed):
    return GeneratorNoise(torch.Generator().manual_seed(seed))


def test_no_row_leaves_its_budget_and_no_parameter_gets_a_gradient(policy, rows):
    gradients = {"steps": 3, "restarts": 1}
    attacks = (MaxCost(**gradients), MaxReward(**gradients), MAD(**gradients), Uniform())
    attacked = mixed_attack(
        attacks, Victim(policy), rows["observations"], epsilon=EPSILON, noise=noise(seed=0)
    )
    moved = (attacked - rows["observations"]).abs()
    assert (moved <= EPSILON).all()
    assert (moved[:, [0, 2]].amax(1) > 0).all()
    assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_without_budget_nobody_is_attacked(policy, rows):
    attacks = (MaxCost(steps=2, restarts=1), MAD(steps=2, restarts=1))
    attacked = mixed_attack(
        attacks,
        Victim(policy),
        rows["observations"],
        epsilon=torch.zeros(DS),
        noise=noise(seed=0),
    )
    assert torch.equal(attacked, rows["observations"])


def test_each_row_is_attacked_in_the_interest_of_its_attack(policy, rows):
    attacks = (MaxCost(steps=8, restarts=2), MaxReward(steps=8, restarts=2))
    victim, observations = Victim(policy), rows["observations"]
    attacked = mixed_attack(attacks, victim, observations, epsilon=EPSILON, noise=noise(seed=0))
    with torch.no_grad():
        before, after = policy(observations)[0], policy(attacked)[0]
    assert (victim.q_cost(attacked, after) >= victim.q_cost(observations, before))[0::2].all()
    assert (victim.q_reward(attacked, after) >= victim.q_reward(observations, before))[1::2].all()


@pytest.mark.parametrize("rows_in_batch", [1, 2, 9, 10])
def test_attacks_in_one_ascent_find_what_they_find_one_after_the_other(policy, rows, rows_in_batch):
    kinds, victim = (MaxCost, MaxReward, MAD), Victim(policy)
    observations = rows["observations"][:rows_in_batch]
    kept = observations.clone()

    def attacked(*attacks):
        return mixed_attack(attacks, victim, observations, epsilon=EPSILON, noise=noise(seed=0))

    jointly = Jointly(*(kind() for kind in kinds), steps=6)
    together = attacked(jointly)
    torch.testing.assert_close(together, attacked(*(kind(steps=6, restarts=1) for kind in kinds)))
    assert torch.equal(observations, kept)
    assert (together != observations)[:, [0, 2]].any(dim=1).all()
    assert jointly.critics == ("cost", "reward")


def test_attacks_in_one_ascent_ask_the_policy_for_all_rows_at_once(policy, rows):
    asked = []

    class Counting(Victim):
        def __init__(self, policy):
            self.action_distribution = lambda shown: (asked.append(len(shown)), policy(shown))[1]

    Jointly(MaxCost(), MaxReward(), steps=3).perturb(
        Counting(policy), rows["observations"], epsilon=EPSILON, noise=noise(seed=0)
    )
    assert asked == [ROWS] * 4
