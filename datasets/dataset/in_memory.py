"""A fixed dataset in memory: the arrays as tensors, and the episodes as a table."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.datasets.dataset.access import BLOCK_ROWS, Columns, Transitions, cut_episodes
from safer_offline.datasets.dataset.hashing import hash_arrays, join_hashes
from safer_offline.datasets.dataset.sampling import MemoryTable
from safer_offline.datasets.dataset.schema import (
    ARRAYS,
    FLAG_ARRAYS,
    FLOAT_ARRAYS,
    INFO_PREFIX,
    MATRICES,
    Metadata,
)
from safer_offline.datasets.dataset.validation import find_problems, raise_first_error
from safer_offline.errors import UsageError


@dataclass(frozen=True, eq=False, kw_only=True)
class OfflineDataset:
    """N transitions of whole episodes, one after the other.

    The constructor makes tensors of arrays and checks no values; `from_arrays` does, and so does
    everything that reads or writes a dataset. `len` counts transitions.

    Args:
        observations: (N, observation size), float32.
        next_observations: (N, observation size), float32; in the last row of an episode the
            observation after its last action, not the first of the next episode.
        actions: (N, action size), float32, as the environment executed them.
        rewards: (N,), float32.
        costs: (N,), float32, >= 0.
        terminals: (N,), bool; the episode truly ended here.
        timeouts: (N,), bool; the episode was cut here.
        infos: More columns of N rows, such as `episode_id`, `seed` and `policy_id`.
        metadata: What is known about how the dataset came about.
        path: The file it was loaded from.
    """

    observations: Tensor
    next_observations: Tensor
    actions: Tensor
    rewards: Tensor
    costs: Tensor
    terminals: Tensor
    timeouts: Tensor
    infos: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=Metadata)
    path: Path | None = None

    def __post_init__(self) -> None:
        for name in ARRAYS:
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                object.__setattr__(self, name, _as_tensor(value, name))

    def __len__(self) -> int:
        return self.num_transitions

    def __repr__(self) -> str:
        name = self.metadata.name or self.metadata.env_id or (self.path.name if self.path else "")
        return (
            f"<OfflineDataset{' ' if name else ''}{name}: {self.num_transitions:,} transitions, "
            f"{self.num_episodes:,} episodes, {self.observation_size} observations, "
            f"{self.action_size} actions>"
        )

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        *,
        metadata: Metadata | None = None,
        path: Path | None = None,
    ) -> OfflineDataset:
        """Check arrays and wrap them; arrays that have the right type already are not copied.

        What is odd but usable is reported with `warnings.warn`.

        Args:
            arrays: The seven arrays of the format by name, and any `infos/NAME`; N rows each,
                (N, 1) is accepted for (N,).
            metadata: What is known about them.
            path: The file they come from, for messages.

        Raises:
            DataError: If they break the format; it names array, row and remedy.
        """
        if not isinstance(arrays, Mapping):
            raise UsageError(
                f"arrays are given as a dict, by the names {', '.join(ARRAYS)}, not as a "
                f"{type(arrays).__name__}"
            )
        metadata = metadata or Metadata()
        arrays = as_columns(arrays)
        problems = find_problems(arrays, metadata)
        raise_first_error(problems, path=path)
        for problem in problems:
            warnings.warn(str(problem.to_error(path=path)), stacklevel=2)
        tensors = {
            name: torch.from_numpy(
                np.ascontiguousarray(arrays[name], np.bool_ if name in FLAG_ARRAYS else np.float32)
            )
            for name in ARRAYS
        }
        infos = {
            name.removeprefix(INFO_PREFIX): array
            for name, array in arrays.items()
            if name.startswith(INFO_PREFIX)
        }
        return cls(**tensors, infos=infos, metadata=metadata, path=path)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Inverse of `from_arrays`, without a copy."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name).numpy() for name in ARRAYS}
        return arrays | {INFO_PREFIX + name: array for name, array in self.infos.items()}

    @property
    def num_transitions(self) -> int:
        """N."""
        return len(self.rewards)

    @property
    def num_episodes(self) -> int:
        """How many episodes the transitions make up."""
        return len(self._starts)

    @property
    def observation_size(self) -> int:
        """Numbers in one observation."""
        return self.observations.shape[1]

    @property
    def action_size(self) -> int:
        """Numbers in one action."""
        return self.actions.shape[1]

    @property
    def action_low(self) -> Tensor:
        """Lower bounds of the actions, (action size,); see `action_high`."""
        return self._action_bounds[0]

    @property
    def action_high(self) -> Tensor:
        """Upper bounds of the actions, (action size,).

        Without an action space in the metadata: 1 where the data allow it, else their maximum.
        """
        return self._action_bounds[1]

    @cached_property
    def episode_index(self) -> Tensor:
        """(N,) int64: the episode that each row belongs to, counted from 0."""
        return torch.from_numpy(np.repeat(np.arange(self.num_episodes), self._lengths))

    @cached_property
    def timestep(self) -> Tensor:
        """(N,) int64: steps since the start of the episode."""
        first = np.repeat(self._starts, self._lengths)
        return torch.from_numpy(np.arange(self.num_transitions) - first)

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """One row an episode: start, length, return, cost, terminated; seed, behavior if known."""
        starts = self._starts
        table = pd.DataFrame(
            {
                "start": starts,
                "length": self._lengths,
                "return": np.add.reduceat(self.rewards.numpy(), starts, dtype=np.float64),
                "cost": np.add.reduceat(self.costs.numpy(), starts, dtype=np.float64),
                "terminated": self.terminals.numpy()[self._ends - 1],
            }
        )
        table.index.name = "episode"
        if "seed" in self.infos:
            table["seed"] = self.infos["seed"][starts]
        if "policy_id" in self.infos:
            names = [policy.name for policy in self.metadata.behavior_policies]
            table["behavior"] = [
                names[policy] if 0 <= policy < len(names) else f"policy {policy}"
                for policy in self.infos["policy_id"][starts]
            ]
        return table

    def fingerprint(self) -> str:
        """SHA-256 of all arrays, which `save_dataset` stores as `content_sha256`."""
        arrays = as_columns(self.to_arrays())
        return join_hashes(arrays, hash_arrays(arrays))

    def blocks(self) -> Iterator[OfflineDataset]:
        """The episodes in order, some at a time (see `TransitionSource`); nothing is copied."""
        for first, last in cut_episodes(self._ends):
            rows = slice(int(self._starts[first]), int(self._ends[last - 1]))
            yield dataclasses.replace(
                self,
                **{name: getattr(self, name)[rows] for name in ARRAYS},
                infos={name: column[rows] for name, column in self.infos.items()},
            )

    def stream(self, names: Sequence[str], *, rows: int = BLOCK_ROWS) -> Iterator[Columns]:
        """Arrays in pieces of so many rows (see `TransitionSource`); nothing is copied."""
        for start in range(0, self.num_transitions, rows):
            yield {name: getattr(self, name)[start : start + rows] for name in names}

    def take(self, names: Sequence[str], rows: Tensor) -> Columns:
        """Arrays at these rows, (n,) int64 in any order."""
        return {name: getattr(self, name)[rows] for name in names}

    def table(
        self,
        names: Sequence[str],
        derive: Callable[[Transitions], Mapping[str, Tensor]] | None = None,
    ) -> MemoryTable:
        """A table to draw batches from, a copy of its columns (see `TransitionSource`)."""
        columns: Columns = {name: getattr(self, name) for name in names}
        if derive is not None:
            parts = [derive(block) for block in self.blocks()]
            columns |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return MemoryTable(columns)

    def select_episodes(
        self, episodes: Sequence[int] | NDArray[Any] | pd.Index[Any] | pd.Series[Any]
    ) -> OfflineDataset:
        """A dataset of some of the episodes, in the order given.

        Args:
            episodes: Positions in the table `episodes`, or a condition on it, such as
                `dataset.episodes["cost"] <= 10`.

        Raises:
            UsageError: If the selection is empty or names an episode that does not exist.
        """
        chosen = np.asarray(episodes)
        if chosen.dtype == np.bool_ and len(chosen) == self.num_episodes:
            chosen = np.flatnonzero(chosen)
        if not chosen.size:
            raise UsageError("the selection holds no episode; loosen it")
        if chosen.dtype.kind not in "iu":
            raise UsageError(
                f"episodes are chosen by whole numbers or by {self.num_episodes} truth values, "
                f"not by {chosen.size} of {chosen.dtype}"
            )
        if chosen.min() < 0 or chosen.max() >= self.num_episodes:
            raise UsageError(
                f"episode {chosen[(chosen < 0) | (chosen >= self.num_episodes)][0]} does not "
                f"exist; there are episodes 0 to {self.num_episodes - 1}"
            )
        lengths = self._lengths[chosen]
        before = np.cumsum(lengths) - lengths
        rows = np.arange(lengths.sum()) + np.repeat(self._starts[chosen] - before, lengths)
        index = torch.from_numpy(rows)
        return OfflineDataset(
            **{name: getattr(self, name)[index] for name in ARRAYS},
            infos={name: column[rows] for name, column in self.infos.items()},
            metadata=_descend([self]),
        )

    @staticmethod
    def concatenate(datasets: Sequence[OfflineDataset]) -> OfflineDataset:
        """The episodes of several datasets of one environment, one dataset after the other.

        `infos` columns that all of them have are kept, and `episode_id` is counted anew. Metadata
        that differ are dropped; where the lists of policies differ, `policy_id` goes with them.

        Raises:
            UsageError: If there is nothing to join or the environments differ.
        """
        if not datasets:
            raise UsageError("there are no datasets to join")
        for name in ("observation_size", "action_size"):
            if len(sizes := sorted({getattr(dataset, name) for dataset in datasets})) > 1:
                raise UsageError(f"cannot join datasets of different {name}: {sizes}")
        if len(ids := sorted({dataset.metadata.env_id for dataset in datasets} - {""})) > 1:
            raise UsageError(f"cannot join datasets of different environments: {', '.join(ids)}")
        metadata = _descend(datasets)
        kept = set.intersection(*(set(dataset.infos) for dataset in datasets))
        if any(part.metadata.behavior_policies != metadata.behavior_policies for part in datasets):
            kept.discard("policy_id")
        kept.discard("parent_id")  # holds places in lists of parents, which end here
        infos = {
            name: np.concatenate([dataset.infos[name] for dataset in datasets])
            for name in sorted(kept)
        }
        joint = OfflineDataset(
            **{name: torch.cat([getattr(part, name) for part in datasets]) for name in ARRAYS},
            infos=infos,
            metadata=metadata,
            path=None,
        )
        if "episode_id" in infos:
            infos["episode_id"] = joint.episode_index.numpy().astype(np.int32)
        return joint

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """One past the last row of each episode."""
        return np.flatnonzero((self.terminals | self.timeouts).numpy()) + 1

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(1, np.int64), self._ends[:-1]])

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        return self._ends - self._starts

    @cached_property
    def _action_bounds(self) -> tuple[Tensor, Tensor]:
        space = self.metadata.action_space
        if space is not None:
            return torch.tensor(space.low), torch.tensor(space.high)
        least, most = self.actions.amin(dim=0), self.actions.amax(dim=0)
        return least.clamp(max=-1.0), most.clamp(min=1.0)


def _as_tensor(value: object, name: str) -> Tensor:
    try:
        array = np.asarray(value, np.bool_ if name in FLAG_ARRAYS else np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of numbers: {error}") from None
    return torch.from_numpy(np.ascontiguousarray(array))


def as_columns(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays with (N, 1) turned into (N,) where the format has one number a row.

    Numbers of the format become float32 where they are not; anything that is no number, and
    flags, stay as they are for the validation to judge.
    """
    columns = dict(arrays)
    for name, array in arrays.items():
        if name not in MATRICES and array.ndim == 2 and array.shape[1] == 1:
            columns[name] = array[:, 0]
        if name in FLOAT_ARRAYS and array.dtype.kind in "fiub":
            with np.errstate(over="ignore"):  # becomes infinity, which validation reports
                columns[name] = columns[name].astype(np.float32, copy=False)
    return columns


def _descend(datasets: Sequence[OfflineDataset]) -> Metadata:
    """Metadata of a dataset made from others: what they agree on, and who the parents are."""
    first, *others = (dataset.metadata.without_content() for dataset in datasets)
    unknown = Metadata()
    disputed = {
        name: getattr(unknown, name)
        for name in (entry.name for entry in dataclasses.fields(Metadata))
        if any(getattr(first, name) != getattr(other, name) for other in others)
    }
    if "env_kwargs" in disputed:
        # With a cost key, no arguments would mean that there were none.
        disputed["cost_key"] = None
    hashes = (dataset.metadata.content_sha256 for dataset in datasets)
    parents = tuple(sha256 for sha256 in hashes if sha256)
    if len(datasets) == 1 and "parent_id" in datasets[0].infos:
        # The column holds places in the list of a merged dataset: what is taken from it goes on
        # with that list.
        parents = first.parents + parents
    return dataclasses.replace(first, **disputed | {"parents": parents})
