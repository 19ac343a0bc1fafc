"""What can be wrong with the arrays of a dataset: pure functions that find all of it.

Errors make a dataset unusable; warnings are worth knowing. All messages name the array and the
first row at fault, and say what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.context import BoxSpace
from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import (
    ARRAYS,
    FLAG_ARRAYS,
    FLOAT_ARRAYS,
    IDENTIFIERS,
    Metadata,
)
from safer_offline.datasets.dataset.shapes import are_choices, find_bad_shapes

Arrays = Mapping[str, NDArray[Any]]

# Actions are stored as float32: a bound of 40 is only met to about 2e-6.
ACTION_TOLERANCE = 1e-6
# In standard deviations of the column: above float noise, far below the step of a simulator.
CONTINUITY_TOLERANCE = 1e-3


def find_problems(arrays: Arrays, metadata: Metadata) -> list[Problem]:
    """Everything that is wrong with a dataset, worst first.

    Values are looked at only where shapes and types allow it, so that one mistake gives one
    message.

    Args:
        arrays: The seven arrays of the format by name, and any `infos/NAME`; N rows each.
        metadata: What the file says about them.
    """
    problems = [*_find_missing(arrays), *_find_bad_types(arrays)]
    if not problems:
        problems = [*find_bad_shapes(arrays)]
    if not problems:
        problems = [*_find_bad_spaces(arrays, metadata)]
    if not problems:
        for check in (_find_not_finite, _find_bad_costs, _find_bad_flags):
            problems.extend(check(arrays))
        problems.extend(_find_bad_actions(arrays, metadata.action_space))
        # Where flags or observations are wrong in themselves, episodes mean nothing.
        basis = (*FLAG_ARRAYS, "observations", "next_observations")
        if not any(problem.field in basis for problem in problems):
            problems.extend(_find_bad_episodes(arrays, metadata.max_episode_steps))
    return sorted(problems, key=lambda problem: problem.severity == "warning")


def raise_first_error(problems: list[Problem], *, path: str | Path | None) -> None:
    """Raise the first error among `problems`, if there is one, and count the others.

    Raises:
        DataError: What is wrong, where, and the remedy.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    others = len(errors) - 1
    count = f" (and {others} more problem{'s' * (others > 1)})" if others else ""
    raise replace(errors[0], problem=errors[0].problem + count).to_error(path=path)


def _find_missing(arrays: Arrays) -> Iterator[Problem]:
    if "costs" not in arrays:
        yield Problem(
            field="costs",
            problem="the array is missing",
            remedy="safe learning needs the cost of each transition: add an array 'costs' with N "
            "values >= 0 (all zero if nothing was unsafe)",
        )
    for name in ARRAYS:
        if name not in arrays and name != "costs":
            present = ", ".join(sorted(arrays)) or "none"
            yield Problem(
                field=name,
                problem=f"the array is missing (present: {present})",
                remedy=f"add it; a dataset holds {', '.join(ARRAYS)}, one row per transition",
            )


def _find_bad_types(arrays: Arrays) -> Iterator[Problem]:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            yield Problem(
                field=name,
                problem=f"has type {array.dtype}, which is no real number",
                remedy="store it as float32 (flags as bool)",
            )
        elif name in IDENTIFIERS and (array.dtype.kind not in "iu" or array.ndim != 1):
            yield Problem(
                field=name,
                problem=f"has type {array.dtype} and shape {array.shape} instead of one whole "
                "number a row",
                remedy="store it as integers, or under another name",
            )
        elif inner := next((other for other in arrays if other.startswith(f"{name}/")), None):
            yield Problem(
                field=name,
                problem=f"is an array and the group of '{inner}' at once, which no file can hold",
                remedy="rename one of them",
            )


def _find_bad_spaces(arrays: Arrays, metadata: Metadata) -> Iterator[Problem]:
    for space, name, attribute in (
        (metadata.observation_space, "observations", "observation_space"),
        (metadata.action_space, "actions", "action_space"),
    ):
        if space is not None and space.size != arrays[name].shape[1]:
            yield Problem(
                field=name,
                problem=f"has {arrays[name].shape[1]} columns but the attribute '{attribute}' "
                f"describes {space.size}",
                remedy="the arrays and the attributes belong to different environments: "
                "correct the attribute or delete it",
            )


def _find_not_finite(arrays: Arrays) -> Iterator[Problem]:
    for name in FLOAT_ARRAYS:
        array = arrays[name]
        if not np.isfinite(array).all():
            row = _first_row(array, lambda values: ~np.isfinite(values))
            yield Problem(
                field=name,
                index=row,
                problem="holds NaN, infinity or a number too large for float32",
                remedy="remove the episodes with such rows, or repair what recorded them",
            )


def _find_bad_costs(arrays: Arrays) -> Iterator[Problem]:
    costs = arrays["costs"]
    if (costs < 0).any():
        row = _first_row(costs, lambda values: values < 0)
        yield Problem(
            field="costs",
            index=row,
            problem=f"holds the negative cost {costs[row]:g}",
            remedy="a cost is >= 0, 0 where nothing happened; if the sign is the other way round, "
            "store -costs",
        )


def _find_bad_flags(arrays: Arrays) -> Iterator[Problem]:
    for name in FLAG_ARRAYS:
        flags = arrays[name]
        if flags.dtype.kind != "b" and not ((flags == 0) | (flags == 1)).all():
            row = _first_row(flags, lambda values: (values != 0) & (values != 1))
            yield Problem(
                field=name,
                index=row,
                problem=f"holds {flags[row]:g}, a flag is 0 or 1",
                remedy="store it as bool",
            )
    both = (arrays["terminals"] != 0) & (arrays["timeouts"] != 0)
    if both.any():
        yield Problem(
            field="timeouts",
            index=int(both.argmax()),
            problem="both 'terminals' and 'timeouts' are set",
            remedy="an episode ends one way; if it truly ended, that wins: "
            "timeouts = timeouts & ~terminals",
        )


def _find_bad_actions(arrays: Arrays, space: BoxSpace | None) -> Iterator[Problem]:
    actions = arrays["actions"]
    low = np.array(space.low if space else (-1.0,))
    high = np.array(space.high if space else (1.0,))
    low -= ACTION_TOLERANCE * np.maximum(1.0, np.abs(low))
    high += ACTION_TOLERANCE * np.maximum(1.0, np.abs(high))
    # NaN is reported as such and compares false here.
    if not ((actions.min(axis=0) < low) | (actions.max(axis=0) > high)).any():
        return
    row = _first_row(actions, lambda values: (values < low) | (values > high))
    outside = actions[row][(actions[row] < low) | (actions[row] > high)][0]
    if space is not None:
        yield Problem(
            field="actions",
            index=row,
            problem=f"the action {outside:g} lies outside the action space in the attributes",
            remedy="store the action as the environment executed it (clipped), or correct the "
            "attribute 'action_space'",
        )
    elif actions.shape[1] == 1 and are_choices(actions):
        yield Problem(
            field="actions",
            index=row,
            problem=f"all actions are whole numbers from {actions.min():g} to {actions.max():g}: "
            "if they number choices, there is no learner for them here",
            remedy="learn from it only if they are amounts, such as steps of a motor",
            severity="warning",
        )
    else:
        yield Problem(
            field="actions",
            index=row,
            problem=f"the action {outside:g} lies outside [-1, 1] and the file names no bounds; "
            "the range of the data is taken for the action space",
            remedy="scale actions to [-1, 1], or write the attribute 'action_space'",
            severity="warning",
        )


def _find_bad_episodes(arrays: Arrays, max_episode_steps: int | None) -> Iterator[Problem]:
    ends = (arrays["terminals"] != 0) | (arrays["timeouts"] != 0)
    rows = len(ends)
    last = np.flatnonzero(ends)
    if unfinished := find_unfinished(
        rows, end=int(last[-1]) + 1 if len(last) else 0, max_episode_steps=max_episode_steps
    ):
        yield unfinished
    if not len(last):
        return  # between episodes that nobody can tell apart, rows need not continue each other
    lengths = np.diff(last, prepend=-1)
    if max_episode_steps is not None and (lengths > max_episode_steps).any():
        episode = int((lengths > max_episode_steps).argmax())
        yield Problem(
            field="timeouts",
            index=int(last[episode]),
            problem=f"the episode that ends here has {lengths[episode]} steps, the attribute "
            f"'max_episode_steps' allows {max_episode_steps}",
            remedy="an end flag is missing before this row, or the attribute is wrong",
        )
    yield from _find_gaps(arrays, ends)


def find_unfinished(rows: int, *, end: int, max_episode_steps: int | None) -> Problem | None:
    """What is wrong where the last episode, or every one, has no end.

    Args:
        rows: How many there are.
        end: One past the last row that ends an episode; 0 if none does.
        max_episode_steps: What the file says of it.
    """
    if end == rows:
        return None
    if not end:
        steps = "N" if max_episode_steps is None else str(max_episode_steps)
        return Problem(
            field="timeouts",
            index=rows - 1,
            problem=f"no row ends an episode: 'terminals' and 'timeouts' are 0 in all {rows} rows",
            remedy="if the environment cut its episodes after N steps, `safer-offline data convert "
            f"FILE --max-episode-steps {steps} --to hdf5 -o NEW.h5` sets the timeouts",
        )
    return Problem(
        field="timeouts",
        index=rows - 1,
        problem=f"the last row ends no episode: {rows - end} unfinished rows",
        remedy="`safer-offline data convert FILE --fix drop-tail --to hdf5 -o NEW.h5` cuts them "
        "off; or set timeouts to 1 in the last row if recording stopped there",
    )


def _find_gaps(arrays: Arrays, ends: NDArray[np.bool_]) -> Iterator[Problem]:
    """Rows whose next observation is not the observation of the next row.

    Learning from single transitions does not mind float noise here, so that is a warning. More
    than noise means that the arrays are shifted against each other or rows are missing.
    """
    following, expected = arrays["observations"][1:], arrays["next_observations"][:-1]
    # Nearly all entries agree, and only those that differ cost time.
    differing = np.flatnonzero((following != expected).ravel()) // following.shape[1]
    differing = np.unique(differing[~ends[differing]])
    if not len(differing):
        return
    gaps = np.abs(following[differing] - expected[differing])
    tolerance = 1e-6 + CONTINUITY_TOLERANCE * arrays["observations"].std(axis=0, dtype=np.float64)
    large = (gaps > tolerance).any(axis=1)
    if large.any():
        yield Problem(
            field="next_observations",
            index=int(differing[large.argmax()]),
            problem=f"differs from 'observations' of the next row by {gaps.max():g} within an "
            f"episode ({large.sum()} such rows)",
            remedy="keep the rows of an episode together and in order, and check that the two "
            "arrays are not shifted against each other",
        )
    else:
        yield Problem(
            field="next_observations",
            index=int(differing[0]),
            problem=f"differs from 'observations' of the next row by up to {gaps.max():g} "
            f"within an episode ({len(differing)} such rows); learning does not mind, an export "
            "to Minari would be refused",
            remedy="set next_observations[i] = observations[i + 1] within episodes",
            severity="warning",
        )


def _first_row(array: NDArray[Any], is_bad: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> int:
    bad = is_bad(array)
    return int((bad.any(axis=1) if bad.ndim == 2 else bad).argmax())
