"""Several policies beside each other; those that differ only in the training seed count as one.

    reports = {"safer": [evaluate(one, ...) for one in trained], "bc": [evaluate(cloned, ...)]}
    print(Comparison.of(reports).summary())

All must have met the same episodes, so that policies are compared start by start.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from safer_offline.errors import UsageError
from safer_offline.evaluation import seeds, statistics
from safer_offline.evaluation.budgets import BudgetReport
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.results import EvaluationReport, epsilon_cell
from safer_offline.evaluation.statistics import FloatArray

WORST = "worst attack"
WORST_CASE = "worst per episode"


@dataclass(frozen=True, kw_only=True)
class Method:
    """What several trainings, or one, have in common, and what each of them did.

    Attributes:
        name: As tables call it.
        reports: For each multiple of epsilon, one report for each training seed.
    """

    name: str
    reports: dict[float, tuple[EvaluationReport, ...]]

    @property
    def plan(self) -> EvaluationPlan:
        """Of its first training, with the largest budget."""
        return self.largest[0].plan

    @property
    def seeds(self) -> int:
        """How many trainings there are."""
        return len(self.largest)

    @property
    def largest(self) -> tuple[EvaluationReport, ...]:
        """The reports of its largest budget."""
        return self.reports[max(self.reports)]

    def attacks(self, multiple: float) -> list[str]:
        """Those that every training met."""
        first, *rest = self.reports[multiple]
        return [name for name in first.attacks if all(name in other.attacks for other in rest)]

    def worst_attack(self, multiple: float) -> str:
        """The attack with the largest mean cost over all seeds; among equals, the least return."""

        def harm(attack: str) -> tuple[float, float]:
            returns, costs = self.scores(multiple, attack)
            return -float(costs.mean()), float(returns.mean())

        return min(self.attacks(multiple), key=harm)

    def scores(self, multiple: float, attack: str) -> tuple[FloatArray, FloatArray]:
        """Returns and costs under an attack, or with each episode under its `WORST_CASE`.

        Both have shape (seeds, episodes).
        """
        names = self.attacks(multiple) if attack == WORST_CASE else [attack]
        both = [
            statistics.worst_case(*_episodes(report, names)) for report in self.reports[multiple]
        ]
        return np.stack([returns for returns, _ in both]), np.stack([costs for _, costs in both])


def _episodes(report: EvaluationReport, attacks: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Returns and costs, each (attacks, episodes)."""
    frames = [report.of_attack(name) for name in attacks]
    return (
        np.stack([frame["reward"].to_numpy(np.float64) for frame in frames]),
        np.stack([frame["cost"].to_numpy(np.float64) for frame in frames]),
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several methods that met the same episodes.

    Attributes:
        methods: At least one; all with the same multiples of the same epsilon.
    """

    methods: tuple[Method, ...]

    @classmethod
    def of(cls, reports: Mapping[str, Sequence[EvaluationReport | BudgetReport]]) -> Comparison:
        """Compare methods.

        Args:
            reports: Of each method by its name, one for each training seed.

        Raises:
            UsageError: If there is none, or two of them are of different budgets, episodes or
                seeds of these.
        """
        methods = tuple(
            Method(name=name, reports=_by_multiple(several)) for name, several in reports.items()
        )
        if not methods:
            raise UsageError("a comparison needs one evaluation at least")
        known = [(method.name, report) for method in methods for report in method.largest]
        (first_name, first), *rest = known
        for name, other in rest:
            for what in ("epsilon", "epsilon_units", "episodes", "seed"):
                wanted, is_ = getattr(first.plan, what), getattr(other.plan, what)
                if wanted != is_:
                    raise UsageError(
                        f"{first_name} and {name} cannot be compared: they were evaluated with "
                        f"{what} {wanted} and {is_}"
                    )
        if len({tuple(method.reports) for method in methods}) > 1:
            raise UsageError("methods cannot be compared: they met different multiples of epsilon")
        return cls(methods=methods)

    @property
    def multiples(self) -> list[float]:
        """Of epsilon, ascending."""
        return list(self.methods[0].reports)

    @property
    def nominal(self) -> float:
        """The multiple that is epsilon itself; the largest one, where that was not met."""
        return 1.0 if 1.0 in self.multiples else self.multiples[-1]

    @property
    def plan(self) -> EvaluationPlan:
        """Of the first evaluation."""
        return self.methods[0].plan

    @property
    def tasks(self) -> list[str]:
        """The environments, each once."""
        return list(dict.fromkeys(method.plan.context.env_id for method in self.methods))

    @property
    def limits(self) -> list[float | None]:
        """The cost limits, each once."""
        return list(dict.fromkeys(method.plan.cost_limit for method in self.methods))

    def summary(self) -> pd.DataFrame:
        """One row for each method, budget and attack, then the worst attack and the worst case.

        Means, `reward_iqm` (interquartile mean) and `cost_cvar` (mean of the worst tenth) are over
        all seeds and episodes; `_low` and `_high` enclose them with 95 % confidence over training
        seeds and episodes. `violation_low` and `violation_high` are exact bounds, of the least and
        of the most violating seed. See `seeds`.
        """
        return pd.DataFrame(self.rows)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `summary`."""
        rows = []
        for method in self.methods:
            for multiple in method.reports:
                worst = method.worst_attack(multiple)
                named = {attack: attack for attack in method.attacks(multiple)}
                for kind, attack in {**named, WORST: worst, WORST_CASE: WORST_CASE}.items():
                    rows.append(_row(method, multiple, kind, attack))
        return rows

    def row(self, method: Method, multiple: float, kind: str) -> dict[str, Any] | None:
        """The row of `summary` of an attack, `WORST` or `WORST_CASE`; None if nobody met it."""
        wanted = (method.name, multiple, kind)
        rows = (r for r in self.rows if (r["method"], r["multiple"], r["row"]) == wanted)
        return next(rows, None)

    def improvements(self) -> pd.DataFrame:
        """How probably one method does better than another on the same start.

        One row for each pair of methods of one task, and multiple of epsilon, with each episode
        under the attack that harms it most: the probabilities of a higher return and of a lower
        cost, with bounds. Equal values count half.
        """
        return pd.DataFrame(self.pairs)

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """The rows of `improvements`."""
        pairs = []
        for one, other in itertools.combinations(self.methods, 2):
            if not one.plan.context.is_task_of(other.plan.context):
                continue
            for multiple in self.multiples:
                ours, theirs = (m.scores(multiple, WORST_CASE) for m in (one, other))
                row: dict[str, Any] = {
                    "method": one.name,
                    "other": other.name,
                    "multiple": multiple,
                    "epsilon": epsilon_cell(one.reports[multiple][0].epsilon),
                }
                for name, a, b in (
                    ("higher_return", ours[0], theirs[0]),
                    ("lower_cost", -ours[1], -theirs[1]),
                ):
                    low, high = seeds.improvement_interval(a, b)
                    row[name] = float(seeds.probability_of_improvement(a, b))
                    row |= {f"{name}_low": low, f"{name}_high": high}
                pairs.append(row)
        return pairs

    def unequal_attacks(self) -> list[str]:
        """In sentences: which methods did not meet what others did, so that they look safer."""
        met = {method.name: method.attacks(self.multiples[-1]) for method in self.methods}
        every = list(dict.fromkeys(name for names in met.values() for name in names))
        missing = {name: [a for a in every if a not in names] for name, names in met.items()}
        return [
            f"{name} did not meet {', '.join(attacks)}, which others did: its worst attack may be "
            "a weaker one"
            for name, attacks in missing.items()
            if attacks
        ]

    def gate_failures(self) -> list[str]:
        """What must hold of every evaluation and does not, see `gates`."""
        return [
            f"{method.name}: {failure}"
            for method in self.methods
            for reports in method.reports.values()
            for report in reports
            for failure in report.gate_failures()
        ]


def _by_multiple(
    several: Sequence[EvaluationReport | BudgetReport],
) -> dict[float, tuple[EvaluationReport, ...]]:
    if not several:
        raise UsageError("a method without any evaluation cannot be compared")
    by_report = [one.reports if isinstance(one, BudgetReport) else {1.0: one} for one in several]
    if len({tuple(reports) for reports in by_report}) > 1:
        raise UsageError("methods cannot be compared: they met different multiples of epsilon")
    return {multiple: tuple(r[multiple] for r in by_report) for multiple in by_report[0]}


def _row(method: Method, multiple: float, kind: str, attack: str) -> dict[str, Any]:
    returns, costs = method.scores(multiple, attack)
    limit = method.plan.cost_limit
    violations = {"rate": math.nan, "low": math.nan, "high": math.nan}
    if limit is not None:
        low, high = seeds.violation_bounds(costs, limit)
        rate = statistics.violation_rate(costs, limit)
        violations = {"rate": rate, "low": low, "high": high}
    row: dict[str, Any] = {
        "method": method.name,
        "env": method.plan.context.env_id,
        "multiple": multiple,
        "epsilon": epsilon_cell(method.reports[multiple][0].epsilon),
        "row": kind,
        "attack": attack,
        "seeds": method.seeds,
        "episodes": int(costs.size),
        "cost_limit": math.nan if limit is None else limit,
    }
    for name, scores, statistic in (
        ("reward_mean", returns, seeds.mean),
        ("reward_iqm", returns, seeds.interquartile_mean),
        ("cost_mean", costs, seeds.mean),
        ("cost_cvar", costs, seeds.conditional_value_at_risk),
    ):
        low, high = seeds.bootstrap_interval(scores, statistic)
        row |= {name: float(statistic(scores)), f"{name}_low": low, f"{name}_high": high}
    return row | {f"violation_{name}": value for name, value in violations.items()}
