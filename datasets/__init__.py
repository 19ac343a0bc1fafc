"""Fixed datasets: the file format, loading, collection, exchange with other formats.

The names load on first use, so that reading a dataset never imports the simulator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safer_offline.datasets.collection import collect
    from safer_offline.datasets.dataset import OfflineDataset
    from safer_offline.datasets.formats.minari import from_minari, to_minari
    from safer_offline.datasets.sampling import TransitionSampler
    from safer_offline.datasets.schema import BehaviorPolicy, BoxSpace, Metadata
    from safer_offline.datasets.storage import load_dataset, peek_metadata, save_dataset

__all__ = [
    "BehaviorPolicy",
    "BoxSpace",
    "Metadata",
    "OfflineDataset",
    "TransitionSampler",
    "collect",
    "from_minari",
    "load_dataset",
    "peek_metadata",
    "save_dataset",
    "to_minari",
]

_MODULES = {
    "BehaviorPolicy": "schema",
    "BoxSpace": "schema",
    "Metadata": "schema",
    "OfflineDataset": "dataset",
    "TransitionSampler": "sampling",
    "collect": "collection",
    "from_minari": "formats.minari",
    "load_dataset": "storage",
    "peek_metadata": "storage",
    "save_dataset": "storage",
    "to_minari": "formats.minari",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
