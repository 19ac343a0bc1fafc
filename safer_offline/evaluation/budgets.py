"""How cost and return follow the budget: one policy, the same attacks, several budgets.

    report = evaluate_budgets(policy, budgets=(0, 0.5, 1, 1.5, 2), epsilon=0.05)
    report.curve()                 # the worst attack at each budget
    report.largest_safe()          # up to where it keeps the limit

All budgets meet the same episodes and the same random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.attacks import Attack, EpsilonUnits, Natural, attack_budget
from safer_offline.datasets.loading import Source
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import UsageError
from safer_offline.evaluation import statistics
from safer_offline.evaluation.certificates.words import in_words
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.critics.sources import CriticSource
from safer_offline.evaluation.harness import prepare
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.results import EvaluationReport, epsilon_cell
from safer_offline.evaluation.rollouts import EvaluatedPolicy
from safer_offline.evaluation.simulation import Evaluation, Simulated
from safer_offline.evaluation.trials import Trial


def evaluate_budgets(
    policy: EvaluatedPolicy | object,
    *,
    budgets: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0),
    env: str | EnvironmentSource | gymnasium.Env[Any, Any] | None = None,
    attacks: str | Sequence[str | Attack] = "all",
    attack_set: Sequence[str] = (),
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    workers: int | None = None,
    cost_limit: float | None = None,
    certify: bool = False,
    max_rows: int = 32,
    progress: bool = True,
    critics: str | Sequence[str] | None = None,
    data: Source | None = None,
    critic_settings: CriticSettings | None = None,
) -> BudgetReport:
    """Run a policy in the simulator under each attack with each of several budgets.

    At each budget the numbers are those of `evaluate`, to the last bit.

    Args:
        policy: See `evaluate`, like all that is not said here.
        budgets: Multiples of `epsilon`, in any order.
        env: See there.
        attacks: See there. Natural episodes, where every curve begins, are always among them.
        attack_set: See there.
        epsilon: Budget that the multiples count; 1 makes budgets of them.
        epsilon_units: See there.
        episodes: Under each attack with each budget.
        seed: See there.
        workers: See there.
        cost_limit: See there.
        certify: See there; there is a certificate for each budget.
        max_rows: See there.
        progress: See there.
        critics: See there; they are fitted once for all budgets.
        data: See there.
        critic_settings: See there.

    Raises:
        UsageError: If `budgets` are impossible; and as in `evaluate`, like the other errors.
    """
    evaluation = prepare(
        policy,
        env=env,
        attacks=attacks,
        attack_set=attack_set,
        epsilon=epsilon,
        epsilon_units=epsilon_units,
        episodes=episodes,
        seed=seed,
        cost_limit=cost_limit,
        certify=certify,
        critics=critics,
        data=data,
        critic_settings=critic_settings,
    )
    return BudgetEvaluation.of(evaluation, budgets).run(
        workers=workers, max_rows=max_rows, progress=progress
    )


@dataclass(frozen=True, kw_only=True)
class BudgetEvaluation:
    """An evaluation with several budgets that is about to begin.

    Attributes:
        evaluation: With the budget that the multiples count; its plan names them.
    """

    evaluation: Evaluation

    @property
    def plan(self) -> EvaluationPlan:
        """What is evaluated."""
        return self.evaluation.plan

    @property
    def policy(self) -> EvaluatedPolicy:
        """The victim."""
        return self.evaluation.policy

    @property
    def source(self) -> EnvironmentSource:
        """Makes the environment."""
        return self.evaluation.source

    @property
    def critic_sources(self) -> tuple[CriticSource, ...]:
        """What critics are fitted to."""
        return self.evaluation.critic_sources

    @property
    def leaders(self) -> dict[str, str]:
        """Whose critics lead an attack; see `Evaluation`."""
        return self.evaluation.leaders

    @property
    def trials(self) -> list[Trial]:
        """What there is to run."""
        one, plan = self.evaluation, self.plan
        # Whatever the budget, no attack is no attack: its episodes run once.
        trials = [Trial(a, one.budget, 0.0) for a in one.attacks if a.name == Natural.name]
        for multiple in plan.budgets:
            epsilon = plan.at(multiple).epsilon
            budget = attack_budget(epsilon, self.policy.observation_std, units=plan.epsilon_units)
            trials += [Trial(a, budget, multiple) for a in one.attacks if a.name != Natural.name]
        return trials

    @classmethod
    def of(cls, evaluation: Evaluation, budgets: Sequence[float]) -> BudgetEvaluation:
        """The same evaluation with several multiples of its budget.

        Raises:
            UsageError: If there is none, one is negative or not finite, or the budget itself is
                zero.
        """
        if not len(budgets):
            raise UsageError("budgets: give one multiple of epsilon at least, such as 1")
        for position, multiple in enumerate(budgets):
            if not 0 <= multiple < math.inf:
                raise UsageError(
                    f"budgets are multiples of epsilon, finite and not negative; the one at "
                    f"position {position} is {multiple}"
                )
        if not evaluation.budget.any():
            raise UsageError("epsilon is 0, and so is every multiple of it: give another epsilon")
        attacks = evaluation.attacks
        if Natural.name not in [attack.name for attack in attacks]:
            attacks = (Natural(), *attacks)
        plan = replace(
            evaluation.plan,
            budgets=tuple(sorted({float(multiple) for multiple in budgets})),
            attacks={Natural.name: {}, **evaluation.plan.attacks},
        )
        return cls(evaluation=replace(evaluation, plan=plan, attacks=attacks))

    def run(
        self,
        *,
        workers: int | None = None,
        max_rows: int = 32,
        progress: bool = True,
        keep_in: Path | None = None,
        adversaries_in: Path | None = None,
        critics_in: Path | None = None,
        meanwhile: Callable[[BudgetReport], object] | None = None,
    ) -> BudgetReport:
        """Run all episodes; see `Evaluation.run`.

        What must first be found is searched for with each budget, after all other attacks with all
        budgets.
        """
        found = self.evaluation.simulate(
            self.trials,
            workers=workers,
            max_rows=max_rows,
            progress=progress,
            keep_in=keep_in,
            adversaries_in=adversaries_in,
            critics_in=critics_in,
            meanwhile=None
            if meanwhile is None
            else lambda so_far: meanwhile(self._report(so_far, progress=progress)),
        )
        return self._report(found, progress=progress)

    def _report(self, found: Simulated, *, progress: bool) -> BudgetReport:
        table, trials, visited = found
        natural = table["attack"] == Natural.name
        reports = {}
        for multiple in sorted({0.0, *self.plan.budgets}):
            episodes = table[natural | (table["multiple"] == multiple)]
            ran = [t for t in trials if t.attack.name == Natural.name or t.multiple == multiple]
            at_budget = Simulated(episodes, ran, visited if multiple > 0 else None)
            reports[multiple] = self.evaluation.report(
                self.plan.at(multiple), at_budget, progress=progress
            )
        return BudgetReport(plan=self.plan, reports=reports)


@dataclass(frozen=True, kw_only=True)
class BudgetReport:
    """Everything that an evaluation with several budgets found.

    Attributes:
        plan: What was evaluated; `plan.budgets` are the multiples of `plan.epsilon`.
        reports: What was found at each multiple, ascending. The first is that of zero: natural
            episodes alone, unless zero is among the budgets.
    """

    plan: EvaluationPlan
    reports: dict[float, EvaluationReport]

    @property
    def by_coordinate(self) -> bool:
        """Whether budgets have no single number, so that curves are drawn over multiples."""
        return isinstance(self.plan.epsilon, tuple)

    @property
    def attacks(self) -> dict[str, dict[str, Any]]:
        """Settings of each attack by its name, see `EvaluationReport`."""
        return self.reports[self.plan.budgets[-1]].attacks

    def position(self, multiple: float) -> float:
        """Where a budget stands on the axis of a curve: its ε, or else the multiple."""
        epsilon = self.plan.at(multiple).epsilon
        return multiple if isinstance(epsilon, tuple) else epsilon

    def summary(self) -> pd.DataFrame:
        """One row for each attack and budget, as `EvaluationReport.summary` has them.

        Column `multiple` says which multiple of epsilon it is; natural episodes are its zero.
        """
        return pd.DataFrame(self.rows)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `summary`."""
        return [
            {"multiple": multiple, **row}
            for multiple, report in self.reports.items()
            for row in report.rows()
            if multiple == 0 or row["attack"] != Natural.name
        ]

    def episodes(self) -> pd.DataFrame:
        """Every episode under every attack with every budget; natural ones once."""
        frames = [
            report.episodes[(report.episodes["attack"] != Natural.name) | (multiple == 0)].assign(
                multiple=multiple
            )
            for multiple, report in self.reports.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def curve(self) -> pd.DataFrame:
        """The worst attack at each budget, from zero on; see `points`."""
        return pd.DataFrame(self.points)

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """The rows of `curve`.

        Each is the row of `summary` of the attack with the largest mean cost there, with `multiple`
        before it, and at its end `cost_cvar`, the mean cost of the worst tenth of its episodes, and
        `worst_case_cost` and `worst_case_violation_rate`, with each episode under the attack that
        harms it most.
        """
        points = []
        for multiple, report in self.reports.items():
            worst = report.worst_attack()
            row = next(row for row in report.rows() if row["attack"] == worst)
            costs = report.of_attack(worst)["cost"].to_numpy()
            worst_case = report.worst_case()
            points.append(
                {
                    "multiple": multiple,
                    **row,
                    # Of natural episodes, too: no budget made the others worse than these.
                    "epsilon": epsilon_cell(report.epsilon),
                    "cost_cvar": statistics.conditional_value_at_risk(costs),
                    "worst_case_cost": worst_case["cost_mean"],
                    "worst_case_violation_rate": worst_case["violation_rate"],
                }
            )
        return points

    def area(self) -> float:
        """Area under the curve of the worst attack's mean cost, from no budget to the largest.

        Over ε, or over multiples of it where coordinates have budgets of their own.
        """
        return statistics.area_under(self._positions(), self._costs())

    def mean_cost(self) -> float:
        """The area divided by its width: the worst attack's cost, averaged over budgets."""
        positions = self._positions()
        width = positions[-1] - positions[0]
        return self.area() / width if width else float(self._costs()[0])

    def largest_safe(self) -> float:
        """The largest multiple tried up to which the worst attack's mean cost keeps the limit.

        NaN if natural episodes break it already, or nobody knows a limit.
        """
        if self.plan.cost_limit is None:
            return math.nan
        return statistics.largest_within(
            np.array(list(self.reports)), self._costs(), self.plan.cost_limit
        )

    def gate_failures(self) -> list[str]:
        """What must hold and does not, see `gates`; empty if all is in order."""
        return [line for report in self.reports.values() for line in report.gate_failures()]

    def remarks(self) -> list[str]:
        """See `EvaluationReport.remarks`."""
        unit = " times the budget" if self.by_coordinate else ""
        # The same critics lead with all budgets.
        of_critics = self.reports[self.plan.budgets[-1]].remarks_on_critics()
        several = [
            f"At ε = {self.position(multiple):g}{unit}, {remark}"
            for multiple, report in self.reports.items()
            for remark in report.remarks()
            if remark not in of_critics
        ]
        return [*of_critics, *several]

    def certified(self) -> list[str]:
        """The certificates in sentences, see `EvaluationReport.certified`."""
        unit = " times the budget" if self.by_coordinate else ""
        certificates = {
            f"ε = {self.position(multiple):g}{unit}": report.certificate
            for multiple, report in self.reports.items()
            if report.certificate is not None
        }
        return in_words(certificates, cost_limit=self.plan.cost_limit)

    def _positions(self) -> NDArray[np.float64]:
        return np.array([self.position(multiple) for multiple in self.reports])

    def _costs(self) -> NDArray[np.float64]:
        return np.array([point["cost_mean"] for point in self.points])
