"""Datasets made from datasets: filtered, thinned, split, merged, sampled."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.datasets import (
    BehaviorPolicy,
    EpisodeFilter,
    Metadata,
    OfflineDataset,
    filter_episodes,
    load_dataset,
    merge_datasets,
    sample_episodes,
    save_dataset,
    split_dataset,
    thin_by_density,
)
from safer_offline.datasets.storage.hdf5 import content_sha256
from safer_offline.datasets.storage.provenance import MAX_HISTORY, join_histories
from safer_offline.datasets.transforms.filtering import grid_cells
from safer_offline.datasets.transforms.merging import find_duplicates
from safer_offline.errors import UsageError

NAMES = ("broad", "frontier", "recovery")


def build(episodes, metadata=None, seed=0):
    """A dataset of (return, cost, length) episodes; the policies act in turn."""
    rng = np.random.default_rng(seed)
    lengths = np.array([length for _, _, length in episodes])
    rows, last = lengths.sum(), np.cumsum(lengths) - 1
    paths = [rng.standard_normal((length + 1, 2), np.float32) for length in lengths]
    rewards, costs = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    rewards[last] = [gain for gain, _, _ in episodes]
    costs[last] = [cost for _, cost, _ in episodes]
    episode = np.repeat(np.arange(len(lengths)), lengths)
    arrays = {
        "observations": np.concatenate([path[:-1] for path in paths]),
        "next_observations": np.concatenate([path[1:] for path in paths]),
        "actions": rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        "rewards": rewards,
        "costs": costs,
        "terminals": np.zeros(rows, np.bool_),
        "timeouts": np.isin(np.arange(rows), last),
        "infos/episode_id": episode.astype(np.int32),
        "infos/seed": episode.astype(np.int64) + 2**40,
        "infos/policy_id": (episode % len(NAMES)).astype(np.int16),
    }
    policies = tuple(BehaviorPolicy(name=name, share=1 / 3) for name in NAMES)
    metadata = metadata or Metadata(env_id="SafetyCarCircle-v0", behavior_policies=policies)
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


whole_numbers = st.integers(-20, 20).map(float)
episode_lists = st.lists(
    st.tuples(whole_numbers, st.integers(0, 20).map(float), st.integers(1, 4)),
    min_size=1,
    max_size=40,
)


def many(count=400, seed=0):
    """Costs as in reality: more than half of the episodes have none."""
    rng = np.random.default_rng(seed)
    costs = np.maximum(rng.normal(-5, 20, count), 0).round()
    returns = rng.normal(100, 30, count).round(3) + costs
    return build(
        list(zip(returns.tolist(), costs.tolist(), rng.integers(1, 9, count), strict=True))
    )


def seeds(dataset):
    """Which episodes these are."""
    return dataset.episodes["seed"].tolist()


def same(one, other):
    return content_sha256(one) == content_sha256(other)


# What they all promise


OPERATIONS = {
    "filter": lambda data: filter_episodes(data, EpisodeFilter(max_cost=10, top_return=0.5)),
    "thin": lambda data: thin_by_density(data, density=0.5, seed=3),
    "split": lambda data: split_dataset(data, (0.5, 0.5), seed=3)[1],
    "sample": lambda data: sample_episodes(data, episodes=50, seed=3),
    "stratified sample": lambda data: sample_episodes(data, episodes=50, seed=3, stratify=True),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_same_seed_same_content_whatever_the_global_generators_do(operation):
    data = many()
    before = content_sha256(data)
    first = operation(data)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    second = operation(many())

    assert same(first, second)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert content_sha256(data) == before


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_metadata_of_what_comes_out(operation, tmp_path):
    data = many()
    known = dataclasses.replace(
        data.metadata,
        name="bullet/car-circle/mixed-v0",
        recipe="name = 'x'",
        reference_scores={"return_min": 0.0, "return_max": 200.0, "cost_max": 60.0},
        license="CC-BY-4.0",
        command="safer-offline collect",
    )
    stored = save_dataset(tmp_path / "data.h5", dataclasses.replace(data, metadata=known))

    result = operation(load_dataset(tmp_path / "data.h5"))

    metadata = result.metadata
    assert metadata.parents == (stored.content_sha256,)
    assert metadata.reference_scores == known.reference_scores
    assert (metadata.license, metadata.command) == ("CC-BY-4.0", "safer-offline collect")
    # These would claim that it is the whole.
    assert (metadata.name, metadata.recipe, metadata.content_sha256) == ("", "", "")
    acted = Counter(result.episodes["behavior"])
    for policy in metadata.behavior_policies:
        assert policy.share == pytest.approx(acted[policy.name] / result.num_episodes)
    assert seeds(result) == sorted(seeds(result)), "episodes keep their order"


def test_what_was_never_saved_is_a_parent_by_its_content():
    data = many()

    assert sample_episodes(data, episodes=3).metadata.parents == (content_sha256(data),)


def test_seeds_differ_in_what_they_draw():
    data = many()

    for draw in (
        lambda seed: sample_episodes(data, episodes=50, seed=seed),
        lambda seed: sample_episodes(data, episodes=50, seed=seed, stratify=True),
        lambda seed: split_dataset(data, (0.5, 0.5), seed=seed)[0],
        lambda seed: thin_by_density(data, density=0.5, seed=seed),
    ):
        assert seeds(draw(0)) != seeds(draw(1))
        with pytest.raises(UsageError, match="--seed must not be negative"):
            draw(-1)


def test_a_step_in_between_is_no_parent(tmp_path):
    stored = save_dataset(tmp_path / "data.h5", many())
    data = load_dataset(tmp_path / "data.h5")

    result = sample_episodes(filter_episodes(data, EpisodeFilter(max_cost=10)), episodes=3)

    assert result.metadata.parents == (stored.content_sha256,)


# Filter


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ({"min_return": 5}, [1, 2, 3, 4]),
        ({"max_return": 5}, [0, 1]),
        ({"min_cost": 10, "max_cost": 10}, [2]),
        ({"min_length": 2, "max_length": 3}, [1, 2]),
        ({"behaviors": ("frontier",)}, [1, 4]),
        ({"behaviors": ("broad", "recovery")}, [0, 2, 3]),
        ({"quality": "safe", "cost_limit": 10}, [0, 1, 2]),
        ({"quality": "unsafe", "cost_limit": 10}, [3, 4]),
        ({"quality": "boundary", "cost_limit": 10}, [1, 2, 3]),
        ({"quality": "tempting", "cost_limit": 10}, [4]),
        ({"quality": "tempting", "cost_limit": 0}, [1, 2, 3, 4]),
        ({"top_return": 0.3}, [2, 4]),
        ({"top_return": 0.3, "max_cost": 5}, [1]),
        ({"top_return": 1}, [0, 1, 2, 3, 4]),
    ],
)
def test_conditions(conditions, kept):
    data = build([(1, 0, 1), (5, 5, 2), (9, 10, 3), (8, 15, 4), (20, 16, 5)])

    result = filter_episodes(data, EpisodeFilter(**conditions))

    assert result.infos["episode_id"][result.episodes["start"]].tolist() == kept


def test_the_limit_in_the_file_is_the_default():
    data = build([(1, 0, 1), (5, 5, 2)])
    limited = dataclasses.replace(data, metadata=dataclasses.replace(data.metadata, cost_limit=2.0))

    assert filter_episodes(limited, EpisodeFilter(quality="unsafe")).num_episodes == 1
    with pytest.raises(UsageError, match=r"needs a cost limit .* give --cost-limit"):
        filter_episodes(data, EpisodeFilter(quality="unsafe"))


bounds = st.none() | whole_numbers
conditions = st.builds(
    lambda low, high, cost, behaviors: EpisodeFilter(
        min_return=low,
        max_return=high if None in (low, high) or low <= high else None,
        max_cost=cost,
        behaviors=behaviors,
    ),
    bounds,
    bounds,
    st.none() | st.integers(0, 20).map(float),
    st.sampled_from([(), ("broad",), ("broad", "recovery")]),
)


def chosen(data, *filters):
    """Which episodes are left after one filter after the other."""
    for one in filters:
        try:
            data = filter_episodes(data, one)
        except UsageError:
            return []
    return seeds(data)


@settings(max_examples=60, deadline=None)
@given(episodes=episode_lists, first=conditions, second=conditions)
def test_one_filter_after_another_is_both_at_once(episodes, first, second):
    data = build(episodes)
    verdicts = [*first.judge(data).values(), *second.judge(data).values()]
    both = np.logical_and.reduce([np.ones(len(episodes), bool), *verdicts])

    expected = data.episodes["seed"][both].tolist()

    assert chosen(data, first, second) == chosen(data, second, first) == expected


def test_nothing_left_says_which_condition_is_to_blame():
    data = build([(1, 0, 1), (5, 5, 2), (9, 10, 3)])

    with pytest.raises(UsageError) as caught:
        filter_episodes(data, EpisodeFilter(min_return=9, max_cost=5))

    text = str(caught.value)
    assert "none of the 3 episodes is left" in text
    assert "--min-return 9 removes 2, --max-cost 5 removes 1" in text
    assert "loosen --min-return 9 first" in text
    assert "returns from 1 to 9" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"min_cost": 5, "max_cost": 2}, "--min-cost 5 lies above --max-cost 2"),
        ({"max_return": float("nan")}, "--max-return is no number"),
        ({"top_return": 0.0}, "--top-return is a share"),
        ({"top_return": 25}, "--top-return is a share .* not 25"),
        ({"quality": "expert"}, "'expert'; safe, unsafe, boundary, tempting"),
        ({"cost_limit": 10}, "--max-cost"),
    ],
)
def test_conditions_that_make_no_sense(arguments, text):
    with pytest.raises(UsageError, match=text):
        EpisodeFilter(**arguments)


def test_asking_for_someone_who_did_not_act(make_arrays):
    data = build([(1, 0, 1), (5, 5, 2)])

    with pytest.raises(UsageError, match=r"'braod'; those who acted are broad, frontier, recov"):
        filter_episodes(data, EpisodeFilter(behaviors=("braod",)))
    bare = OfflineDataset.from_arrays(make_arrays(infos=False))
    with pytest.raises(UsageError, match="does not say who acted"):
        filter_episodes(bare, EpisodeFilter(behaviors=("broad",)))


# Density


@settings(max_examples=60, deadline=None)
@given(
    episodes=episode_lists,
    cap=st.integers(1, 5),
    floor=st.integers(1, 3),
    bins=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_thinning_caps_every_cell_and_loses_no_dense_one(episodes, cap, floor, bins):
    data = build(episodes)
    cells = grid_cells(data, cost_bins=bins[0], return_bins=bins[1])
    before = Counter(cells.tolist())
    grid = {"cost_bins": bins[0], "return_bins": bins[1], "min_per_bin": floor}
    if max(before.values()) < floor:
        with pytest.raises(UsageError, match="no cell of the grid"):
            thin_by_density(data, max_per_bin=cap, **grid)
        return

    thinned = thin_by_density(data, max_per_bin=cap, **grid)

    kept = np.isin(data.episodes["seed"], seeds(thinned))
    after = Counter(cells[kept].tolist())
    assert after == {cell: min(count, cap) for cell, count in before.items() if count >= floor}
    assert set(seeds(thinned)) <= set(seeds(thin_by_density(data, max_per_bin=cap + 1, **grid)))


def test_density_takes_the_highest_cap_that_fits():
    data = many()
    cells = Counter(grid_cells(data).tolist())

    thinned = thin_by_density(data, density=0.6)

    kept = np.isin(data.episodes["seed"], seeds(thinned))
    cap = max(Counter(grid_cells(data)[kept].tolist()).values())
    assert thinned.num_episodes == sum(min(count, cap) for count in cells.values()) <= 240
    assert sum(min(count, cap + 1) for count in cells.values()) > 240
    assert same(thin_by_density(data, density=1.0), data)


def test_the_grid_spans_the_reference_scores_or_the_data():
    data = build([(0, 2, 1), (10, 4, 1), (20, 6, 1)])
    reference = {"return_min": 10.0, "return_max": 100.0, "cost_max": 4.0}
    scored = dataclasses.replace(
        data, metadata=dataclasses.replace(data.metadata, reference_scores=reference)
    )

    assert grid_cells(data, cost_bins=2, return_bins=2).tolist() == [0, 3, 3]
    assert grid_cells(scored, cost_bins=4, return_bins=10).tolist() == [20, 30, 31]
    flat = build([(5, 0, 1), (5, 0, 1)])
    assert grid_cells(flat).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "either --density or --max-per-bin"),
        ({"density": 0.5, "max_per_bin": 3}, "either --density or --max-per-bin"),
        ({"density": 1.5}, "--density is a share"),
        ({"density": 0.01}, "occupied cells"),
        ({"max_per_bin": 0}, "--max-per-bin must be at least 1"),
        ({"max_per_bin": 1, "cost_bins": 0}, "--cost-bins must be at least 1"),
        ({"max_per_bin": 1, "min_per_bin": 1000}, "no cell of the grid holds 1000"),
    ],
)
def test_thinning_that_makes_no_sense(arguments, text):
    with pytest.raises(UsageError, match=text):
        thin_by_density(many(), **arguments)


# Split


@st.composite
def fraction_lists(draw):
    weights = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    return [weight / sum(weights) for weight in weights]


@settings(max_examples=80, deadline=None)
@given(
    episodes=episode_lists, fractions=fraction_lists(), seed=st.integers(0, 9), even=st.booleans()
)
def test_a_split_is_a_partition(episodes, fractions, seed, even):
    data = build(episodes)
    try:
        parts = split_dataset(data, fractions, seed=seed, stratify=even)
    except UsageError:
        assert min(fractions) * len(episodes) < 1
        return

    assert sorted(seed for part in parts for seed in seeds(part)) == seeds(data)
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(part.num_episodes - fraction * len(episodes)) < 1
        # Whole episodes, row by row.
        positions = np.searchsorted(seeds(data), seeds(part))
        assert same(part, data.select_episodes(positions))


@settings(max_examples=30, deadline=None)
@given(episodes=episode_lists.filter(lambda episodes: len(episodes) > 3), seed=st.integers(0, 9))
def test_merged_parts_are_the_whole_but_for_the_order(episodes, seed):
    data = build(episodes)
    parts = split_dataset(data, (0.5, 0.25, 0.25), seed=seed)

    merged = merge_datasets(parts)

    assert merged.metadata.parents == tuple(content_sha256(part) for part in parts)
    whole = merged.select_episodes(np.argsort(merged.episodes["seed"]))
    origin = np.searchsorted(
        np.cumsum([part.num_episodes for part in parts]), np.arange(len(episodes)), side="right"
    )
    assert merged.infos["parent_id"][merged.episodes["start"]].tolist() == origin.tolist()
    assert merged.infos["episode_id"].tolist() == merged.episode_index.tolist()
    for name, array in data.to_arrays().items():
        if name != "infos/episode_id":
            np.testing.assert_array_equal(whole.to_arrays()[name], array)


def test_stratified_parts_look_alike_and_plain_ones_need_not():
    data = many(200)

    def unsafe(stratify, seed):
        parts = split_dataset(data, (0.8, 0.1, 0.1), seed=seed, stratify=stratify)
        return [int((part.episodes["cost"] > 10).sum()) for part in parts]

    even = np.array([unsafe(True, seed) for seed in range(20)])
    plain = np.array([unsafe(False, seed) for seed in range(20)])
    total = int((data.episodes["cost"] > 10).sum())
    assert (np.abs(even - total * np.array([0.8, 0.1, 0.1])) <= 2).all()
    assert even[:, 1:].min() > 0
    assert even[:, 1].std() < plain[:, 1].std() / 2


def test_every_episode_can_end_up_in_every_part():
    # Distinct costs: their order alone must not decide.
    data = build([(0, cost, 1) for cost in range(20)])
    seen = [set(), set()]
    for seed in range(60):
        for part, found in zip(split_dataset(data, (0.8, 0.2), seed=seed), seen, strict=True):
            found.update(part.episodes["cost"])

    assert all(len(found) == 20 for found in seen)


@pytest.mark.parametrize(
    ("fractions", "text"),
    [
        ((), "between 0 and 1, these are none"),
        ((0.8, 0.1), r"0\.8, 0\.1 add up to 0\.9.*data sample"),
        ((1.2, -0.2), "between 0 and 1"),
        ((0.99, 0.01), r"part of 0\.01 of 5 episodes would be empty"),
    ],
)
def test_splits_that_make_no_sense(fractions, text):
    data = build([(0, 0, 1)] * 5)

    with pytest.raises(UsageError, match=text):
        split_dataset(data, fractions)


# Sample


@settings(max_examples=60, deadline=None)
@given(data=st.data(), episodes=episode_lists, even=st.booleans(), seed=st.integers(0, 9))
def test_a_sample_has_the_size_asked_for(data, episodes, even, seed):
    dataset = build(episodes)
    number = data.draw(st.integers(1, dataset.num_episodes))
    transitions = data.draw(st.integers(1, dataset.num_transitions))

    by_number = sample_episodes(dataset, episodes=number, seed=seed, stratify=even)
    by_rows = sample_episodes(dataset, transitions=transitions, seed=seed, stratify=even)

    assert by_number.num_episodes == len(set(seeds(by_number))) == number
    assert by_rows.num_transitions >= transitions
    assert len(set(seeds(by_rows))) == by_rows.num_episodes
    if not even:
        one_less = by_rows.num_transitions - by_rows.episodes["length"].max()
        assert one_less < transitions


@pytest.mark.parametrize("even", [False, True])
def test_all_episodes_are_equally_likely(even):
    data = many(30)
    drawn = Counter()
    for seed in range(600):
        drawn.update(seeds(sample_episodes(data, episodes=10, seed=seed, stratify=even)))

    assert len(drawn) == 30
    assert max(abs(count - 200) for count in drawn.values()) < 60  # five standard deviations


def test_a_stratified_sample_looks_like_the_whole():
    data = many(1000)

    def errors(stratify):
        samples = [
            sample_episodes(data, episodes=40, seed=seed, stratify=stratify).episodes
            for seed in range(30)
        ]
        return [np.std([sample[name].mean() for sample in samples]) for name in ("cost", "return")]

    for even, plain in zip(errors(True), errors(False), strict=True):
        assert even < plain / 1.5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "either"),
        ({"episodes": 2, "transitions": 2}, "either"),
        ({"episodes": 0}, "cannot draw 0 episodes from 5"),
        ({"episodes": 6}, "cannot draw 6 episodes from 5"),
        ({"transitions": 11}, "cannot draw 11 transitions from 10"),
    ],
)
def test_samples_that_make_no_sense(arguments, text):
    data = build([(0, 0, 2)] * 5)

    with pytest.raises(UsageError, match=text):
        sample_episodes(data, **arguments)


# Merge


def retell(data, **changes):
    return dataclasses.replace(data, metadata=dataclasses.replace(data.metadata, **changes))


@pytest.fixture
def one():
    return build([(1, 0, 1), (5, 5, 2), (9, 10, 3)], seed=1)


@pytest.fixture
def other():
    policies = (
        BehaviorPolicy(name="recovery", share=0.7),
        BehaviorPolicy(name="agent", share=0.3, checkpoint_sha256="a" * 64),
        BehaviorPolicy(name="broad", share=0.0, parameters={"noise": 0.1}),
    )
    metadata = Metadata(env_id="SafetyCarCircle-v0", behavior_policies=policies)
    return build([(2, 1, 2), (6, 6, 3), (3, 3, 3), (4, 4, 4)], metadata, seed=2)


def test_merging_unites_the_policies(one, other):
    merged = merge_datasets([one, other])

    policies = merged.metadata.behavior_policies
    assert [policy.name for policy in policies] == [*NAMES, "agent", "broad"]
    assert policies[4].parameters == {"noise": 0.1}
    # other: recovery, agent, the noisy broad, recovery
    acted = [0, 1, 2, 2, 3, 4, 2]
    assert merged.infos["policy_id"][merged.episodes["start"]].tolist() == acted
    assert merged.infos["policy_id"].dtype == np.int16
    assert [policy.share for policy in policies] == [acted.count(place) / 7 for place in range(5)]


def test_merging_datasets_that_do_not_say_who_acted(one, other):
    unknown = dataclasses.replace(other, infos={"seed": other.infos["seed"]})

    with pytest.warns(UserWarning, match="infos/policy_id' is dropped: dataset 2 lacks it"):
        merged = merge_datasets([one, unknown])

    assert sorted(merged.infos) == ["episode_id", "parent_id", "seed"]
    shares = {policy.name: policy.share for policy in merged.metadata.behavior_policies}
    assert shares["agent"] == pytest.approx(0.3 * 4 / 7)
    assert shares["recovery"] == pytest.approx(1 / 3 * 3 / 7 + 0.7 * 4 / 7)


def test_policies_without_names_cannot_be_merged_with_named_ones(one, other):
    nameless = retell(other, behavior_policies=())

    with pytest.warns(UserWarning, match="dataset 2 names 0 policies, but has the ids 0 to 2"):
        merged = merge_datasets([one, nameless])

    assert "policy_id" not in merged.infos


def test_columns_that_cannot_be_joined_are_dropped_by_name(one, other, recwarn):
    rows = len(one.rewards)
    first = dataclasses.replace(
        one,
        infos={**one.infos, "speed": np.zeros(rows), "pose": np.zeros((rows, 2))}
        | {"seed": one.infos["seed"].astype(np.uint64)},
    )
    second = dataclasses.replace(
        other, infos={**other.infos, "pose": np.zeros((len(other.rewards), 3))}
    )

    merged = merge_datasets([first, second])

    texts = " ".join(str(warning.message) for warning in recwarn)
    assert "'infos/speed' is dropped: dataset 2 lacks it" in texts
    assert "'infos/pose' is dropped: its shapes differ" in texts
    assert "'infos/seed' is dropped: its types differ: int64, uint64" in texts
    assert sorted(merged.infos) == ["episode_id", "parent_id", "policy_id"]


def test_what_the_parts_disagree_on_is_reported(one, other, recwarn):
    scores = {"return_max": 100.0}
    first = retell(one, cost_limit=10.0, reference_scores=scores, base_seed=1, versions={"a": "1"})
    second = retell(other, cost_limit=20.0, base_seed=2, versions={"a": "1"})

    metadata = merge_datasets([first, second]).metadata

    texts = " ".join(str(warning.message) for warning in recwarn)
    assert "disagree on 'cost_limit'" in texts
    assert "dataset 1 says 10.0" in texts
    assert "dataset 2 says nothing" in texts
    assert "base_seed" not in texts
    assert (metadata.cost_limit, metadata.reference_scores) == (None, {})
    assert metadata.versions == {"a": "1"}
    agreeing = merge_datasets([first, retell(second, reference_scores=scores)])
    assert agreeing.metadata.reference_scores == scores


def test_licences_and_authors(one, other):
    def merged(first, second, **arguments):
        parts = [retell(one, **first), retell(other, **second)]
        return merge_datasets(parts, **arguments).metadata

    assert merged({"license": "MIT"}, {"license": "MIT"}).license == "MIT"
    with pytest.raises(UsageError, match=r"dataset 1 MIT.*dataset 2 CC0|dataset 2 CC0.*1 MIT"):
        merged({"license": "MIT"}, {"license": "CC0-1.0"})
    chosen_one = merged({"license": "MIT"}, {"license": "CC0-1.0"}, license="MIT")
    assert chosen_one.license == "MIT"
    with pytest.warns(UserWarning, match="dataset 2 names no licence"):
        assert not merged({"license": "MIT"}, {}).license
    assert merged({}, {}).license == ""
    assert merged({"author": "A; B"}, {"author": "B; C"}).author == "A; B; C"
    assert merged({"author": "A"}, {}).author == "A"


def test_environments_must_agree(one, other, make_arrays):
    elsewhere = retell(other, env_id="SafetyBallRun-v0")
    bare = retell(other, env_id="")
    small = OfflineDataset.from_arrays(make_arrays())

    with pytest.raises(UsageError) as caught:
        merge_datasets([one, elsewhere])
    assert "dataset 1 has env_id SafetyCarCircle-v0" in str(caught.value)
    assert "dataset 2 has env_id SafetyBallRun-v0" in str(caught.value)
    with pytest.raises(UsageError, match="observation size"):
        merge_datasets([retell(one, env_id=""), small])
    with pytest.warns(UserWarning, match="'env_id'.*dataset 1 says SafetyCarCircle-v0"):
        assert merge_datasets([one, bare]).metadata.env_id == ""
    with pytest.raises(UsageError, match="two datasets or more, not 1"):
        merge_datasets([one])


def test_copies_are_counted_and_dropped_if_asked(one, other):
    part = one.select_episodes([2, 0])

    with pytest.warns(UserWarning, match="2 of 9 episodes are copies .* dataset 1 .* dataset 3"):
        merged = merge_datasets([one, other, part])
    assert find_duplicates(merged) == {7: 2, 8: 0}

    unique = merge_datasets([one, other, part], drop_duplicates=True)
    assert unique.num_episodes == 7
    assert unique.infos["episode_id"].tolist() == unique.episode_index.tolist()
    assert len(unique.metadata.parents) == 3
    with pytest.warns(UserWarning, match="3 of 6"):
        assert merge_datasets([one, one]).num_episodes == 6


def test_the_origin_of_rows_outlives_what_is_taken_from_a_merge(one, other, tmp_path):
    save_dataset(tmp_path / "merged.h5", merge_datasets([one, other]))
    merged = load_dataset(tmp_path / "merged.h5")

    taken = sample_episodes(merged, episodes=6)

    parents = taken.metadata.parents
    assert parents == (content_sha256(one), content_sha256(other), content_sha256(merged))
    for seed_one, row in zip(seeds(taken), taken.episodes["start"], strict=True):
        origin = [one, other][taken.infos["parent_id"][row]]
        assert seed_one in seeds(origin)
    again = merge_datasets([taken, one], drop_duplicates=True)
    assert set(again.infos["parent_id"]) <= {0, 1}
    assert len(again.metadata.parents) == 2
    assert "parent_id" not in OfflineDataset.concatenate([taken, taken]).infos


# History


def test_histories_are_joined_without_repetition():
    assert join_histories(["collect A && filter", "", "collect A && sample", "merge"]) == (
        "collect A && filter && sample && merge"
    )


def test_a_long_history_keeps_both_ends():
    history = join_histories([f"step {'ä' * 100} {number}" for number in range(1000)])

    assert len(history) < MAX_HISTORY + 10
    assert len(history.encode()) < 64_000
    assert history.startswith("step ")
    assert history.endswith(" 999")
