"""Exchange with D4RL: files that d4rl's own functions read, and files that were made for d4rl.

Neither direction needs d4rl: its layout is ours without `costs`, and mostly without
`next_observations`. `import_d4rl` is for those who want to use d4rl's functions on our data.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import ARRAYS, INFO_PREFIX
from safer_offline.datasets.formats import Fix
from safer_offline.datasets.formats.repairs import FlatFile, count, parse_fixes
from safer_offline.datasets.storage.hdf5 import save_dataset
from safer_offline.datasets.storage.layouts import find_costs
from safer_offline.errors import SaferOfflineError, UsageError

# Those import simulators. d4rl prepares for their absence, but not for mujoco-py, which raises a
# bare Exception where it is installed and MuJoCo is not.
ENVIRONMENTS = ("d4rl.locomotion", "d4rl.flow", "d4rl.kitchen", "d4rl.carla", "d4rl.gym_bullet")


def to_d4rl(dataset: OfflineDataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a file that d4rl reads. Nothing is lost: it is a file of format v1.

    What d4rl makes of it: `get_dataset` gives every array, `sequence_dataset` every array of each
    episode, `costs` included. `qlearning_dataset` gives no costs, takes next observations from the
    row that follows instead of `next_observations`, and for that reason leaves out the rows that
    are cut by a timeout, and the last row. Leave its `terminate_on_end` off: it would join
    episodes to the ones that follow them.

    Args:
        dataset: What to write.
        path: Where to; folders are made.
        overwrite: Whether a file that is there already may be replaced.

    Returns:
        The path.

    Raises:
        UsageError: If there is something at `path` that must not be replaced.
        DataError: If the dataset breaks the format, or the disk is full.
    """
    save_dataset(path, dataset, overwrite=overwrite)
    return Path(path)


def from_d4rl(
    path: str | Path,
    *,
    cost_from: str | None = None,
    zero_costs: bool = False,
    done_from: str | None = None,
    max_episode_steps: int | None = None,
    group: str = "",
    names: Mapping[str, str] | None = None,
    fixes: Collection[Fix | str] = (),
) -> OfflineDataset:
    """Read a file in the layout of D4RL. What it lacks is made up only if asked for.

    Args:
        path: An HDF5 file with observations, actions, rewards and terminals.
        cost_from: The column that holds the costs, such as `infos/cost` or `cost`.
        zero_costs: Every cost is 0.
        done_from: A column that is 1 where an episode ended, cut or not, in place of `terminals`.
            What ended at the step limit counts as cut.
        max_episode_steps: Where the file has no `timeouts`, or sets none: the number of steps
            after which an episode that has not terminated was cut. It is noted in the metadata in
            any case.
        group: The group that the arrays lie in; empty for the root.
        names: For arrays that have other names in the file: ours (also `infos/NAME`), and theirs.
        fixes: Which flaws to mend, see `Fix`.

    Raises:
        UsageError: If the costs have two sources, or an option contradicts the file.
        DataError: If the file lacks something that was not asked to be made up, or breaks the
            format; the message names the option that helps.
    """
    asked = parse_fixes(fixes)
    sources = dict(names or {})
    for name, source, option in (
        ("costs", cost_from, "--cost-from"),
        ("terminals", done_from, "--done-from"),
    ):
        if source is not None:
            if name in sources:
                raise UsageError(f"{option} and --map {name}=... exclude each other; give one")
            sources[name] = source
    if zero_costs and "costs" in sources:
        raise UsageError("--cost-from and --zero-costs exclude each other; give one of them")
    file = FlatFile(Path(path), group=group, names=sources, transpose=Fix.transpose in asked)
    if (cost_from is not None or zero_costs) and file.holds("costs"):
        raise UsageError(
            f"{file.path} holds 'costs' already; leave --cost-from and --zero-costs out"
        )
    _add_costs(file, zero_costs=zero_costs)
    file.add_timeouts(max_episode_steps, done_from=done_from)
    file.require_valid_flags()
    file.let_terminal_win(asked=Fix.terminal_wins in asked)
    file.drop_tail(asked=Fix.drop_tail in asked)
    _add_next_observations(file, asked=Fix.derive_next in asked)
    return file.to_dataset()


def import_d4rl() -> ModuleType:
    """The package d4rl, imported without its simulators.

    A plain `import d4rl` fails wherever mujoco-py is installed, as d4rl demands, without MuJoCo
    2.1 in the home folder. Its functions on data need no simulator:

        d4rl = import_d4rl()
        arrays = load_dataset("car_circle.h5").to_arrays()
        d4rl.qlearning_dataset(None, dataset=arrays)
        list(d4rl.sequence_dataset(None, dataset=arrays))

    Raises:
        SaferOfflineError: If d4rl is not installed.
    """
    if "d4rl" in sys.modules:
        return sys.modules["d4rl"]
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    # None makes the import of a module fail with the one error that d4rl expects.
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    hidden = [name for name in ENVIRONMENTS if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        return importlib.import_module("d4rl")
    except ModuleNotFoundError as error:
        raise SaferOfflineError(
            f"d4rl cannot be imported ({error}); install it with pip install 'safer-offline[d4rl]'"
        ) from error
    finally:
        for name in hidden:
            if modules.get(name, False) is None:
                del modules[name]


def _add_costs(file: FlatFile, *, zero_costs: bool) -> None:
    source = file.names.get("costs")
    if source is not None:
        costs = file.arrays["costs"]
        if costs.ndim != 1:
            raise UsageError(
                f"--cost-from: '{source}' holds {costs.shape[1:]} numbers a row, a cost is one"
            )
        if not file.metadata.cost_definition:
            file.metadata = dataclasses.replace(
                file.metadata, cost_definition=f"the column '{source}' of the source"
            )
        file.note(f"costs taken from '{source}'")
    elif zero_costs:
        file.arrays["costs"] = np.zeros(len(file.arrays["rewards"]), np.float32)
        file.metadata = dataclasses.replace(
            file.metadata, cost_definition="always 0: the source holds no costs"
        )
        file.note("all costs are 0, because the source holds none")
    elif "costs" not in file.arrays:
        columns = [*file.contents.arrays, *file.contents.left_out]
        likely = find_costs(columns) or f"{INFO_PREFIX}NAME"
        others = [name for name in columns if name not in ARRAYS]
        raise file.error(
            "the array is missing, as in all datasets of D4RL",
            field="costs",
            remedy=f"safe learning needs the cost of each transition: --cost-from {likely} takes "
            "a column of the file, --zero-costs says that nothing was unsafe "
            f"(columns: {', '.join(others[:20]) or 'none'})",
        )


def _add_next_observations(file: FlatFile, *, asked: bool) -> None:
    if "next_observations" in file.arrays:
        return
    timeouts, terminals = file.flag("timeouts"), file.flag("terminals")
    if not asked:
        raise file.error(
            f"the array is missing; what followed {count(int(timeouts.sum()), 'row')} cut by a "
            f"timeout and {count(int(terminals.sum()), 'row')} that terminated is unknown",
            field="next_observations",
            remedy="--fix derive-next takes next observations from the following row, drops the "
            "rows cut by a timeout and repeats the observation where an episode terminated",
        )
    observations = file.arrays["observations"]
    following: NDArray[Any] = np.concatenate([observations[1:], observations[-1:]])
    following[terminals] = observations[terminals]
    file.arrays["next_observations"] = following
    # The row before a dropped one is now the last of its episode, unless it is another's.
    cut = np.concatenate([timeouts[1:], [False]]) & ~timeouts & ~terminals
    file.arrays["timeouts"] = cut
    file.keep(~timeouts)
    file.note(
        "next observations taken from the following row: "
        f"{count(int(timeouts.sum()), 'row')} cut by a timeout dropped, "
        f"{count(int(terminals.sum()), 'row')} that terminated given their own observation"
    )
