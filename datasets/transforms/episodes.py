"""Datasets made from one dataset by chance: disjoint parts of it, or a sample.

Here and in `filtering`, functions give new datasets of whole episodes, in the order of the
original, and leave the original and every global random generator as they were. Chance comes from
`seed` alone: the same dataset and the same seed give the same content.

What comes out keeps the reference scores of the original, so that normalised scores remain
comparable; the shares of the behaviour policies are measured anew; `name` and `recipe` are dropped,
for they stand for all of the original.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import BehaviorPolicy
from safer_offline.datasets.storage.hdf5 import content_sha256
from safer_offline.errors import UsageError


def split_dataset(
    dataset: OfflineDataset, fractions: Sequence[float], *, seed: int = 0, stratify: bool = True
) -> tuple[OfflineDataset, ...]:
    """Deal the episodes out to disjoint parts that together are the dataset.

    Args:
        dataset: What to split.
        fractions: Share of the episodes of each part; they add up to 1. A part differs from its
            share by less than one episode.
        seed: Decides which episode goes where.
        stratify: Give every part its share of each level of cost, so that all have safe and unsafe
            episodes wherever there are enough; False deals without looking at cost.

    Raises:
        UsageError: If the fractions do not add up to 1, or there are too few episodes for a part.
    """
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise UsageError(f"fractions lie between 0 and 1, these are {_listed(fractions)}")
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise UsageError(
            f"the fractions {_listed(fractions)} add up to {sum(fractions):g}; the parts together "
            "are the whole dataset, so they must add up to 1 "
            "(to leave episodes out, use `data sample`)"
        )
    total = dataset.num_episodes
    sizes = _share_out(total, fractions)
    if 0 in sizes:
        raise UsageError(
            f"a part of {fractions[sizes.index(0)]:g} of {total:,} episodes would be empty; give "
            "it more, or split fewer ways"
        )
    generator = make_generator(seed)
    # Which part each turn goes to, evenly mixed: part j's k-th turn comes at (k + 1/2) / size_j.
    turns = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    part_of_turn = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(turns, kind="stable")]
    # Episodes in order of cost take their turns, shuffled among neighbours only: in a block that
    # is just long enough for the smallest part to have a turn in it.
    block = math.ceil(1 / min(fractions)) if stratify else total
    shuffled = np.lexsort((generator.random(total), np.arange(total) // block))
    costs = dataset.episodes["cost"].to_numpy()
    by_cost = np.lexsort((generator.random(total), costs if stratify else np.zeros(total)))
    part_of_episode = np.empty(total, np.int64)
    part_of_episode[by_cost] = part_of_turn[shuffled]
    return tuple(
        take_episodes(dataset, np.flatnonzero(part_of_episode == part))
        for part in range(len(sizes))
    )


def sample_episodes(
    dataset: OfflineDataset,
    *,
    episodes: int | None = None,
    transitions: int | None = None,
    seed: int = 0,
    stratify: bool = False,
) -> OfflineDataset:
    """Some episodes at random, each with the same chance, none twice.

    Args:
        dataset: Where to draw from.
        episodes: How many to draw.
        transitions: Instead: draw until there are at least this many; episodes are never cut.
        seed: Decides which are drawn.
        stratify: Spread the draw evenly over costs and returns, so that a small sample looks like
            the whole; False leaves it to chance.

    Raises:
        UsageError: If there are not that many, or not exactly one of the two is given.
    """
    for name, wanted, there in (
        ("episodes", episodes, dataset.num_episodes),
        ("transitions", transitions, dataset.num_transitions),
    ):
        if wanted is not None and not 1 <= wanted <= there:
            raise UsageError(f"cannot draw {wanted:,} {name} from {there:,}")
    total = dataset.num_episodes
    generator = make_generator(seed)
    order = _spread_order(dataset, generator) if stratify else generator.permutation(total)
    start = int(generator.integers(total))
    lengths = dataset.episodes["length"].to_numpy()

    def draw(number: int) -> NDArray[np.int64]:
        if not stratify:
            return order[:number]
        # Every (total / number)-th, along an order in which neighbours are alike.
        return order[(np.arange(number) * total + start) // number]

    if transitions is not None and episodes is None:
        number = 1 + bisect.bisect_left(
            range(1, total), transitions, key=lambda number: int(lengths[draw(number)].sum())
        )
    elif episodes is not None and transitions is None:
        number = episodes
    else:
        raise UsageError("give either a number of episodes (-n) or of --transitions")
    return take_episodes(dataset, np.sort(draw(number)))


def take_episodes(dataset: OfflineDataset, episodes: NDArray[np.int64]) -> OfflineDataset:
    """What all operations here end with: `select_episodes`, and metadata that fit what is left.

    Args:
        dataset: Where to take from.
        episodes: Positions in the table `episodes`.
    """
    chosen = dataset.select_episodes(episodes)
    # One step of several in memory is no parent, for nobody has it: its own parents are. What was
    # loaded from a file of another tool carries no hash yet.
    parents = chosen.metadata.parents or dataset.metadata.parents or (content_sha256(dataset),)
    metadata = dataclasses.replace(
        chosen.metadata,
        name="",
        recipe="",
        behavior_policies=measure_shares(chosen),
        parents=parents,
    )
    return dataclasses.replace(chosen, metadata=metadata)


def measure_shares(dataset: OfflineDataset) -> tuple[BehaviorPolicy, ...]:
    """The behaviour policies of a dataset, each with the share of the episodes it acted in."""
    policies = dataset.metadata.behavior_policies
    if "policy_id" not in dataset.infos:
        return policies
    acted = dataset.infos["policy_id"][dataset.episodes["start"].to_numpy()]
    return tuple(
        dataclasses.replace(policy, share=float((acted == place).mean()))
        for place, policy in enumerate(policies)
    )


def make_generator(seed: int) -> np.random.Generator:
    """A generator of its own for one operation.

    Raises:
        UsageError: If the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"--seed must not be negative, but is {seed}")
    return np.random.default_rng(seed)


def _share_out(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, each less than 1 away from its fraction of it."""
    exact = np.array(fractions) / sum(fractions) * total
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    largest_rests = np.argsort(sizes - exact, kind="stable")
    sizes[largest_rests[: total - sizes.sum()]] += 1
    return [int(size) for size in sizes]


def _spread_order(dataset: OfflineDataset, generator: np.random.Generator) -> NDArray[np.int64]:
    """All episodes in an order in which neighbours have similar cost and return.

    Ten groups of rising cost, within each by return, up and down in turn.
    """
    total = dataset.num_episodes
    costs, returns = (dataset.episodes[name].to_numpy() for name in ("cost", "return"))
    by_cost = np.lexsort((generator.random(total), costs))
    group = np.empty(total, np.int64)
    group[by_cost] = np.arange(total) * min(10, total) // total
    return np.lexsort((np.where(group % 2, -returns, returns), group))


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers) or "none"
