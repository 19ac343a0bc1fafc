"""What a reader must know of attacks that were found in whole episodes, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

RISE = 1.1
"""How much more the last quarter of a training must reach to count as a rise."""

NOISE = 2.0
"""Standard errors that a difference may have without meaning anything."""


def weaker_than_others(episodes: pd.DataFrame, searched: Sequence[str]) -> list[str]:
    """Searched attacks that do less harm than one that looks a single step ahead.

    They could have done what that one does, so their search was too short. Both met the same
    episodes: what counts is the mean difference of the costs, against its standard error.

    Args:
        episodes: Columns attack, episode and cost.
        searched: Names of the attacks that were searched for.

    Returns:
        A sentence for each of them.
    """
    if not searched:
        return []
    costs = episodes.pivot(index="episode", columns="attack", values="cost")
    others = costs.drop(columns=list(searched))
    if others.empty:
        return []
    best = others.mean().idxmax()
    sentences = []
    for name in searched:
        difference = (costs[best] - costs[name]).to_numpy()
        error = difference.std() / math.sqrt(len(difference))
        if difference.mean() > NOISE * error and difference.mean() > 0:
            sentences.append(
                f"{name} costs {costs[name].mean():.1f}, less than {best} "
                f"({costs[best].mean():.1f}): it was not searched for long enough"
            )
    return sentences


def unfinished_learning(name: str, curve: Sequence[Mapping[str, float]]) -> str:
    """A sentence where a longer training might well find more; empty where it need not.

    Args:
        name: Of the attack.
        curve: The mean cost that was reached, by steps: see `Learned.curve`.
    """
    costs = np.array([point["cost"] for point in curve])
    if len(costs) == 0:
        return ""
    steps = f"{curve[-1]['steps']:.0f} steps"
    if costs.max() <= 0:
        return (
            f"{name} caused no cost whenever it was measured in {steps}, and where there is none, "
            "there is little to learn from: more steps or restarts might still find some"
        )
    late = len(costs) // 4
    if late == 0 or costs[-late:].max() <= RISE * costs[:-late].max():
        return ""
    return (
        f"{name} was still getting stronger: its cost rose from {costs[:-late].max():.1f} to "
        f"{costs[-late:].max():.1f} in the last quarter of {steps}; give it more"
    )
