"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import typer

from safer_offline.errors import UsageError

Epsilon = Annotated[
    str,
    typer.Option(
        help="Budget of the attacks: one number, or one an observation coordinate (0.1,0.1,0,...)."
    ),
]


class EpsilonUnits(str, Enum):
    """What epsilon counts: raw observation units, or the dataset's standard deviations."""

    raw = "raw"
    std = "std"


def parse_epsilon(text: str) -> float | tuple[float, ...]:
    """One number, or several separated by commas.

    Raises:
        UsageError: If something is no number.
    """
    numbers = _numbers(
        text,
        option="--epsilon",
        remedy="give one number, or one for each observation coordinate separated by commas",
    )
    return numbers[0] if len(numbers) == 1 else numbers


def parse_budgets(text: str) -> tuple[float, ...]:
    """Multiples of epsilon, separated by commas.

    Raises:
        UsageError: If something is no number.
    """
    remedy = "give multiples of --epsilon separated by commas, such as 0,0.5,1,1.5,2"
    return _numbers(text, option="--budgets", remedy=remedy)


def parse_targets(pairs: Sequence[str]) -> dict[str, float]:
    """`["target_cost=20"]` -> `{"target_cost": 20.0}`.

    Raises:
        UsageError: If something is no pair, or no number is behind its name.
    """
    targets = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            targets[name] = float(value)
        except ValueError:
            raise UsageError(f"--aim: '{pair}' is no name=number, such as target_cost=20") from None
    return targets


def budget_options(trained: Mapping[str, Any]) -> list[str]:
    """What to type for the budget that a policy was trained to withstand.

    Args:
        trained: The settings of its training.

    Returns:
        Such as `["--epsilon", "0.025"]`; nothing where it is the default of `evaluate`.
    """
    from safer_offline.learners.robust import RobustConfig
    from safer_offline.settings import write_value

    usual, options = RobustConfig(), []
    for name in ("epsilon", "epsilon_units"):
        value = trained.get(name)
        if value not in (None, getattr(usual, name)):
            options += [f"--{name.replace('_', '-')}", write_value(value)]
    return options


def _numbers(text: str, *, option: str, remedy: str) -> tuple[float, ...]:
    numbers = []
    for position, part in enumerate(text.split(",")):
        try:
            numbers.append(float(part))
        except ValueError:
            raise UsageError(
                f"{option}: '{part}' at position {position} is no number; {remedy}"
            ) from None
    return tuple(numbers)
