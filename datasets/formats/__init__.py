"""Exchange with other dataset formats: one module a format, and their names.

Each has a function `to_...` that writes and one `from_...` that reads; `datasets/loading.py`
chooses among them.

dsrl            our own layout, under the names where DSRL and OSRL look
d4rl            files without costs, and often without next observations
minari          an episode a group, in Minari's folder
minari_folder   reading such a folder where Minari itself does not
repairs         completing and mending files on import, where that is asked for
"""

from __future__ import annotations

import re
from enum import Enum


class Format(str, Enum):
    """What a dataset can be read from and written to."""

    hdf5 = "hdf5"
    """Our own file, format v1."""
    dsrl = "dsrl"
    """Seven arrays in an HDF5 file, as DSRL publishes them and OSRL finds them."""
    d4rl = "d4rl"
    """An HDF5 file without costs, and often without next observations."""
    minari = "minari"
    """An episode a group, in Minari's folder, under an id."""


class Fix(str, Enum):
    """A change of a file's data on import, which has to be asked for."""

    terminal_wins = "terminal-wins"
    """Rows with both flags set end by termination: their timeout is cleared."""
    drop_tail = "drop-tail"
    """Rows after the last end of an episode are dropped."""
    derive_next = "derive-next"
    """Next observations that are not stored are taken from the row that follows.

    Rows cut by a timeout have no such row and are dropped. Rows that end by termination repeat
    their own observation, which no Bellman target looks at.
    """
    transpose = "transpose"
    """Arrays whose rows and columns are swapped, as MATLAB writes them, are turned round."""


MINARI_ID = re.compile(r"(?:[-_A-Za-z0-9]{2,}/)*[-_A-Za-z0-9]+-v[0-9]+")


def is_minari_id(text: str) -> bool:
    """Whether a dataset of Minari could bear this name, such as `bullet/car-circle/mixed-v1`."""
    return MINARI_ID.fullmatch(text) is not None
