"""Fixed datasets: the file format, loading, collection, exchange with other formats.

The names load on first use, so that reading a dataset never imports the simulator.

dataset/             what a dataset is: arrays, metadata, what can be wrong with them
storage/             its file
loading              `load_dataset`: whatever a dataset is given as
larger_than_memory/  the cache from which a training reads what does not fit
collection/          recipes, and running them
behaviors/           who acts in a collection
behavior_training/   making such drivers by reinforcement learning
transforms/          datasets made from datasets
formats/             DSRL, D4RL, Minari
description/         numbers and pictures of a dataset
publishing/          cards, checksums, and the way to a hub
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safer_offline.context import BoxSpace
    from safer_offline.datasets.collection.collector import collect
    from safer_offline.datasets.dataset.in_memory import OfflineDataset
    from safer_offline.datasets.dataset.sampling import TransitionSampler
    from safer_offline.datasets.dataset.schema import BehaviorPolicy, Metadata
    from safer_offline.datasets.formats.d4rl import from_d4rl, import_d4rl, to_d4rl
    from safer_offline.datasets.formats.dsrl import from_dsrl, to_dsrl
    from safer_offline.datasets.formats.minari import from_minari, to_minari
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.datasets.storage.hdf5 import peek_metadata, save_dataset
    from safer_offline.datasets.transforms.episodes import sample_episodes, split_dataset
    from safer_offline.datasets.transforms.filtering import (
        EpisodeFilter,
        filter_episodes,
        thin_by_density,
    )
    from safer_offline.datasets.transforms.merging import merge_datasets

__all__ = [
    "BehaviorPolicy",
    "BoxSpace",
    "EpisodeFilter",
    "Metadata",
    "OfflineDataset",
    "TransitionSampler",
    "collect",
    "filter_episodes",
    "from_d4rl",
    "from_dsrl",
    "from_minari",
    "import_d4rl",
    "load_dataset",
    "merge_datasets",
    "peek_metadata",
    "sample_episodes",
    "save_dataset",
    "split_dataset",
    "thin_by_density",
    "to_d4rl",
    "to_dsrl",
    "to_minari",
]

_MODULES = {
    "BehaviorPolicy": "dataset.schema",
    "BoxSpace": "dataset.schema",
    "EpisodeFilter": "transforms.filtering",
    "Metadata": "dataset.schema",
    "OfflineDataset": "dataset.in_memory",
    "TransitionSampler": "dataset.sampling",
    "collect": "collection.collector",
    "filter_episodes": "transforms.filtering",
    "from_d4rl": "formats.d4rl",
    "from_dsrl": "formats.dsrl",
    "from_minari": "formats.minari",
    "import_d4rl": "formats.d4rl",
    "load_dataset": "loading",
    "merge_datasets": "transforms.merging",
    "peek_metadata": "storage.hdf5",
    "sample_episodes": "transforms.episodes",
    "save_dataset": "storage.hdf5",
    "split_dataset": "transforms.episodes",
    "thin_by_density": "transforms.filtering",
    "to_d4rl": "formats.d4rl",
    "to_dsrl": "formats.dsrl",
    "to_minari": "formats.minari",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
