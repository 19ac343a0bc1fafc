"""Exchange with DSRL, and so with OSRL, which finds its datasets through DSRL.

The layout is ours. What remains is the name of the file: DSRL looks for one fixed name per task
in the folder that the environment variable `DSRL_DATASET_DIR` names.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.formats import Fix
from safer_offline.datasets.formats.repairs import FlatFile, parse_fixes
from safer_offline.datasets.storage.hdf5 import save_dataset
from safer_offline.errors import UsageError

# From DATASET_URLS in dsrl/infos.py (0.1.0): environment, largest cost, number of episodes of the
# dataset published there.
REGISTERED_NAMES = (
    "SafetyAntCircle-v0-200-5728",
    "SafetyAntRun-v0-150-1816",
    "SafetyBallCircle-v0-80-886",
    "SafetyBallRun-v0-80-940",
    "SafetyCarCircle-v0-100-1450",
    "SafetyCarRun-v0-40-651",
    "SafetyDroneCircle-v0-100-1923",
    "SafetyDroneRun-v0-140-1990",
    "SafetyCarButton1Gymnasium-v0-250-2656",
    "SafetyCarButton2Gymnasium-v0-300-3755",
    "SafetyCarCircle1Gymnasium-v0-250-1271",
    "SafetyCarCircle2Gymnasium-v0-400-940",
    "SafetyCarGoal1Gymnasium-v0-120-1671",
    "SafetyCarGoal2Gymnasium-v0-200-4105",
    "SafetyCarPush1Gymnasium-v0-200-2871",
    "SafetyCarPush2Gymnasium-v0-250-4407",
    "SafetyPointButton1Gymnasium-v0-200-2268",
    "SafetyPointButton2Gymnasium-v0-250-3288",
    "SafetyPointCircle1Gymnasium-v0-200-1098",
    "SafetyPointCircle2Gymnasium-v0-300-895",
    "SafetyPointGoal1Gymnasium-v0-100-2022",
    "SafetyPointGoal2Gymnasium-v0-200-3442",
    "SafetyPointPush1Gymnasium-v0-150-2379",
    "SafetyPointPush2Gymnasium-v0-200-3242",
    "SafetyAntVelocityGymnasium-v1-250-2249",
    "SafetyHalfCheetahVelocityGymnasium-v1-250-2495",
    "SafetyHopperVelocityGymnasium-v1-250-2240",
    "SafetySwimmerVelocityGymnasium-v1-200-1686",
    "SafetyWalker2dVelocityGymnasium-v1-300-2729",
)
_REGISTERED = {name.rsplit("-", 2)[0]: name for name in REGISTERED_NAMES}
# Our velocity tasks have observations and actions of the same shape as Safety-Gymnasium's.
_REGISTERED |= {
    env_id.replace("VelocityGymnasium", "Velocity"): name for env_id, name in _REGISTERED.items()
}


def to_dsrl(dataset: OfflineDataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a file that DSRL and OSRL read. Nothing is lost: it is a file of format v1.

    Args:
        dataset: What to write.
        path: The file to write, or a folder (what has no suffix is one). There the file gets the
            name under which DSRL looks for the environment's dataset, so that OSRL learns from it
            without a change if `DSRL_DATASET_DIR` names the folder.
        overwrite: Whether a file that is there already may be replaced.

    Returns:
        The file.

    Raises:
        UsageError: If there is something that must not be replaced, or if `path` is a folder and
            the environment of the dataset is unknown.
        DataError: If the dataset breaks the format, or the disk is full.
    """
    path = Path(path)
    if path.is_dir() or not path.suffix:
        path /= file_name(dataset)
    save_dataset(path, dataset, overwrite=overwrite)
    return path


def from_dsrl(
    path: str | Path,
    *,
    max_episode_steps: int | None = None,
    fixes: Collection[Fix | str] = (),
) -> OfflineDataset:
    """Read a file of DSRL, or one of ours, with flaws that `load_dataset` would refuse mended.

    Args:
        path: An HDF5 file with the seven arrays.
        max_episode_steps: Where no timeout is set: the number of steps after which an episode that
            has not terminated was cut. It is noted in the metadata in any case.
        fixes: Which flaws to mend, see `Fix`: DSRL's own files may set both flags in a row.

    Raises:
        DataError: If an array is missing, if there is a flaw that was not asked to be mended, or
            if the file breaks the format otherwise.
    """
    asked = parse_fixes(fixes)
    file = FlatFile(Path(path), transpose=Fix.transpose in asked)
    for name in ARRAYS:
        if name not in file.arrays:
            raise file.error(
                "the array is missing, so this is no file in the layout of DSRL",
                field=name,
                remedy="read it as D4RL (--from d4rl), which has options for what is missing",
            )
    file.add_timeouts(max_episode_steps)
    file.require_valid_flags()
    file.let_terminal_win(asked=Fix.terminal_wins in asked)
    file.drop_tail(asked=Fix.drop_tail in asked)
    return file.to_dataset()


def file_name(dataset: OfflineDataset) -> str:
    """The name DSRL gives to datasets: environment, largest cost of an episode, episodes.

    For an environment that DSRL knows this is the name that it looks for, whose numbers are those
    of the dataset published there.

    Raises:
        UsageError: If the dataset does not say which environment it is from.
    """
    env_id = dataset.metadata.env_id
    if not env_id:
        raise UsageError(
            "the dataset names no environment, so DSRL's name for the file is unknown; name a "
            "file (.hdf5) instead of a folder"
        )
    largest = math.ceil(dataset.episodes["cost"].max())
    default = f"{env_id.replace('/', '-')}-{largest}-{dataset.num_episodes}"
    return f"{_REGISTERED.get(env_id, default)}.hdf5"


def offline_env_id(dataset: OfflineDataset) -> str | None:
    """The id under which DSRL registers the environment, such as `OfflineCarCircle-v0`."""
    name = _REGISTERED.get(dataset.metadata.env_id)
    return "Offline" + name.rsplit("-", 2)[0].removeprefix("Safety") if name else None
