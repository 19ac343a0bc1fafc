"""One row a transition: what that means for the shapes of arrays, and what other layouts look like.

Messages name the layout that was found where it is a common one, for the way out differs: arrays
written by MATLAB are transposed on request, images and discrete actions are nothing for us.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.hashing import ArrayLike
from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import ARRAYS, IDENTIFIERS, INFO_PREFIX, MATRICES

Shapes = Mapping[str, tuple[int, ...]]


def count_rows(shapes: Shapes) -> int | None:
    """How many transitions most arrays can be said to have, whichever way round they are stored.

    Args:
        shapes: Of the arrays of the format that there are, by name.

    Returns:
        The length of a first or last axis that most of them share (of several, the largest), or
        None if none has an axis.
    """
    # Of two axes, either may count the rows; of one or more than two, the first does.
    axes = [{shape[0], shape[-1]} if len(shape) == 2 else {*shape[:1]} for shape in shapes.values()]
    counts = Counter(length for lengths in axes for length in lengths)
    return max(counts, key=lambda length: (counts[length], length)) if counts else None


def find_transposed(shapes: Shapes) -> tuple[str, ...]:
    """The arrays whose rows and columns are swapped, as MATLAB writes them to HDF5."""
    rows = count_rows(shapes)
    return tuple(
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and shape[0] != rows and shape[1] == rows
    )


def find_unfit_columns(arrays: Mapping[str, ArrayLike]) -> dict[str, str]:
    """The columns `infos/...` that are not one number or vector a row; why, by name.

    Where the arrays of the format are transposed, so may the columns be.

    Args:
        arrays: Of real numbers, by name.
    """
    shapes = {name: array.shape for name, array in arrays.items() if name in ARRAYS}
    rows = count_rows(shapes)
    transposed = bool(find_transposed(shapes))
    unfit = {}
    for name, array in arrays.items():
        if name in ARRAYS:
            continue
        shape = array.shape
        fits = shape[:1] == (rows,) or (transposed and shape[-1:] == (rows,))
        if not name.startswith(INFO_PREFIX):
            unfit[name] = "is one array, not a group of columns"
        elif not shape:
            unfit[name] = "is a single number"
        elif name in IDENTIFIERS and (array.dtype.kind not in "iu" or math.prod(shape[1:]) != 1):
            unfit[name] = "is not one whole number a row"
        elif rows is not None and not fits:
            unfit[name] = f"has shape {shape} instead of {rows} rows"
    return unfit


def find_bad_shapes(arrays: Mapping[str, NDArray[Any]]) -> Iterator[Problem]:
    """What is wrong with the shapes of the arrays of a dataset; see `find_problems`."""
    ours = {name: array.shape for name, array in arrays.items() if name in ARRAYS}
    rows = count_rows(ours) or 0
    transposed = find_transposed(ours)
    for name, array in arrays.items():
        if name in transposed:
            yield Problem(
                field=name,
                problem=f"has shape {array.shape}: rows and columns are swapped, as MATLAB writes "
                "them",
                remedy="`safer-offline data convert FILE --fix transpose --to hdf5 -o NEW.h5`",
            )
        elif name in ARRAYS and array.ndim != (2 if name in MATRICES else 1):
            yield _wrong_dimensions(name, array)
        elif array.ndim == 0 or len(array) != rows:
            yield Problem(
                field=name,
                problem=f"has {len(array) if array.ndim else 'no'} rows, most arrays have {rows}",
                remedy="every array needs one row per transition",
            )
        elif array.ndim == 2 and name in MATRICES and array.shape[1] == 0:
            yield Problem(
                field=name, problem="has no columns", remedy="store at least one number a row"
            )
    if rows == 0:
        yield Problem(
            field=None,
            problem="there are no transitions",
            remedy="collect at least one whole episode",
        )
    shape, next_shape = arrays["observations"].shape, arrays["next_observations"].shape
    if len(shape) == len(next_shape) == 2 and shape[1] != next_shape[1] and not transposed:
        yield Problem(
            field="next_observations",
            problem=f"has {next_shape[1]} columns but 'observations' has {shape[1]}",
            remedy="store the observation before and after each action in the same layout",
        )


def are_choices(actions: NDArray[Any]) -> bool:
    """Whether actions, one number each, are numbers of choices rather than commands."""
    if actions.dtype.kind in "iub":
        return True
    varied = actions.size > 0 and actions.min() != actions.max()
    return bool(varied and np.isfinite(actions).all() and (actions == np.rint(actions)).all())


def _wrong_dimensions(name: str, array: NDArray[Any]) -> Problem:
    if name not in MATRICES:
        return Problem(
            field=name,
            problem=f"has shape {array.shape}, it must have (N,) or (N, 1)",
            remedy="reshape it to one row per transition",
        )
    if array.ndim > 2:
        return Problem(
            field=name,
            problem=f"holds {array.ndim - 1} dimensions in each row, {array.shape[1:]}, such as "
            "images; networks here read vectors, (N, size)",
            remedy="encode or flatten them to vectors before",
        )
    if name == "actions" and array.ndim == 1 and are_choices(array):
        return Problem(
            field=name,
            problem=f"has shape {array.shape} and holds whole numbers: discrete actions, for which "
            "there is no learner here; continuous ones must have (N, size)",
            remedy="use a dataset of continuous actions; if these are continuous, store them as "
            "vectors: actions[:, None]",
        )
    return Problem(
        field=name,
        problem=f"has shape {array.shape}, it must have (N, size)",
        remedy="store vectors, if only of one number: array[:, None]",
    )
