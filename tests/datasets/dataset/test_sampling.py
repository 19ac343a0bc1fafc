"""Batches: what is in them, that they are repeatable, and that weights weigh."""

import io

import pytest
import torch

from safer_offline.datasets import TransitionSampler
from safer_offline.datasets.dataset.sampling import BATCHES_PER_BLOCK
from safer_offline.errors import UsageError

ROWS = 50


@pytest.fixture
def columns():
    rows = torch.arange(ROWS, dtype=torch.float32)
    return {
        "wide": torch.stack([rows, -rows, rows * 2], dim=1),
        "flat": rows,
        "thin": rows[:, None],
        "flag": rows >= 25,
    }


def indices(sampler, batches):
    return torch.stack([sampler.sample()["flat"].long() for _ in range(batches)])


def test_the_columns_of_a_batch_belong_together(columns):
    batch = TransitionSampler(columns, batch_size=7, seed=0).sample()

    rows = batch["flat"].long()
    assert list(batch) == list(columns)
    for name, column in columns.items():
        assert batch[name].dtype == torch.float32
        torch.testing.assert_close(batch[name], column[rows].float(), rtol=0, atol=0)


def test_changing_a_batch_changes_nothing_else(columns):
    sampler = TransitionSampler(columns, batch_size=ROWS, seed=0)
    sampler.sample()["wide"].zero_()

    assert sampler.sample()["wide"].abs().sum() > 0
    assert columns["wide"].abs().sum() > 0


@pytest.mark.parametrize("weighted", [False, True])
def test_the_seed_determines_the_batches(columns, weighted):
    weights = torch.rand(ROWS) if weighted else None

    def draw(seed):
        sampler = TransitionSampler(columns, batch_size=4, seed=seed, weights=weights)
        return indices(sampler, BATCHES_PER_BLOCK + 3)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("before", [0, 1, BATCHES_PER_BLOCK - 1, BATCHES_PER_BLOCK, 600])
def test_a_resumed_sampler_goes_on_exactly(columns, weighted, before):
    weights = torch.rand(ROWS) if weighted else None
    sampler = TransitionSampler(columns, batch_size=4, seed=1, weights=weights)
    indices(sampler, before) if before else None
    buffer = io.BytesIO()
    torch.save(sampler.state_dict(), buffer)
    expected = indices(sampler, BATCHES_PER_BLOCK + 5)

    resumed = TransitionSampler(columns, batch_size=4, seed=99, weights=weights)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))

    assert torch.equal(indices(resumed, BATCHES_PER_BLOCK + 5), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_is_drawn_as_often_as_it_should(columns, weighted):
    weights = torch.ones(ROWS, dtype=torch.float64)
    if weighted:
        weights = torch.linspace(0, 3, ROWS, dtype=torch.float64) ** 2
        weights[-5:] = 0
    sampler = TransitionSampler(
        columns, batch_size=500, seed=3, weights=weights if weighted else None
    )
    draws = 400 * 500

    counts = torch.bincount(indices(sampler, 400).flatten(), minlength=ROWS)

    share = weights / weights.sum()
    assert (counts[weights == 0] == 0).all()
    deviation = (counts - draws * share) / (draws * share * (1 - share)).sqrt().clamp(min=1e-9)
    assert deviation[weights > 0].abs().max() < 4.5
    # Their sum of squares is chi-squared with about ROWS degrees of freedom.
    assert (deviation[weights > 0] ** 2).sum() < ROWS + 5 * (2 * ROWS) ** 0.5


def test_batches_of_weighted_rows_are_not_sorted(columns):
    sampler = TransitionSampler(columns, batch_size=200, seed=0, weights=torch.ones(ROWS))
    rows = indices(sampler, 1)[0].double()

    assert torch.corrcoef(torch.stack([rows, torch.arange(200.0).double()]))[0, 1].abs() < 0.3


def test_a_single_row_with_weight_is_always_drawn(columns):
    weights = torch.zeros(ROWS)
    weights[17] = 1e-30

    sampler = TransitionSampler(columns, batch_size=8, seed=0, weights=weights)

    assert indices(sampler, 300).unique().tolist() == [17]


def test_a_state_of_other_data_is_refused(columns):
    state = TransitionSampler(columns, batch_size=4, seed=0).state_dict()
    fewer = {name: column[:10] for name, column in columns.items()}

    with pytest.raises(UsageError, match="num_rows 50 and has 10"):
        TransitionSampler(fewer, batch_size=4, seed=0).load_state_dict(state)
    with pytest.raises(UsageError, match="batch_size 4 and has 5"):
        TransitionSampler(columns, batch_size=5, seed=0).load_state_dict(state)


@pytest.mark.parametrize(
    ("columns", "options", "text"),
    [
        ({}, {}, "no columns"),
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, {}, "same number of rows"),
        ({"a": torch.zeros(0)}, {}, "at least one"),
        ({"a": torch.zeros(3, dtype=torch.int64)}, {}, "'a' is torch.int64"),
        ({"a": torch.zeros(3, 2, 2)}, {}, "3 dimensions"),
        ({"a": torch.zeros(3)}, {"batch_size": 0}, "batch_size must be at least 1"),
        ({"a": torch.zeros(3)}, {"weights": torch.ones(2)}, r"shape \(2,\)"),
        ({"a": torch.zeros(3)}, {"weights": torch.zeros(3)}, "not all zero"),
        ({"a": torch.zeros(3)}, {"weights": torch.tensor([1, -1, 1.0])}, ">= 0"),
        ({"a": torch.zeros(3)}, {"weights": torch.tensor([1, float("nan"), 1])}, "finite"),
    ],
)
def test_impossible_requests(columns, options, text):
    with pytest.raises(UsageError, match=text):
        TransitionSampler(columns, **{"batch_size": 2, "seed": 0, **options})
