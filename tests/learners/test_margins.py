"""The cost of a path within an attacker's reach, for cost models whose border is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.learners import margins
from safer_offline.learners.margins import CostModel, cost_model_loss, costs_within_margin
from safer_offline.policies.layers import gradient_step


def half_space(weight, offset):
    """A model that finds cost where weight . s > offset."""
    model = CostModel(len(weight), hidden_sizes=())
    with torch.no_grad():
        model.network[0].weight.copy_(torch.tensor([weight]))
        model.network[0].bias.fill_(-offset)
    return model


def within(model, observations, costs, reach, seed=0):
    return costs_within_margin(
        model,
        observations,
        costs,
        reach=torch.tensor(reach),
        generator=torch.Generator().manual_seed(seed),
    )


def flagged_and_worst(data):
    """Which of 300 rows are found costly, and the largest logit within a share of their reach."""
    generator = torch.Generator().manual_seed(data["seed"])
    observations = torch.randn(300, 3, generator=generator)
    weight, reach = (torch.tensor(data[name]).double() for name in ("weight", "reach"))
    costs = torch.zeros(300)
    costs[0] = 1.0  # without any cost, none is imagined
    found = within(
        half_space(data["weight"], data["offset"]), observations, costs, data["reach"], data["seed"]
    )

    def worst(share):
        logit = observations.double() @ weight + share * (weight.abs() @ reach) - data["offset"]
        return logit[1:]

    return found[1:] > 0, worst


borders = st.fixed_dictionaries(
    {
        "weight": st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3),
        "reach": st.lists(st.floats(0.125, 1, width=32), min_size=3, max_size=3),
        "offset": st.floats(-1, 1, width=32),
        "seed": st.integers(0, 1000),
    }
)
ROUNDING = 1e-4


@given(data=borders)
@settings(max_examples=60, deadline=None)
def test_a_step_out_of_reach_of_cost_is_never_costly(data):
    found, worst = flagged_and_worst(data)
    assert not found[worst(1.0) < -ROUNDING].any()


@given(data=borders)
@settings(max_examples=60, deadline=None)
def test_a_step_well_within_reach_of_cost_always_is(data):
    """The search starts anywhere and takes 1.7 of the reach: 0.7 of it are certain."""
    found, worst = flagged_and_worst(data)
    assert found[worst(0.7) > ROUNDING].all()


def test_a_step_is_costly_exactly_if_cost_is_within_reach():
    found, worst = flagged_and_worst(
        {"weight": [1.0, -0.5, 0.2], "reach": [0.5, 0.5, 0.5], "offset": 0.3, "seed": 0}
    )
    assert torch.equal(found, worst(1.0) > 0)


def test_what_was_observed_counts_at_least_and_what_is_imagined_costs_the_mean():
    observations = torch.tensor([[0.0], [0.85], [1.5], [0.85], [-3.0]])
    costs = torch.tensor([0.0, 0.0, 4.0, 2.5, 1.0])
    found = within(half_space([1.0], 1.0), observations, costs, [0.2])
    mean = (4.0 + 2.5 + 1.0) / 3
    assert found.tolist() == pytest.approx([0, mean, 4.0, max(mean, 2.5), 1.0])


def test_no_reach_or_no_cost_anywhere_changes_nothing():
    observations, costs = torch.randn(20, 2), (torch.arange(20) % 2).float()
    model = half_space([1.0, 0.0], -100.0)  # sees cost everywhere
    for given_costs, reach in ((costs, [0.0, 0.0]), (torch.zeros(20), [1.0, 1.0])):
        found = within(model, observations, given_costs, reach)
        assert torch.equal(found, given_costs)
        assert found is not given_costs


def test_more_reach_never_costs_less():
    observations = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    costs = (observations[:, 0] > 1).float()
    model = half_space([1.0, 0.0], 1.0)
    totals = [within(model, observations, costs, [r, r]).sum() for r in (0.0, 0.1, 0.3, 1.0)]
    assert totals[0] == costs.sum()
    assert totals == sorted(totals)
    assert len(set(totals)) == 4


def test_coordinates_out_of_reach_stay_where_they_are():
    observations = torch.tensor([[0.9, 0.9]])
    costs = torch.tensor([0.0])
    both = torch.cat([observations, torch.tensor([[9.0, 9.0]])])
    costs = torch.tensor([0.0, 1.0])
    model = half_space([1.0, 0.0], 1.0)
    assert within(model, both, costs, [0.0, 0.5]).tolist() == [0, 1]
    assert within(model, both, costs, [0.5, 0.0]).tolist() == [1, 1]


def test_blocks_change_nothing_for_a_model_with_one_border(monkeypatch):
    observations = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    costs = (observations[:, 0] > 1).float()
    model = half_space([1.0, 0.2], 1.0)
    whole = within(model, observations, costs, [0.2, 0.2])
    monkeypatch.setattr(margins, "BLOCK_ROWS", 7)
    assert torch.equal(within(model, observations, costs, [0.2, 0.2]), whole)


def test_cost_model_learns_where_cost_is():
    torch.manual_seed(0)
    observations = 4 * torch.rand(2_000, 2) - 2
    costs = 3.0 * (observations[:, 0].abs() > 1).float()  # outside of a strip
    model = CostModel(2, hidden_sizes=(32,))
    model.observations.fit(observations)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        gradient_step(optimizer, cost_model_loss(model, observations, costs), max_norm=10.0)
    fresh = 4 * torch.rand(2_000, 2) - 2
    inside = fresh[:, 0].abs() < 0.9
    outside = fresh[:, 0].abs() > 1.1
    assert (model(fresh[inside]) < 0).float().mean() > 0.98
    assert (model(fresh[outside]) > 0).float().mean() > 0.98
    # Either border is found from where it can be reached, and only from there.
    found = within(model, fresh, 3.0 * (fresh[:, 0].abs() > 1).float(), [0.3, 0.3]) > 0
    assert found[fresh[:, 0].abs() > 0.8].float().mean() > 0.98
    assert found[fresh[:, 0].abs() < 0.6].float().mean() < 0.02


def test_loss_is_the_cross_entropy_of_some_cost():
    model = half_space([1.0], 0.0)
    observations, costs = torch.tensor([[2.0], [-1.0]]), torch.tensor([7.0, 0.0])
    chance = torch.sigmoid(torch.tensor([2.0, -1.0]))
    expected = -(chance[0].log() + (1 - chance[1]).log()) / 2
    torch.testing.assert_close(cost_model_loss(model, observations, costs), expected)
