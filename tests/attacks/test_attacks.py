"""Attacks: budget, oracles on linear victims, independence of rows, noise, names."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from safer_offline.attacks import (
    AMAD,
    ATTACKS,
    MAD,
    AdversaryNetwork,
    Bias,
    CoupledMaxCost,
    Drift,
    GeneratorNoise,
    Learned,
    Lure,
    MaxCost,
    MaxReward,
    MinReward,
    Mixed,
    RowNoise,
    Timed,
    Uniform,
    attack_budget,
    attack_settings,
    load_adversary,
    make_attack,
    preset_of,
    resolve_attacks,
)
from safer_offline.attacks.base import GradientAttack
from safer_offline.attacks.budget import Box
from safer_offline.errors import CheckpointError, UsageError

DS, DA, ROWS = 5, 2, 7
EPSILON = torch.tensor([0.05, 0.1, 0.0, 0.02, 0.3])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@dataclasses.dataclass
class LinearVictim:
    """Mean W s, fixed deviation, critics linear in the action."""

    weight: Tensor
    action_cost: Tensor

    def action_distribution(self, observations):
        mean = observations @ self.weight.T
        return mean, torch.full_like(mean, 0.2)

    def q_reward(self, observations, actions):
        return -actions @ self.action_cost

    def q_cost(self, observations, actions):
        return observations.sum(-1) + actions @ self.action_cost


class NetworkVictim(nn.Module):
    def __init__(self):
        super().__init__()
        self.policy = self.network(DS, 2 * DA)
        self.reward = self.network(DS + DA, 1)
        self.cost = self.network(DS + DA, 1)

    @staticmethod
    def network(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))

    def action_distribution(self, observations):
        mean, log_std = self.policy(observations).chunk(2, dim=-1)
        return mean.tanh(), log_std.exp()

    def q_reward(self, observations, actions):
        return self.reward(torch.cat([observations, actions], -1)).squeeze(-1)

    def q_cost(self, observations, actions):
        return self.cost(torch.cat([observations, actions], -1)).squeeze(-1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return NetworkVictim()


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(1)
    return LinearVictim(
        torch.randn(DA, DS, generator=generator), torch.randn(DA, generator=generator)
    )


@pytest.fixture
def observations():
    return torch.randn(ROWS, DS, generator=torch.Generator().manual_seed(2)) * 3


def row_noise(name="any", rows=ROWS):
    return RowNoise.seeded(0, name, range(rows))


def fast_noise(seed=0):
    return GeneratorNoise(torch.Generator().manual_seed(seed))


OFFSET = (1.0, -0.5, 0.25, -1.0, 0.0)


def having_learned():
    torch.manual_seed(7)
    return Learned().having_learned(AdversaryNetwork(DS, hidden_sizes=(8, 8)))


def built(name):
    if name == "learned":
        return having_learned()
    settings = {
        "amad": {"threshold": 0.0},
        "bias": {"offset": OFFSET},
        "drift": {"offset": OFFSET, "duration": 2},
        "lure": {"threshold": 0.0},
        "mix": {"scales": (1.0, 2.0)},
        "timed": {"threshold": 0.0},
    }
    return make_attack(name, **settings.get(name, {}))


# Budget


@given(
    rows=st.lists(
        st.tuples(
            st.floats(-1e6, 1e6, width=32), st.floats(0, 100, width=32), st.floats(-300, 300)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_projected_points_never_leave_the_budget(rows):
    centre, epsilon, delta = (
        torch.tensor([column], dtype=torch.float32) for column in zip(*rows, strict=True)
    )
    points = Box.around(centre, epsilon[0]).project(centre + delta)
    assert ((points - centre).abs() <= epsilon).all()
    assert ((points.double() - centre.double()).abs() <= epsilon.double()).all()


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(ATTACKS)),
    scale=st.floats(1e-6, 1e4),
    epsilon=st.lists(st.floats(0, 10, width=32), min_size=DS, max_size=DS),
)
def test_no_attack_exceeds_its_budget(name, scale, epsilon):
    torch.manual_seed(0)
    clean, budget = torch.randn(ROWS, DS) * scale, torch.tensor(epsilon)
    perturbed = built(name).perturb(NetworkVictim(), clean, epsilon=budget, noise=row_noise())
    assert ((perturbed.double() - clean.double()).abs() <= budget.double()).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_budget_means_no_change(name, network, observations):
    perturbed = built(name).perturb(
        network, observations, epsilon=torch.zeros(DS), noise=row_noise()
    )
    assert torch.equal(perturbed, observations)
    assert not perturbed.requires_grad


def test_budget_in_raw_units_and_in_deviations():
    std = torch.tensor([1.0, 2.0, 4.0])
    assert attack_budget(0.5, std).tolist() == [0.5, 0.5, 0.5]
    assert attack_budget(0.5, std, units="std").tolist() == [0.5, 1.0, 2.0]
    assert attack_budget([0.0, 1.0, 2.0], std, units="std").tolist() == [0.0, 2.0, 8.0]


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (-0.1, "not negative"),
        (float("nan"), "finite"),
        ([0.1, 0.1, float("inf")], "coordinate 2"),
        ([0.1, 0.1], "3 coordinates"),
        ([[0.1, 0.1, 0.1]], "3 coordinates"),
    ],
)
def test_impossible_budgets_are_refused(epsilon, message):
    with pytest.raises(UsageError, match=message):
        attack_budget(epsilon, torch.ones(3))
    with pytest.raises(UsageError, match="'raw' or 'std'"):
        attack_budget(0.1, torch.ones(3), units="metres")


# Oracles


@pytest.mark.parametrize(("attack", "sign"), [(MaxCost, 1), (MaxReward, -1), (MinReward, 1)])
def test_critic_attacks_find_the_best_corner_of_a_linear_victim(attack, sign, linear, observations):
    perturbed = attack().perturb(linear, observations, epsilon=EPSILON, noise=row_noise())
    corner = sign * EPSILON * (linear.action_cost @ linear.weight).sign()
    torch.testing.assert_close(perturbed - observations, corner.expand(ROWS, DS))


def test_mad_finds_the_largest_divergence_of_a_linear_victim(linear, observations):
    perturbed = MAD().perturb(linear, observations, epsilon=EPSILON, noise=row_noise())
    reached = MAD().objective(linear, observations)(perturbed)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=DS))) * EPSILON
    closed_form = ((corners @ linear.weight.T) ** 2).sum(-1).max() / (2 * 0.2**2)
    torch.testing.assert_close(reached, closed_form.expand(ROWS), rtol=1e-3, atol=0)


def test_mad_objective_is_the_divergence_of_gaussians(network, observations):
    other = observations + 0.3
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(*network.action_distribution(observations)),
        torch.distributions.Normal(*network.action_distribution(other)),
    ).sum(-1)
    torch.testing.assert_close(MAD().objective(network, observations)(other), expected)


@pytest.mark.parametrize("attack", [MAD, MaxCost, MaxReward])
def test_gradients_beat_noise(attack, network, observations):
    value = attack().objective(network, observations)
    found = attack().perturb(network, observations, epsilon=EPSILON, noise=row_noise())
    for seed in range(20):
        noisy = Uniform().perturb(network, observations, epsilon=EPSILON, noise=fast_noise(seed))
        assert (value(found) >= value(noisy)).all()


class Trap(GradientAttack):
    """Its gradient leads away from the maximum, so that only the start itself is any good."""

    name = "trap"
    starts = ("zero",)

    def objective(self, target, clean):
        def value(points):
            distance = (points - clean).abs().sum(-1)
            return torch.where(distance == 0, 10.0, 0.0) + (points - clean).sum(-1)

        return value


def test_the_best_iterate_wins_the_start_included(observations):
    perturbed = Trap(restarts=2).perturb(None, observations, epsilon=EPSILON, noise=row_noise())
    assert torch.equal(perturbed, observations)


def test_more_steps_and_restarts_do_no_harm(network, observations):
    value = MaxCost().objective(network, observations)
    means = [
        value(
            MaxCost(steps=steps, restarts=restarts).perturb(
                network, observations, epsilon=EPSILON, noise=row_noise()
            )
        ).mean()
        for steps, restarts in ((1, 1), (5, 1), (20, 5), (50, 5))
    ]
    assert means == sorted(means)


def test_previous_perturbation_is_one_of_the_starts(observations):
    needle = 0.3 * EPSILON

    class Needle(Trap):
        """One tiny spot is good, and no gradient leads there."""

        def objective(self, target, clean):
            return lambda points: torch.where(
                (points - clean - needle).abs().sum(-1) < 1e-5, 1e3, (points - clean).sum(-1)
            )

    settings = {"epsilon": EPSILON, "noise": row_noise()}
    cold = Needle(restarts=2).perturb(None, observations, **settings)
    warm = Needle(restarts=2).perturb(
        None, observations, **settings, previous=needle.expand(ROWS, DS)
    )
    assert torch.equal(warm, observations + needle)
    torch.testing.assert_close(cold, observations + EPSILON)


def test_amad_attacks_only_where_much_cost_is_expected(network, observations):
    natural = torch.randn(500, DS, generator=torch.Generator().manual_seed(3)) * 3
    attack = AMAD(steps=4)
    assert attack.needs_fit
    with pytest.raises(UsageError, match="threshold"):
        attack.perturb(network, observations, epsilon=EPSILON, noise=row_noise())

    fitted = attack.fit(network, natural)
    assert not fitted.needs_fit
    assert fitted.steps == 4
    with torch.no_grad():
        cost = network.q_cost(natural, network.action_distribution(natural)[0])
    assert (cost >= fitted.threshold).float().mean().item() == pytest.approx(0.1, abs=0.003)

    perturbed = fitted.perturb(network, natural, epsilon=EPSILON, noise=row_noise(rows=500))
    changed = (perturbed != natural).any(-1)
    assert torch.equal(changed, cost >= fitted.threshold)


def test_a_coupled_perturbation_begins_at_none_and_never_jumps(network, observations):
    attack, previous = CoupledMaxCost(change=0.3, steps=5), None
    before, moved = torch.zeros_like(observations), []
    for step in range(8):
        clean = observations + 0.1 * step  # the true state moves on
        seen = attack.perturb(network, clean, epsilon=EPSILON, noise=row_noise(), previous=previous)
        previous = seen - clean
        assert (previous.abs() <= EPSILON).all()
        assert ((previous - before).abs() <= 0.3 * EPSILON + 1e-6).all()
        moved.append((previous - before).abs().max().item())
        before = previous
    assert max(moved) > 0.05, "it makes use of what it may"
    assert (before.abs() > 0.9 * EPSILON).any(), "and reaches the end of the budget in time"
    with pytest.raises(UsageError, match="change must be positive"):
        CoupledMaxCost(change=0.0)


def test_a_mixture_has_the_two_attacks_as_its_ends(network, observations):
    natural = torch.randn(300, DS, generator=torch.Generator().manual_seed(3)) * 3
    assert Mixed().needs_fit
    with pytest.raises(UsageError, match="no scales yet"):
        Mixed().perturb(network, observations, epsilon=EPSILON, noise=row_noise())
    for share, end in ((1.0, MaxCost), (0.0, MaxReward)):
        mixed = Mixed(share=share, steps=4).fit(network, natural)
        seen, alone = (
            attack.perturb(network, observations, epsilon=EPSILON, noise=row_noise())
            for attack in (mixed, end(steps=4))
        )
        torch.testing.assert_close(seen, alone)
    with torch.no_grad():
        mean, _ = network.action_distribution(natural)
        costs, rewards = network.q_cost(natural, mean), network.q_reward(natural, mean)
    half = Mixed().fit(network, natural)
    assert half.scales == pytest.approx((costs.std().item(), rewards.std().item()))
    with torch.no_grad():
        value = half.q_value(network, natural, mean)
    torch.testing.assert_close(value, 0.5 * costs / costs.std() + 0.5 * rewards / rewards.std())


def test_a_lure_tempts_where_it_is_safe_and_pushes_where_it_is_not(network, observations):
    attack = Lure(steps=4).fit(network, observations)
    with torch.no_grad():
        cost = network.q_cost(observations, network.action_distribution(observations)[0])
    attack.threshold = cost.median().item()
    seen, pushed, tempted = (
        one.perturb(network, observations, epsilon=EPSILON, noise=row_noise())
        for one in (attack, MaxCost(steps=4), MaxReward(steps=4))
    )
    risky = cost >= attack.threshold
    assert 0 < risky.sum() < ROWS
    assert torch.equal(seen, torch.where(risky[:, None], pushed, tempted))
    assert Lure().fit(network, observations).threshold == pytest.approx(cost.quantile(0.9).item())


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_timed_attack_strikes_where_the_first_step_of_mc_gains_most(share, network):
    natural = torch.randn(500, DS, generator=torch.Generator().manual_seed(3)) * 3
    fitted = Timed(share=share, steps=4).fit(network, natural)
    uniform = torch.full((DS,), 1e-4)
    seen = fitted.perturb(network, natural, epsilon=uniform, noise=row_noise(rows=500))
    struck = (seen != natural).any(-1)
    assert struck.float().mean().item() == pytest.approx(share, abs=0.01)
    # The budget is so small that a gradient says all: compare with what MC gains everywhere.
    everywhere = MaxCost(steps=20).perturb(
        network, natural, epsilon=uniform, noise=row_noise(rows=500)
    )
    with torch.no_grad():
        before, after = (
            network.q_cost(natural.double().float(), network.action_distribution(s)[0]).double()
            for s in (natural, everywhere)
        )
    gain = after - before
    assert gain[struck].mean() > 1.3 * gain[~struck].mean()
    with pytest.raises(UsageError, match="share"):
        Timed(share=0)


def test_a_drift_grows_in_equal_steps_until_it_is_whole(network, observations):
    attack, previous, moved = Drift(offset=OFFSET, duration=4), None, []
    for _ in range(6):
        seen = attack.perturb(
            network, observations, epsilon=EPSILON, noise=row_noise(), previous=previous
        )
        previous = seen - observations
        moved.append(previous)
    whole = torch.tensor(OFFSET) * EPSILON
    for step, share in enumerate((0.25, 0.5, 0.75, 1.0, 1.0, 1.0)):
        expected = (share * whole).expand(ROWS, DS)
        torch.testing.assert_close(moved[step], expected, atol=2e-6, rtol=0)
    with pytest.raises(UsageError, match="duration"):
        Drift(duration=0)


def test_a_bias_is_the_same_everywhere(network, observations):
    seen = Bias(offset=OFFSET).perturb(network, observations, epsilon=EPSILON, noise=row_noise())
    expected = (torch.tensor(OFFSET) * EPSILON).expand(ROWS, DS)
    torch.testing.assert_close(seen - observations, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (Bias(), "has no offset yet"),
        (Bias(offset=(1.0, 0.0)), "2 numbers, but an observation has 5"),
        (Learned(), "has learned nothing yet"),
        (
            Learned().having_learned(AdversaryNetwork(3, hidden_sizes=(4,))),
            "of 3 coordinates, but these have 5",
        ),
    ],
)
def test_what_was_not_found_or_is_of_another_task_is_refused(attack, told, network, observations):
    with pytest.raises(UsageError, match=told):
        attack.perturb(network, observations, epsilon=EPSILON, noise=row_noise())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Bias(offset=(0.0, 1.5)), "from -1 to 1"),
        (lambda: Bias(population=2), "population of at least 4"),
        (lambda: Learned(steps=0), "at least one step"),
        (lambda: Learned(restarts=0), "one restart"),
    ],
)
def test_impossible_searches_are_refused(make, told):
    with pytest.raises(UsageError, match=told):
        make()


def test_a_learned_adversary_comes_back_from_its_file(tmp_path, network, observations):
    learned = having_learned()
    learned.network.mean += 0.5
    learned.network.free[1] = 0
    learned.curve = [{"steps": 10, "cost": 1.5, "return": 3.0}]
    learned.trained_on = {"env": "somewhere"}
    learned.save(tmp_path / "new" / "adversary.safetensors")
    again = make_attack("learned", file=str(tmp_path / "new" / "adversary.safetensors"))
    given = {"epsilon": EPSILON, "noise": row_noise()}
    seen = again.perturb(network, observations, **given)
    assert torch.equal(seen, learned.perturb(network, observations, **given))
    assert torch.equal(seen[:, 1], observations[:, 1]), "it had no budget there to learn with"
    assert not again.needs_rehearsal
    assert (again.curve, again.trained_on) == (learned.curve, learned.trained_on)
    # Two that differ in their weights alone are two in a report.
    assert str(again.network) == str(learned.network) != str(having_learned().network)
    assert attack_settings(again)["network"] is again.network


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"x" * 100])
def test_a_file_that_is_no_adversary_is_named(content, tmp_path):
    path = tmp_path / "adversary.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no (such adversary|adversary of ours)"):
        load_adversary(path)


# Gradients, rows, randomness


@pytest.mark.parametrize("name", ATTACKS)
def test_the_victim_gets_no_gradients(name, network, observations):
    observations.requires_grad_()
    with torch.no_grad():
        perturbed = built(name).perturb(network, observations, epsilon=EPSILON, noise=row_noise())
    assert not perturbed.requires_grad
    assert observations.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("name", ATTACKS)
def test_a_row_does_not_depend_on_its_company(name, network, observations):
    together = built(name).perturb(network, observations, epsilon=EPSILON, noise=row_noise())
    mask = torch.tensor([True, False, True, True, False, False, True])
    fewer = built(name).perturb(
        network, observations[mask], epsilon=EPSILON, noise=row_noise().rows(mask)
    )
    torch.testing.assert_close(fewer, together[mask])


@pytest.mark.parametrize("noise", [row_noise, fast_noise])
@pytest.mark.parametrize("name", ATTACKS)
def test_same_seed_same_perturbation(name, noise, network, observations):
    first, second = (
        built(name).perturb(network, observations, epsilon=EPSILON, noise=noise()) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_row_noise_depends_on_seed_attack_and_episode_only():
    draw = RowNoise.seeded(0, "mc", [3, 5]).uniform((2, 4))
    assert torch.equal(RowNoise.seeded(0, "mc", [5]).uniform((1, 4))[0], draw[1])
    for other in (RowNoise.seeded(1, "mc", [5]), RowNoise.seeded(0, "mr", [5])):
        assert not torch.equal(other.uniform((1, 4))[0], draw[1])
    with pytest.raises(ValueError, match="2 generators"):
        RowNoise.seeded(0, "mc", [3, 5]).uniform((3, 4))


@pytest.mark.parametrize("source", [row_noise(rows=50), fast_noise()])
def test_noise_has_the_promised_distribution(source):
    uniform, normal = source.uniform((50, 2000)), source.normal((50, 2000))
    assert uniform.dtype == normal.dtype == torch.float32
    assert uniform.min() >= -1
    assert uniform.max() < 1
    assert uniform.std().item() == pytest.approx(3**-0.5, rel=0.02)
    assert normal.mean().item() == pytest.approx(0, abs=0.02)
    assert normal.std().item() == pytest.approx(1, rel=0.02)


# Names


def test_names_resolve():
    assert [attack.name for attack in resolve_attacks("all")] == [
        "natural", "uniform", "gaussian", "mad", "amad", "mc", "mr",
    ]  # fmt: skip
    assert [attack.name for attack in resolve_attacks("strong")] == [
        "natural", "uniform", "gaussian", "mad", "amad", "mc", "mr",
        "minr", "mix", "lure", "coupled", "bias", "learned",
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="left out: mad, amad, mc, mr, minr, mix, lure, coupled"):
        blind = resolve_attacks("strong", critics=(), gradients=False)
    assert [attack.name for attack in blind] == [
        "natural", "uniform", "gaussian", "search", "bias", "learned",
    ]  # fmt: skip
    whole = [attack.name for attack in resolve_attacks("all")]
    for text in ("all,bias", "bias, ALL", "bias,all,mc"):
        assert [attack.name for attack in resolve_attacks(text)] == [*whole, "bias"]
    assert resolve_attacks("all,strong,mine=mc")[-1].name == "mine"
    assert len(resolve_attacks("all,strong,mine=mc")) == len(resolve_attacks("strong")) + 1
    assert [preset_of(text) for text in ("all,strong", "mc,all", "mc")] == ["strong", "all", None]
    mine = MaxCost(steps=3)
    assert resolve_attacks(["natural", mine])[1] is mine
    assert [attack.name for attack in resolve_attacks(" MC, mr")] == ["mc", "mr"]
    assert make_attack("mc", steps=3).steps == 3


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ("unifrom", "nearest known one is 'uniform'"),
        (["mc", "mad-"], "nearest known one is 'mad'"),
        ("mc,mr,mc", "'mc' is given twice"),
        ("", "no attack given"),
        ([], "no attack given"),
    ],
)
def test_bad_names_are_refused(attacks, message):
    with pytest.raises(UsageError, match=message):
        resolve_attacks(attacks)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"restarts": 0}])
def test_attacks_need_steps_and_restarts(settings):
    with pytest.raises(UsageError, match="at least one step and one restart"):
        MaxCost(**settings)
