"""Whether critics rank what they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.evaluation.critics.fitted_q import SIGNALS, FittedCritics
from safer_offline.policies.critics import discounted_to_go

RANKS = 0.25
"""A rank correlation below this is said to be none: of some 60 values, chance gives as much."""

PLACES = (0.0, 0.5)
"""Where in an episode critics are asked, as shares of it."""


def rank_correlations(
    critics: FittedCritics, judged: OfflineDataset, *, discount: float
) -> dict[str, float | None]:
    """Of each critic, Spearman's correlation between its values and what really followed.

    Args:
        critics: Whom to judge.
        judged: Episodes of the policy that the critics are of, without noise; the critics were not
            fitted to them. They are asked at their beginnings and in their middles.
        discount: Of the critics.

    Returns:
        By the names of the critics; None where one of both is the same everywhere.
    """
    starts, lengths = (judged.episodes[name].to_numpy() for name in ("start", "length"))
    places = [starts + (share * lengths).astype(int) for share in PLACES]
    rows = torch.from_numpy(np.unique(np.concatenate(places)))
    seen, done = judged.observations[rows], judged.actions[rows]
    followed = {
        name: discounted_to_go(signal, judged.terminals, judged.timeouts, discount=discount)[rows]
        for name, signal in (("reward", judged.rewards), ("cost", judged.costs))
    }
    told = {"reward": critics.q_reward(seen, done), "cost": critics.q_cost(seen, done)}
    return {name: spearman(told[name].numpy(), followed[name].numpy()) for name in SIGNALS}


def spearman(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """The correlation of the ranks of two samples (n,), equal values sharing theirs.

    None if one of the samples has a single value.
    """
    ranks = [pd.Series(values).rank().to_numpy() for values in (one, other)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def what_to_know(source: str, told: Mapping[str, Any]) -> list[str]:
    """Sentences on critics that know nothing, or were not seen to know anything.

    Args:
        source: What they were fitted to.
        told: See `finding`; `asked` says which of them led an attack.
    """
    sentences = []
    for name in told["asked"]:
        correlation = told["rank_correlation"][name]
        if name in told["constant"]:
            nothing = told["constant"][name] == 0
            what = f"no {name} was ever seen" if nothing else f"the {name} never varied"
            sentences.append(
                f"{what} in what critics of '{source}' were fitted to: if what their {name} critic "
                "leads does little harm, that says nothing"
            )
        elif correlation is None:
            sentences.append(
                f"the {name} was the same in all held-out episodes, so nobody knows whether the "
                f"{name} critic of '{source}' ranks them"
            )
        elif correlation < RANKS:
            sentences.append(
                f"the {name} critic of '{source}' does not rank held-out episodes (rank "
                f"correlation {correlation:.2f}): if what it leads does little harm, that says "
                "nothing"
            )
    return sentences
