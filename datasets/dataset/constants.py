"""Coordinates that never vary: whoever reads them learns nothing, and should know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.problems import Problem

NOISE = 1e-6
"""Of the value: what rounding to float32 may add to one that does not vary."""

LEAST_VALUE = 1e-3
"""A smaller value counts as this: simulators leave such things as 1e-13 in place of zero. Training
takes smaller deviations for this one."""

NAMED = 8
"""Coordinates that a sentence names before it counts the others."""


@dataclass(frozen=True, kw_only=True)
class ConstantCoordinate:
    """One number of every observation or action that is the same in all rows.

    Attributes:
        field: `observations` or `actions`.
        place: Which number of the vector, counted from 0.
        value: What it always is.
    """

    field: str
    place: int
    value: float


def find_constants(arrays: Mapping[str, NDArray[Any]]) -> tuple[ConstantCoordinate, ...]:
    """The coordinates of observations and actions that have one value in all rows.

    Args:
        arrays: `observations` (N, observation size) and `actions` (N, action size).
    """
    found = []
    for field in ("observations", "actions"):
        low, high = arrays[field].min(axis=0), arrays[field].max(axis=0)
        largest = np.maximum(np.abs(low), np.abs(high))
        same = high - low <= NOISE * np.maximum(largest, LEAST_VALUE)
        found += [
            ConstantCoordinate(field=field, place=int(place), value=float(low[place]))
            for place in np.flatnonzero(same)
        ]
    return tuple(found)


def describe_constants(constants: tuple[ConstantCoordinate, ...]) -> str:
    """Which numbers never vary and what they are: `2 (always 0), 5 (always 1)`."""
    named = [f"{one.place} (always {one.value:g})" for one in constants[:NAMED]]
    more = [f"and {len(constants) - NAMED} more"] if len(constants) > NAMED else []
    return ", ".join(named + more)


def find_constant_problems(arrays: Mapping[str, NDArray[Any]]) -> list[Problem]:
    """A warning for each array of a sound dataset that has coordinates which never vary."""
    problems = []
    constants = find_constants(arrays)
    for field in ("observations", "actions"):
        ours = tuple(one for one in constants if one.field == field)
        if ours:
            problems.append(
                Problem(
                    field=field,
                    problem=f"{len(ours)} of {arrays[field].shape[1]} numbers of a row never "
                    f"vary, counted from 0: {describe_constants(ours)}",
                    remedy="nothing can be learned from them, and training leaves such numbers of "
                    "observations unread; check that they were recorded",
                    severity="warning",
                )
            )
    return problems
