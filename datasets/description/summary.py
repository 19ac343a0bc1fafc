"""What is in a dataset, in a few numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safer_offline.datasets.dataset.constants import ConstantCoordinate, find_constants
from safer_offline.datasets.dataset.in_memory import OfflineDataset

LIMITS = (5.0, 10.0, 20.0, 40.0)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a number is spread over the episodes."""

    mean: float
    std: float
    minimum: float
    quarter: float
    median: float
    three_quarters: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class SafeShare:
    """The episodes whose cost stays within a limit; `best_return` is None if there are none."""

    cost_limit: float
    episodes: int
    share: float
    best_return: float | None


@dataclass(frozen=True, kw_only=True)
class BehaviorSummary:
    """The episodes of one behaviour policy."""

    name: str
    episodes: int
    mean_return: float
    mean_cost: float
    minimum_cost: float
    maximum_cost: float


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What `summarize` found.

    `constants` are the coordinates that never vary.
    """

    env_id: str
    num_transitions: int
    num_episodes: int
    observation_size: int
    action_size: int
    constants: tuple[ConstantCoordinate, ...]
    terminated_episodes: int
    lengths: Spread
    returns: Spread
    costs: Spread
    safe: tuple[SafeShare, ...]
    behaviors: tuple[BehaviorSummary, ...]
    cost_limit: float | None
    content_sha256: str
    created_at: str
    command: str

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        return dataclasses.asdict(self)


def summarize(dataset: OfflineDataset, *, cost_limit: float | None = None) -> DatasetSummary:
    """Describe a dataset.

    Args:
        dataset: What to describe.
        cost_limit: A limit to report on beside the usual ones; None takes the dataset's own.
    """
    episodes, metadata = dataset.episodes, dataset.metadata
    if cost_limit is None:
        cost_limit = metadata.cost_limit
    limits = sorted({*LIMITS, *([] if cost_limit is None else [cost_limit])})
    return DatasetSummary(
        env_id=metadata.env_id,
        num_transitions=dataset.num_transitions,
        num_episodes=dataset.num_episodes,
        observation_size=dataset.observation_size,
        action_size=dataset.action_size,
        constants=find_constants(dataset.to_arrays()),
        terminated_episodes=int(episodes["terminated"].sum()),
        lengths=_spread(episodes["length"]),
        returns=_spread(episodes["return"]),
        costs=_spread(episodes["cost"]),
        safe=tuple(_safe_share(episodes, limit) for limit in limits),
        behaviors=_behaviors(episodes),
        cost_limit=cost_limit,
        content_sha256=metadata.content_sha256,
        created_at=metadata.created_at,
        command=metadata.command,
    )


def _spread(values: pd.Series[Any]) -> Spread:
    minimum, quarter, median, three_quarters, maximum = values.quantile([0, 0.25, 0.5, 0.75, 1])
    return Spread(
        mean=float(values.mean()),
        std=float(values.std(ddof=0)),
        minimum=float(minimum),
        quarter=float(quarter),
        median=float(median),
        three_quarters=float(three_quarters),
        maximum=float(maximum),
    )


def _safe_share(episodes: pd.DataFrame, limit: float) -> SafeShare:
    returns = episodes.loc[episodes["cost"] <= limit, "return"]
    return SafeShare(
        cost_limit=limit,
        episodes=len(returns),
        share=len(returns) / len(episodes),
        best_return=float(returns.max()) if len(returns) else None,
    )


def _behaviors(episodes: pd.DataFrame) -> tuple[BehaviorSummary, ...]:
    """One entry a behaviour policy, in alphabetical order; none if it is not known who acted."""
    if "behavior" not in episodes:
        return ()
    return tuple(
        BehaviorSummary(
            name=str(name),
            episodes=len(group),
            mean_return=float(group["return"].mean()),
            mean_cost=float(group["cost"].mean()),
            minimum_cost=float(group["cost"].min()),
            maximum_cost=float(group["cost"].max()),
        )
        for name, group in episodes.groupby("behavior")
    )
