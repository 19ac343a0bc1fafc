"""What must hold of every evaluation: if it does not, its numbers mean nothing.

A gate looks at the episodes and says in words what is wrong with them, one sentence for each
attack; of an evaluation in order it says nothing.
"""

from __future__ import annotations

import pandas as pd

from safer_offline.attacks import Natural

OUTCOME = ("reward", "cost", "length", "terminated")


def zero_budget_is_natural(episodes: pd.DataFrame) -> list[str]:
    """Without a budget, every attack must leave every episode as it is, to the last bit.

    Attacks meet the same starts. What differs therefore is an attack that does not keep its budget,
    or a policy or an environment that does not answer the same twice.

    Args:
        episodes: Those of a budget of zero, each attack's in the same order, with column `attack`
            and those of `OUTCOME`; without the natural ones there is nothing to compare with.

    Returns:
        A sentence for each attack at fault.
    """
    by_attack = {
        str(name): rows.reset_index(drop=True)
        for name, rows in episodes.groupby("attack", sort=False)
    }
    natural = by_attack.pop(Natural.name, None)
    if natural is None:
        return []
    failures = []
    for name, attacked in by_attack.items():
        different = (attacked[list(OUTCOME)] != natural[list(OUTCOME)]).any(axis=1).to_numpy()
        if different.any():
            first = int(different.argmax())
            failures.append(
                f"at ε = 0, {name} changes {different.sum()} of {len(natural)} episodes (episode "
                f"{first}: {_told(attacked, first)} instead of {_told(natural, first)}). Either "
                f"{name} leaves its budget, or the policy or the environment does not answer the "
                "same twice: do not trust its numbers"
            )
    return failures


def _told(episodes: pd.DataFrame, row: int) -> str:
    return ", ".join(f"{name} {float(episodes[name].iloc[row])!r}" for name in ("reward", "cost"))
