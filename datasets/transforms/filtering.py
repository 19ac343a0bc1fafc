"""Episodes of a dataset chosen by what they are: by return, cost, length, behaviour, density.

What comes out keeps the order of the original; see `transforms` for what becomes of the metadata.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.transforms.episodes import make_generator, take_episodes
from safer_offline.errors import UsageError

QUALITIES = ("safe", "unsafe", "boundary", "tempting")


@dataclass(frozen=True, kw_only=True)
class EpisodeFilter:
    """Conditions on an episode; it must meet all that are set. Bounds belong to the range.

    Args:
        min_return: Least sum of rewards.
        max_return: Greatest sum of rewards.
        min_cost: Least sum of costs.
        max_cost: Greatest sum of costs.
        min_length: Fewest steps.
        max_length: Most steps.
        behaviors: Names of behaviour policies, of which one must have acted; () for any.
        quality: How the cost C of an episode lies to the limit k: `safe` (C <= k), `unsafe`
            (C > k), `boundary` (k/2 <= C <= 3k/2), or `tempting` (unsafe, with a return above that
            of every safe episode of the dataset: what a learner that ignores cost runs after).
        cost_limit: The k of `quality`; None takes the dataset's own.
        top_return: Of the episodes that meet all other conditions, the share with the highest
            returns, in (0, 1]; rounded up to whole episodes.

    Raises:
        UsageError: If a number is out of range or two contradict each other.
    """

    min_return: float | None = None
    max_return: float | None = None
    min_cost: float | None = None
    max_cost: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    behaviors: tuple[str, ...] = ()
    quality: str | None = None
    cost_limit: float | None = None
    top_return: float | None = None

    def __post_init__(self) -> None:
        for quantity in ("return", "cost", "length"):
            low, high = getattr(self, f"min_{quantity}"), getattr(self, f"max_{quantity}")
            for side, bound in (("min", low), ("max", high)):
                if bound is not None and math.isnan(bound):
                    raise UsageError(f"--{side}-{quantity} is no number")
            if low is not None and high is not None and low > high:
                raise UsageError(
                    f"--min-{quantity} {low:g} lies above --max-{quantity} {high:g}: no episode "
                    "can meet both"
                )
        if self.cost_limit is not None and self.quality is None:
            raise UsageError(
                "--cost-limit belongs to --quality; to keep the episodes of at most that cost, "
                "say --max-cost"
            )
        if self.quality not in (None, *QUALITIES):
            raise UsageError(f"no quality is called '{self.quality}'; {', '.join(QUALITIES)} are")
        if self.top_return is not None and not 0 < self.top_return <= 1:
            raise UsageError(
                f"--top-return is a share above 0 and at most 1 (0.1 for the best tenth), not "
                f"{self.top_return:g}"
            )

    def judge(self, dataset: OfflineDataset) -> dict[str, NDArray[np.bool_]]:
        """Which episodes meet each condition that is set.

        Args:
            dataset: Whose episodes to judge.

        Returns:
            One array of (episodes,) truth values a condition, under its text such as
            `--max-cost 10`. The one of `top_return` is False only for episodes that meet all
            other conditions and are not among the best.

        Raises:
            UsageError: If the dataset lacks what a condition asks about.
        """
        episodes = dataset.episodes
        verdicts: dict[str, NDArray[np.bool_]] = {}
        for quantity in ("return", "cost", "length"):
            values = episodes[quantity].to_numpy()
            if (low := getattr(self, f"min_{quantity}")) is not None:
                verdicts[f"--min-{quantity} {low:g}"] = values >= low
            if (high := getattr(self, f"max_{quantity}")) is not None:
                verdicts[f"--max-{quantity} {high:g}"] = values <= high
        if self.behaviors:
            text = " ".join(f"--behavior {name}" for name in self.behaviors)
            verdicts[text] = _acted_by(dataset, self.behaviors)
        if self.quality is not None:
            verdicts[f"--quality {self.quality}"] = self._has_quality(dataset, self.quality)
        if self.top_return is not None:
            others = np.logical_and.reduce([np.ones(len(episodes), np.bool_), *verdicts.values()])
            left = np.flatnonzero(others)
            best_first = left[np.argsort(-episodes["return"].to_numpy()[left], kind="stable")]
            others[best_first[: math.ceil(self.top_return * len(left))]] = False
            verdicts[f"--top-return {self.top_return:g}"] = ~others
        return verdicts

    def _has_quality(self, dataset: OfflineDataset, quality: str) -> NDArray[np.bool_]:
        limit = dataset.metadata.cost_limit if self.cost_limit is None else self.cost_limit
        if limit is None:
            raise UsageError(
                f"--quality {quality} needs a cost limit and the file names none; give --cost-limit"
            )
        costs: NDArray[np.float64] = dataset.episodes["cost"].to_numpy()
        returns: NDArray[np.float64] = dataset.episodes["return"].to_numpy()
        safe = costs <= limit
        if quality == "safe":
            return safe
        if quality == "unsafe":
            return ~safe
        if quality == "boundary":
            return (costs >= limit / 2) & (costs <= 1.5 * limit)
        tempting: NDArray[np.bool_] = ~safe & (returns > returns[safe].max(initial=-np.inf))
        return tempting


def filter_episodes(dataset: OfflineDataset, conditions: EpisodeFilter) -> OfflineDataset:
    """The episodes that meet all conditions.

    Args:
        dataset: Whose episodes.
        conditions: What an episode must be like.

    Raises:
        UsageError: If none does (the message says which condition removes the most), or the
            dataset lacks what a condition asks about.
    """
    verdicts = conditions.judge(dataset)
    kept = np.logical_and.reduce([np.ones(dataset.num_episodes, np.bool_), *verdicts.values()])
    if kept.any():
        return take_episodes(dataset, np.flatnonzero(kept))
    removed = {text: int((~met).sum()) for text, met in verdicts.items()}
    strictest = max(removed, key=lambda text: removed[text])
    counts = ", ".join(f"{text} removes {count:,}" for text, count in removed.items())
    ranges = ", ".join(
        f"{name}s from {dataset.episodes[name].min():g} to {dataset.episodes[name].max():g}"
        for name in ("return", "cost", "length")
    )
    raise UsageError(
        f"none of the {dataset.num_episodes:,} episodes is left. Each for itself: {counts}.\n"
        f"  Remedy: loosen {strictest} first; the dataset has {ranges}"
    )


def thin_by_density(
    dataset: OfflineDataset,
    *,
    density: float | None = None,
    max_per_bin: int | None = None,
    min_per_bin: int = 1,
    cost_bins: int = 10,
    return_bins: int = 50,
    seed: int = 0,
) -> OfflineDataset:
    """Thin out where many episodes are alike, after the density filter of DSRL.

    A grid is laid over the plane of cost and return. Cells with more than `max_per_bin` episodes
    keep that many, drawn at random; cells with fewer than `min_per_bin` are emptied. Unlike DSRL,
    sparse cells stay unless asked otherwise, the cap follows from `density` for any dataset
    rather than from a table of tasks, and what is drawn depends on `seed` alone. With one seed, a
    lower cap keeps a subset of what a higher one keeps.

    Args:
        dataset: What to thin out.
        density: Share of the episodes to keep at most; the cap is the highest that does so.
        max_per_bin: The cap itself. Give this or `density`.
        min_per_bin: Fewest episodes a cell must hold to be kept.
        cost_bins: Cells along the cost.
        return_bins: Cells along the return.
        seed: Decides which episodes stay.

    Raises:
        UsageError: If the numbers make no sense, or would leave no episode.
    """
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"--density is a share above 0 and at most 1, not {density:g}")
    for name, number in (
        ("--max-per-bin", max_per_bin),
        ("--min-per-bin", min_per_bin),
        ("--cost-bins", cost_bins),
        ("--return-bins", return_bins),
    ):
        if number is not None and number < 1:
            raise UsageError(f"{name} must be at least 1, not {number}")
    cells = grid_cells(dataset, cost_bins=cost_bins, return_bins=return_bins)
    _, cell_of, counts = np.unique(cells, return_inverse=True, return_counts=True)
    dense = counts[cell_of] >= min_per_bin
    if not dense.any():
        raise UsageError(
            f"no cell of the grid holds {min_per_bin} episodes (the fullest holds "
            f"{counts.max()}); lower --min-per-bin or use fewer bins"
        )
    if density is not None and max_per_bin is None:
        cap = _cap_for(counts[counts >= min_per_bin], density * dataset.num_episodes)
    elif max_per_bin is not None and density is None:
        cap = max_per_bin
    else:
        raise UsageError("give either --density or --max-per-bin: the one follows from the other")
    # The place of each episode within its cell in a random order: those before the cap stay.
    chance = make_generator(seed).permutation(dataset.num_episodes)
    order = np.lexsort((chance, cell_of))
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return take_episodes(dataset, np.flatnonzero(dense & (place < cap)))


def grid_cells(
    dataset: OfflineDataset, *, cost_bins: int = 10, return_bins: int = 50
) -> NDArray[np.int64]:
    """The cell of each episode in a regular grid over cost and return.

    The grid spans the dataset's reference scores, or where it has none, the least to the greatest
    value in it; episodes beyond count to the outermost cells.

    Args:
        dataset: Whose episodes.
        cost_bins: Cells along the cost.
        return_bins: Cells along the return.

    Returns:
        (episodes,), `cost cell * return_bins + return cell`.
    """
    known = dataset.metadata.reference_scores
    costs, returns = (dataset.episodes[name].to_numpy() for name in ("cost", "return"))
    cost_max = known.get("cost_max")
    column = _bin(costs, None if cost_max is None else 0.0, cost_max, bins=cost_bins)
    row = _bin(returns, known.get("return_min"), known.get("return_max"), bins=return_bins)
    return column * return_bins + row


def _acted_by(dataset: OfflineDataset, behaviors: Sequence[str]) -> NDArray[np.bool_]:
    if "behavior" not in dataset.episodes:
        raise UsageError(
            "the file does not say who acted (it has no 'infos/policy_id'), so --behavior cannot "
            "choose"
        )
    acted = dataset.episodes["behavior"]
    known = sorted({*acted, *(policy.name for policy in dataset.metadata.behavior_policies)})
    for name in behaviors:
        if name not in known:
            raise UsageError(
                f"--behavior: nobody is called '{name}'; those who acted are {', '.join(known)}"
            )
    return acted.isin(behaviors).to_numpy(np.bool_)


def _bin(
    values: NDArray[np.float64], low: float | None, high: float | None, *, bins: int
) -> NDArray[np.int64]:
    """The cell of each value on a line of `bins` cells from `low` to `high`, ends included."""
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if high <= low:
        return np.zeros(len(values), np.int64)
    return np.clip((values - low) / (high - low) * bins, 0, bins - 1).astype(np.int64)


def _cap_for(counts: NDArray[np.int64], wanted: float) -> int:
    """The highest number a cell may keep so that all together keep at most `wanted`."""
    if len(counts) > wanted:
        raise UsageError(
            f"the grid has {len(counts)} occupied cells; even one episode of each is more than "
            f"the {wanted:.0f} that --density allows; use fewer bins or a higher density"
        )
    low, high = 1, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= wanted:
            low = middle
        else:
            high = middle - 1
    return low
