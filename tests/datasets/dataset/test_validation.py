"""Every way in which arrays can break the format gives one message with row and remedy."""

import dataclasses
import time

import numpy as np
import pytest

from safer_offline.datasets import BoxSpace, Metadata, OfflineDataset
from safer_offline.datasets.dataset.constants import find_constants
from safer_offline.datasets.dataset.validation import find_problems
from safer_offline.errors import DataError

LENGTHS = (5, 5, 5, 4)


def only(problems, severity="error"):
    assert len(problems) == 1, problems
    assert problems[0].severity == severity
    assert problems[0].remedy
    return problems[0]


def test_sound_arrays_have_no_problems(make_arrays, metadata):
    assert find_problems(make_arrays(), metadata) == []


def test_missing_arrays_are_all_named_costs_first(make_arrays):
    arrays = make_arrays(infos=False)
    del arrays["actions"], arrays["costs"]

    problems = find_problems(arrays, Metadata())

    assert [problem.field for problem in problems] == ["costs", "actions"]
    assert "cost of each transition" in problems[0].remedy
    assert "next_observations" in problems[1].problem  # what there is


@pytest.mark.parametrize("kind", ["complex64", "object", "S3"])
def test_arrays_of_no_numbers(make_arrays, kind):
    arrays = make_arrays()
    arrays["rewards"] = arrays["rewards"].astype(kind)

    problem = only(find_problems(arrays, Metadata()))

    assert problem.field == "rewards"
    assert "no real number" in problem.problem


@pytest.mark.parametrize("name", ["seed", "policy_id", "episode_id"])
@pytest.mark.parametrize("values", [np.zeros(19), np.zeros((19, 2), int)])
def test_columns_that_say_which_episode_hold_whole_numbers(make_arrays, name, values):
    arrays = make_arrays() | {f"infos/{name}": values}

    problem = only(find_problems(arrays, Metadata()))

    assert problem.field == f"infos/{name}"
    assert "one whole number a row" in problem.problem


def test_infos_within_infos_are_fine(make_arrays):
    assert find_problems(make_arrays() | {"infos/a/b": np.zeros(19)}, Metadata()) == []


def test_an_array_is_no_group(make_arrays):
    arrays = make_arrays() | {"infos/a": np.zeros(19), "infos/a/b": np.zeros(19)}

    problem = only(find_problems(arrays, Metadata()))

    assert problem.field == "infos/a"
    assert "group of 'infos/a/b'" in problem.problem


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("actions", lambda a: a[:-1], r"has 18 rows, most arrays have 19"),
        ("infos/seed", lambda a: a[:-2], r"has 17 rows"),
        ("infos/speed", lambda a: a[0], r"has no rows"),
        ("actions", lambda a: a[:, 0], r"shape \(19,\), it must have \(N, size\)"),
        ("costs", lambda a: np.stack([a, a], 1), r"shape \(19, 2\), it must have \(N,\)"),
        ("actions", lambda a: a[:, :0], r"no columns"),
        ("next_observations", lambda a: a[:, :2], r"2 columns but 'observations' has 3"),
        ("observations", lambda a: a.T, r"shape \(3, 19\): rows and columns are swapped"),
        ("costs", lambda a: a[None], r"shape \(1, 19\): rows and columns are swapped"),
        ("observations", lambda a: np.zeros((19, 8, 8, 3)), r"3 dimensions.*such as images"),
        ("actions", lambda a: np.arange(19) % 4, "whole numbers: discrete actions, for which"),
        ("actions", lambda a: np.arange(19) % 4 * 1.0, "whole numbers: discrete actions, for"),
    ],
)
def test_shapes(make_arrays, name, change, text):
    arrays = make_arrays()
    arrays["infos/speed"] = arrays["rewards"]
    arrays[name] = np.asarray(change(arrays[name]))

    with pytest.raises(DataError, match=text) as caught:
        OfflineDataset.from_arrays(arrays, path="a.h5")

    assert caught.value.field == name
    assert caught.value.remedy


def test_no_transitions(make_arrays):
    arrays = {name: array[:0] for name, array in make_arrays().items()}

    assert "no transitions" in only(find_problems(arrays, Metadata())).problem


@pytest.mark.parametrize("name", ["observations", "next_observations", "actions", "rewards"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(make_arrays, name, value):
    arrays = make_arrays()
    arrays[name][[7, 11]] = value

    problem = find_problems(arrays, Metadata())[0]

    assert (problem.field, problem.index) == (name, 7)
    assert "NaN" in problem.problem


def test_a_number_too_large_for_float32_is_found(make_arrays):
    arrays = make_arrays()
    arrays["rewards"] = arrays["rewards"].astype(np.float64)
    arrays["rewards"][3] = 1e300

    with pytest.raises(DataError, match=r"'rewards', row 3.*too large for float32"):
        OfflineDataset.from_arrays(arrays, path="a.h5")


def test_negative_costs(make_arrays):
    arrays = make_arrays()
    arrays["costs"][4:6] = -1

    problem = only(find_problems(arrays, Metadata()))

    assert (problem.field, problem.index) == ("costs", 4)
    assert "negative cost -1" in problem.problem


def test_flags_that_are_no_flags(make_arrays):
    arrays = make_arrays()
    arrays["terminals"] = arrays["terminals"].astype(np.float32)
    arrays["terminals"][2] = 0.5

    problem = only(find_problems(arrays, Metadata()))

    assert (problem.field, problem.index) == ("terminals", 2)
    assert "0.5" in problem.problem


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32"])
def test_flags_of_any_type_become_bool(make_arrays, kind):
    arrays = make_arrays()
    for name in ("terminals", "timeouts"):
        arrays[name] = arrays[name].astype(kind)

    dataset = OfflineDataset.from_arrays(arrays)

    assert dataset.num_episodes == len(LENGTHS)
    assert dataset.timeouts.numpy().dtype == np.bool_


def test_both_flags(make_arrays):
    arrays = make_arrays()
    arrays["terminals"][9] = True

    problem = only(find_problems(arrays, Metadata()))

    assert problem.index == 9
    assert "both" in problem.problem
    assert "timeouts & ~terminals" in problem.remedy


def test_no_end_at_all(make_arrays, metadata):
    arrays = make_arrays()
    arrays["terminals"][:] = arrays["timeouts"][:] = False

    problem = only(find_problems(arrays, Metadata()))

    assert "no row ends an episode" in problem.problem
    assert "--max-episode-steps N" in problem.remedy
    assert "--max-episode-steps 5" in only(find_problems(arrays, metadata)).remedy


def test_numbers_of_choices_are_suspected(make_arrays):
    arrays = make_arrays(action_size=1)
    arrays["actions"] = (np.arange(19) % 4)[:, None].astype(np.float32)

    problem = only(find_problems(arrays, Metadata()), "warning")

    assert "whole numbers from 0 to 3" in problem.problem


def test_an_unfinished_tail(make_arrays):
    arrays = make_arrays()
    arrays["terminals"][-1] = False

    problem = only(find_problems(arrays, Metadata()))

    assert problem.index == 18
    assert "4 unfinished rows" in problem.problem


def test_an_episode_longer_than_the_limit(make_arrays):
    problem = only(find_problems(make_arrays(), Metadata(max_episode_steps=4)))

    assert problem.index == 4
    assert "has 5 steps" in problem.problem


def test_actions_outside_the_known_space_are_an_error(make_arrays, metadata):
    arrays = make_arrays()
    arrays["actions"][6, 1] = -1.01

    problem = only(find_problems(arrays, metadata))

    assert (problem.field, problem.index) == ("actions", 6)
    assert "-1.01" in problem.problem


def test_actions_within_float_noise_of_the_bound_are_fine(make_arrays, metadata):
    arrays = make_arrays()
    arrays["actions"][6, 1] = np.nextafter(np.float32(1), np.float32(2))

    assert find_problems(arrays, metadata) == []


def test_large_actions_without_a_space_are_a_warning(make_arrays):
    arrays = make_arrays()
    arrays["actions"][6, 1] = 5

    assert only(find_problems(arrays, Metadata()), "warning").index == 6
    with pytest.warns(UserWarning, match=r"a\.h5, 'actions', row 6"):
        dataset = OfflineDataset.from_arrays(arrays, path="a.h5")
    assert dataset.action_high.tolist() == [1, 5]


def test_a_space_of_another_environment(make_arrays, metadata):
    wrong = dataclasses.replace(metadata, action_space=BoxSpace(low=(-1.0,), high=(1.0,)))

    problem = only(find_problems(make_arrays(), wrong))

    assert "2 columns but the attribute 'action_space' describes 1" in problem.problem


def test_shifted_observations_are_an_error_and_float_noise_a_warning(make_arrays):
    arrays = make_arrays()
    noisy = {**arrays, "next_observations": arrays["next_observations"] + np.float32(1e-6)}
    shifted = {**arrays, "next_observations": arrays["observations"]}

    assert only(find_problems(noisy, Metadata()), "warning").index == 0
    problem = only(find_problems(shifted, Metadata()))
    assert (problem.field, problem.index) == ("next_observations", 0)


def test_all_problems_are_found_errors_first(make_arrays):
    arrays = make_arrays()
    arrays["actions"][0, 0] = 3  # a warning
    arrays["rewards"][1] = np.nan
    arrays["costs"][2] = -1

    found = [(problem.field, problem.index) for problem in find_problems(arrays, Metadata())]

    assert found == [("rewards", 1), ("costs", 2), ("actions", 0)]
    with pytest.raises(DataError, match=r"'rewards', row 1: .*\(and 1 more problem\)"):
        OfflineDataset.from_arrays(arrays, path="a.h5")


def test_a_large_dataset_is_checked_in_a_moment(make_arrays, metadata):
    arrays = make_arrays(lengths=(5,) * 20_000)

    start = time.perf_counter()
    assert find_problems(arrays, metadata) == []

    assert time.perf_counter() - start < 0.5


def test_noise_in_place_of_zero_is_a_constant_and_small_units_are_none():
    """Simulators leave 1e-13; a coordinate in thousandths of a millimetre is a measurement."""
    noise = np.random.default_rng(0).standard_normal((50, 1))
    rows = np.concatenate([1e-13 * noise, 1e-6 * noise, 3 + 1e-8 * noise], axis=1)
    arrays = {"observations": rows.astype("f4"), "actions": noise.astype("f4")}
    assert [one.place for one in find_constants(arrays)] == [0, 2]
