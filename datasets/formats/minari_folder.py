"""Reading a folder of Minari where Minari's own loader gives up.

That loader needs every entry of `metadata.json`: it stops at the specification of an environment
that another version of Gymnasium wrote, at spaces that it does not know and at a file that was left
empty when a program was killed, although the episodes need none of them. Here the episodes are read
by Minari's storage, and what is not understood is said and left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from minari import EpisodeData
from minari.dataset._storages import get_minari_storage
from minari.serialization import deserialize_space

from safer_offline.datasets.storage.reading import open_file
from safer_offline.errors import DataError

MAIN = "main_data.hdf5"
_ANEW = "get or make it anew"


@dataclass(frozen=True, kw_only=True)
class MinariFolder:
    """What was read.

    Attributes:
        episodes: In order, one or more.
        seeds: Of each episode's reset; None where it is unknown.
        metadata: What `metadata.json` holds; empty if it cannot be understood.
        observation_space: None if Minari does not know such a space.
        action_space: Likewise.
        notes: What could not be understood, a clause each.
    """

    episodes: tuple[EpisodeData, ...]
    seeds: tuple[int | None, ...]
    metadata: Mapping[str, Any]
    observation_space: gymnasium.Space[Any] | None
    action_space: gymnasium.Space[Any] | None
    notes: tuple[str, ...]

    def environment(self, notes: list[str]) -> dict[str, Any]:
        """The environment's specification as JSON, of whichever version of Gymnasium it is.

        Args:
            notes: Gets a clause if there is one that is no JSON object.
        """
        spec = self.metadata.get("env_spec")
        if spec is None:
            return {}
        try:
            entries = json.loads(spec)
        except (TypeError, ValueError, RecursionError):
            entries = None
        if not isinstance(entries, dict):
            notes.append("the environment's specification cannot be understood, and is left out")
            return {}
        return entries


def read_folder(folder: Path) -> MinariFolder:
    """Read all episodes of a dataset.

    Args:
        folder: The dataset's own, which `data` lies in.

    Raises:
        DataError: If the episodes cannot be read, or there are none.
    """
    data = folder / "data"
    if not data.is_dir():
        raise DataError("the folder holds no 'data'", path=folder, remedy=_ANEW)
    notes: list[str] = []
    metadata = _read_json(data / "metadata.json", notes)
    count = _count_episodes(data, metadata, notes)
    if not count:
        raise _without_episodes(folder)
    spaces = {
        name: _read_space(metadata.get(name), name, notes)
        for name in ("observation_space", "action_space")
    }
    # A stand-in is enough to read arrays; Minari looks at spaces for dictionaries and pictures.
    unknown = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    try:
        storage = get_minari_storage(str(metadata.get("data_format", "hdf5")))(
            data,
            spaces["observation_space"] or unknown,
            spaces["action_space"] or unknown,
            **{key: bool(metadata[key]) for key in ("jpeg_encoding",) if key in metadata},
        )
        episodes = tuple(EpisodeData(**entry) for entry in storage.get_episodes(range(count)))
        details = list(storage.get_episode_metadata(range(count)))
        seeds = tuple(entry.get("seed") for entry in details)
    except Exception as error:  # whatever its storages raise, of which there are three
        raise _unreadable(folder, error) from error
    return MinariFolder(
        episodes=episodes, seeds=seeds, metadata=metadata, notes=tuple(notes), **spaces
    )


def read_opened(dataset: minari.MinariDataset, folder: Path) -> MinariFolder:
    """The episodes of a dataset that Minari has opened, of which some may have been chosen.

    Raises:
        DataError: If they cannot be read, or there are none.
    """
    try:
        episodes = tuple(dataset.iterate_episodes())
        details = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        seeds = tuple(entry.get("seed") for entry in details)
    except Exception as error:
        raise _unreadable(folder, error) from error
    if not episodes:
        raise _without_episodes(folder)
    notes: list[str] = []
    return MinariFolder(
        episodes=episodes,
        seeds=seeds,
        metadata=_read_json(folder / "data" / "metadata.json", notes),
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        notes=tuple(notes),
    )


def _read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(metadata, dict) and metadata:
            return metadata
        reason = "is empty"
    except (OSError, ValueError, RecursionError) as error:
        empty = path.exists() and not path.stat().st_size
        reason = "is empty" if empty else f"cannot be understood ({error})"
    notes.append(f"{path.name} {reason}, so environment and spaces are unknown")
    return {}


def _count_episodes(data: Path, metadata: Mapping[str, Any], notes: list[str]) -> int:
    """How many episodes there are; opening the file tells what is the matter with it, too."""
    noted = metadata.get("total_episodes")
    if not (data / MAIN).exists():
        if isinstance(noted, int):
            return noted
        raise DataError(
            f"there is neither {MAIN} nor a usable metadata.json", path=data, remedy=_ANEW
        )
    if not (data / MAIN).stat().st_size:
        return 0  # as Minari makes it, before the first episode
    with open_file(data / MAIN) as file:
        names = {name for name in file if re.fullmatch(r"episode_\d+", name)}
    there = next((n for n in range(len(names)) if f"episode_{n}" not in names), len(names))
    if isinstance(noted, int) and noted != there:
        notes.append(f"metadata.json speaks of {noted} episodes, the file holds {there}")
    return there


def _read_space(described: object, name: str, notes: list[str]) -> gymnasium.Space[Any] | None:
    if described is None:
        return None
    try:
        space: gymnasium.Space[Any] = deserialize_space(described)
    except Exception:
        notes.append(f"Minari does not know the {name} ({str(described)[:60]}), so it is left out")
        return None
    return space


def _unreadable(folder: Path, error: Exception) -> DataError:
    said = str(error) or type(error).__name__
    return DataError(f"Minari cannot read the dataset ({said})", path=folder, remedy=_ANEW)


def _without_episodes(folder: Path) -> DataError:
    return DataError("there are no episodes", path=folder, remedy="export or collect it anew")
