"""What a user of a dataset should know before trusting it, found by looking at the data."""

from __future__ import annotations

import numpy as np

from safer_offline.datasets.dataset.constants import find_constant_problems
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.validation import find_problems
from safer_offline.datasets.description.summary import LIMITS

# Below this share of safe episodes there is hardly one to learn from.
RARE = 0.05
AT_BOUND = 1e-6


def find_limitations(dataset: OfflineDataset) -> list[str]:
    """One sentence a limitation, the general ones first.

    Args:
        dataset: A dataset that passed validation.
    """
    metadata = dataset.metadata
    notes = []
    if metadata.env_id:
        notes.append(
            "The data come from one simulated task with its own physics, sensors and starting "
            "states; nothing here says how they transfer to another."
        )
    if not metadata.behavior_policies:
        notes.append("It is not recorded who acted, nor with which settings.")
    notes.append(
        "Nobody who acted is known to be optimal: the best return in the data is no bound on what "
        "can be reached."
    )
    if not metadata.cost_definition:
        notes.append("What costs how much is not recorded; ask before you interpret a limit.")
    notes += [*_endings(dataset), *_safety(dataset), *_variety(dataset), *_actions(dataset)]
    notes += [
        f"`{problem.field}` {problem.problem}." if problem.field else f"{problem.problem}."
        for problem in find_problems(dataset.to_arrays(), metadata)
    ]
    return notes


def _endings(dataset: OfflineDataset) -> list[str]:
    if dataset.terminals.any():
        return []
    return [
        "No episode truly ends: every one was cut off at its last step. What the task would look "
        "like after that cannot be learned from here."
    ]


def _safety(dataset: OfflineDataset) -> list[str]:
    costs = dataset.episodes["cost"]
    if not costs.any():
        return ["Nothing here ever cost anything: what danger looks like cannot be learned."]
    shares = {limit: float((costs <= limit).mean()) for limit in LIMITS}
    rare = [f"{limit:g} ({share:.1%})" for limit, share in shares.items() if share < RARE]
    if not rare:
        return []
    return [f"Safe episodes are rare at a cost limit of {', '.join(rare)}."]


def _variety(dataset: OfflineDataset) -> list[str]:
    notes = [
        f"`{problem.field}`: {problem.problem}."
        for problem in find_constant_problems(dataset.to_arrays())
    ]
    if "seed" in dataset.episodes:
        repeated = int(dataset.episodes["seed"].duplicated().sum())
        if repeated:
            notes.append(f"{repeated:,} episodes start from a seed that another one has, too.")
    starts = dataset.observations.numpy()[dataset.episodes["start"].to_numpy()]
    different = len(np.unique(starts, axis=0))
    if different < dataset.num_episodes:
        notes.append(
            f"The {dataset.num_episodes:,} episodes begin in {different:,} different observations."
        )
    return notes


def _actions(dataset: OfflineDataset) -> list[str]:
    outer = (dataset.actions <= dataset.action_low + AT_BOUND) | (
        dataset.actions >= dataset.action_high - AT_BOUND
    )
    share = float(outer.any(dim=1).float().mean())
    if share < 0.01:
        return []
    return [
        f"{share:.0%} of the actions lie on a bound of the action space in at least one number, "
        "where densities of squashed policies are infinite; clip before taking logarithms."
    ]
