"""What an evaluation found: every episode under every attack, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.attacks import EpsilonUnits, Natural
from safer_offline.context import EnvironmentContext
from safer_offline.evaluation import statistics
from safer_offline.evaluation.certificates.certificate import Certificate
from safer_offline.evaluation.certificates.words import in_words
from safer_offline.evaluation.critics.quality import what_to_know
from safer_offline.evaluation.gates import zero_budget_is_natural
from safer_offline.evaluation.paths import EpisodePath
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.remarks import unfinished_learning, weaker_than_others
from safer_offline.evaluation.tables import print_as_text, report_table
from safer_offline.evaluation.task import describe_differences


class Summary(pd.DataFrame):
    """A data frame that prints as the table of the command line; see `EvaluationReport.summary`."""

    _metadata = ("_text",)
    _text: str

    def __str__(self) -> str:
        return self._text


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything that an evaluation found.

    Attributes:
        plan: What was evaluated: environment, budget, attacks, seed, limit.
        carried: The environment that the policy was trained for, as far as it tells.
        reward_range: Extreme returns of its dataset, which normalise; None where the dataset is of
            another task than the evaluation, or unknown.
        dsrl_range: Those of DSRL's dataset of the task, or None.
        attacks: Settings of each attack by its name, in the order of evaluation, with what they
            learned of their victim.
        episodes: Table of all episodes under all attacks, see `Rollouts.run`.
        searched: Those attacks that were found in whole episodes.
        paths: Steps of some episodes, where they were to be recorded.
        clip: An animated GIF of the worst of them, if that was to be filmed; or empty.
        certificate: What is certain of single actions, if that was asked for.
        failed_gates: In sentences: attacks whose gradients lead nowhere, see `gates`.
        critics: What is known of critics that were fitted to lead attacks, by the name of their
            source, see `FittedCritics.told`; `asked` says which of them were.
    """

    plan: EvaluationPlan
    carried: EnvironmentContext = field(default_factory=EnvironmentContext)
    reward_range: tuple[float, float] | None = None
    dsrl_range: tuple[float, float] | None = None
    attacks: dict[str, dict[str, Any]]
    episodes: pd.DataFrame = field(repr=False)
    searched: tuple[str, ...] = ()
    paths: tuple[EpisodePath, ...] = field(default=(), repr=False)
    clip: bytes = field(default=b"", repr=False)
    certificate: Certificate | None = None
    failed_gates: tuple[str, ...] = ()
    critics: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def env_id(self) -> str:
        """The environment."""
        return self.plan.context.env_id

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """Budget as the caller gave it: one number, or one for each coordinate."""
        return self.plan.epsilon

    @property
    def epsilon_units(self) -> EpsilonUnits:
        """What epsilon counts."""
        return self.plan.epsilon_units

    @property
    def seed(self) -> int:
        """Of episodes and attacks."""
        return self.plan.seed

    @property
    def cost_limit(self) -> float | None:
        """Largest allowed episode cost."""
        return self.plan.cost_limit

    @property
    def differences(self) -> str:
        """In what the environment is not the one that the policy was trained for; or empty."""
        return describe_differences(self.carried, self.plan.context)

    def __str__(self) -> str:
        return print_as_text(report_table(self))

    def summary(self) -> Summary:
        """One row for each attack, in the order of evaluation; it prints as the table on screen.

        `reward_low`, `reward_high`, `cost_low` and `cost_high` enclose the mean with 95 %
        confidence; they are NaN where all episodes have the same value, which is no evidence of a
        certain mean. `violation_low` and `violation_high` are exact bounds, each for itself with
        95 % confidence: 0 violations in 50 episodes leave 0.058. See `statistics`. What nobody
        knows (violations without a cost limit, scores without a reward range) is NaN.
        """
        summary = Summary(self.rows())
        summary._text = str(self)
        return summary

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `summary`."""
        rows = []
        for name in self.attacks:
            episodes = self.of_attack(name)
            rows.append(
                {
                    "attack": name,
                    "epsilon": 0.0 if name == Natural.name else epsilon_cell(self.epsilon),
                    "epsilon_units": self.epsilon_units,
                    **self._describe(episodes["reward"].to_numpy(), episodes["cost"].to_numpy()),
                    "length_mean": statistics.mean(episodes["length"].to_numpy()),
                    "budget_used": statistics.mean(episodes["budget_used"].to_numpy()),
                    "cost_limit": math.nan if self.cost_limit is None else self.cost_limit,
                    "seed": self.seed,
                    "env": self.env_id,
                }
            )
        return rows

    def worst_attack(self) -> str:
        """The attack with the largest mean cost; of several, the one with the least return."""
        worst = min(self.rows(), key=lambda row: (-row["cost_mean"], row["reward_mean"]))
        return str(worst["attack"])

    def worst_case(self) -> dict[str, float]:
        """The statistics of `summary` if every episode meets the attack that harms it most."""
        returns = np.stack([self.of_attack(name)["reward"].to_numpy() for name in self.attacks])
        costs = np.stack([self.of_attack(name)["cost"].to_numpy() for name in self.attacks])
        return self._describe(*statistics.worst_case(returns, costs))

    def gate_failures(self) -> list[str]:
        """What must hold and does not, see `gates`; empty if all is in order."""
        zero = [] if np.any(self.epsilon) else zero_budget_is_natural(self.episodes)
        failures = [*zero, *self.failed_gates]
        return [*failures, *(self.certificate.failures if self.certificate else ())]

    def remarks(self) -> list[str]:
        """What to know of attacks that were searched for, or led by fitted critics."""
        learning = [
            unfinished_learning(name, self.attacks[name].get("curve", ())) for name in self.searched
        ]
        return [
            *self.remarks_on_critics(),
            *weaker_than_others(self.episodes, self.searched),
            *filter(None, learning),
        ]

    def remarks_on_critics(self) -> list[str]:
        """What to know of critics that were fitted to lead attacks; see `quality`."""
        return [line for name, told in self.critics.items() for line in what_to_know(name, told)]

    def certified(self) -> list[str]:
        """The certificate in sentences; empty if none was asked for."""
        if self.certificate is None:
            return []
        return in_words({"": self.certificate}, cost_limit=self.cost_limit)

    def of_attack(self, name: str) -> pd.DataFrame:
        """The episodes under one attack, in order."""
        return self.episodes[self.episodes["attack"] == name]

    def _describe(self, returns: NDArray[Any], costs: NDArray[Any]) -> dict[str, float]:
        reward_low, reward_high = statistics.bootstrap_interval(returns)
        cost_low, cost_high = statistics.bootstrap_interval(costs)
        violation_rate = normalised_cost = math.nan
        violation_low = violation_high = math.nan
        normalised_reward = normalised_dsrl = math.nan
        if self.cost_limit is not None:
            violation_rate = statistics.violation_rate(costs, self.cost_limit)
            violation_low, violation_high = statistics.violation_bounds(costs, self.cost_limit)
            normalised_cost = statistics.mean(statistics.normalised_cost(costs, self.cost_limit))
        if self.reward_range is not None:
            normalised_reward = statistics.mean(
                statistics.normalised_return(returns, self.reward_range)
            )
        if self.dsrl_range is not None:
            normalised_dsrl = statistics.mean(
                statistics.normalised_return(returns, self.dsrl_range)
            )
        return {
            "episodes": len(returns),
            "reward_mean": statistics.mean(returns),
            "reward_std": statistics.std(returns),
            "reward_low": reward_low,
            "reward_high": reward_high,
            "cost_mean": statistics.mean(costs),
            "cost_std": statistics.std(costs),
            "cost_low": cost_low,
            "cost_high": cost_high,
            "violation_rate": violation_rate,
            "violation_low": violation_low,
            "violation_high": violation_high,
            "normalised_reward": normalised_reward,
            "normalised_reward_dsrl": normalised_dsrl,
            "normalised_cost": normalised_cost,
        }


def epsilon_cell(epsilon: float | tuple[float, ...]) -> float | str:
    """A budget in one cell of a table: a number, or one for each coordinate with blanks between."""
    return epsilon if isinstance(epsilon, float) else " ".join(map(str, epsilon))
