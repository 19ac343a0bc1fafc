"""Which offset harms a victim most: corners of the budget, then the cross-entropy method.

Source: Rubinstein, "The cross-entropy method for combinatorial and continuous optimization", 1999.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.attacks.bias import CORNERS, Bias, Drift, corners
from safer_offline.attacks.budget import Box
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal, Totals, rehearsal_seeds
from safer_offline.files import make_folder, write_json

METHOD = 1
"""To be counted up with every change of the search: what was kept before is then searched anew."""

ELITE = 0.25
"""Share of a generation that the next one is drawn around."""

LEAST_DEVIATION = 0.1
"""Of what a generation draws, in budgets, so that the search does not end before its time."""

FINALISTS = 8
"""Offsets that are tried once more, in new episodes: the luckiest is not always the best."""

FINAL_SHARE = 4
"""How many times the episodes of a generation these meet."""

Offsets = NDArray[np.float32]


def find_bias(attack: Bias, rehearsal: Rehearsal) -> Bias:
    """The attack with the offset that harms most in episodes of the rehearsal.

    Offsets are ranked by the mean cost that they lead to and, where that is equal, by how little
    the victim earns. Each generation meets new episodes, all of it the same ones.

    Args:
        attack: Says how long to search.
        rehearsal: The victim in the simulator.
    """
    settings = {
        name: getattr(attack, name) for name in ("population", "generations", "episodes", "seed")
    }
    settings["method"] = METHOD
    if isinstance(attack, Drift):
        settings["duration"] = attack.duration
    file = rehearsal.file_for(type(attack).name, settings, suffix=".json")
    offset = None if file is None else _read(file, len(rehearsal.budget))
    if offset is None:
        offset = _search(attack, rehearsal)
        if file is not None:
            make_folder(file.parent)
            document = {"offset": offset, "settings": settings, "trained_on": rehearsal.identity}
            write_json(file, document)
    else:
        rehearsal.bar.advance(search_episodes(attack, len(rehearsal.budget)) * rehearsal.horizon)
    return attack.with_offset(offset)


def search_episodes(attack: Bias, size: int) -> int:
    """Most episodes that `find_bias` runs, where observations have `size` coordinates."""
    first = min(CORNERS, 1 << min(size, 30))
    tried = first + attack.generations * attack.population
    return attack.episodes * (tried + FINAL_SHARE * FINALISTS)


def _search(attack: Bias, rehearsal: Rehearsal) -> tuple[float, ...]:
    generator = np.random.default_rng(attack.seed)
    free = rehearsal.budget.cpu().numpy() > 0
    offsets = corners(int(free.sum()), generator)
    mean, deviation = np.zeros(offsets.shape[1]), np.ones(offsets.shape[1])
    best: list[tuple[tuple[float, float], Offsets]] = []
    with rehearsal.simulators() as simulators:
        for generation in range(attack.generations + 1):
            if generation > 0:
                drawn = generator.normal(mean, deviation, (attack.population, len(mean)))
                offsets = np.clip(drawn, -1, 1).astype(np.float32)
            seeds = rehearsal_seeds(attack.seed, attack.episodes, part=generation)
            harm = _tried(attack, offsets, rehearsal, simulators, seeds)
            order = sorted(range(len(offsets)), key=harm.__getitem__, reverse=True)
            best += [(harm[i], offsets[i]) for i in order[:FINALISTS]]
            best = sorted(best, key=lambda found: found[0], reverse=True)[:FINALISTS]
            elite = offsets[order[: max(2, round(ELITE * len(offsets)))]]
            mean = elite.mean(axis=0)
            deviation = np.maximum(elite.std(axis=0), LEAST_DEVIATION)
        finalists = np.stack([offset for _, offset in best])
        seeds = rehearsal_seeds(
            attack.seed, FINAL_SHARE * attack.episodes, part=attack.generations + 1
        )
        harm = _tried(attack, finalists, rehearsal, simulators, seeds)
    whole = np.zeros(len(free), np.float32)
    whole[free] = finalists[max(range(len(finalists)), key=harm.__getitem__)]
    return tuple(whole.tolist())


def _read(file: Path, size: int) -> tuple[float, ...] | None:
    """What an earlier search found; None if there was none, or its file is damaged."""
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        offset = tuple(float(number) for number in document["offset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return offset if len(offset) == size else None


def _tried(
    attack: Bias,
    offsets: Offsets,
    rehearsal: Rehearsal,
    simulators: VectorEnvironment,
    seeds: list[int],
) -> list[tuple[float, float]]:
    """How much each offset harms, in the same episodes."""
    episodes = len(seeds)
    free = rehearsal.budget.cpu().numpy() > 0
    each = np.zeros((len(offsets), len(free)), np.float32)
    each[:, free] = offsets
    whole = torch.from_numpy(np.repeat(each, episodes, axis=0)).to(rehearsal.budget)
    whole *= rehearsal.budget
    deltas = torch.zeros_like(whole)

    def perturb(observations: Tensor, rows: slice) -> Tensor:
        deltas[rows] = attack.reached(whole[rows], deltas[rows])
        box = Box.around(observations, rehearsal.budget)
        return box.project(observations + deltas[rows])

    totals = rehearsal.run(perturb, seeds * len(offsets), simulators=simulators)
    harm = [
        Totals(returns, costs).harm()
        for returns, costs in zip(
            totals.returns.reshape(-1, episodes), totals.costs.reshape(-1, episodes), strict=True
        )
    ]
    rehearsal.bar.advance(len(totals.costs) * rehearsal.horizon, bias=f"cost {max(harm)[0]:.3g}")
    return harm
