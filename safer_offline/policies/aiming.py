"""Telling a policy the limit and the budget that hold, as far as it can be told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

from torch import Tensor

from safer_offline.policies.conditioned import ToldPolicy
from safer_offline.policies.limit_and_budget import ROUNDING, LimitAndBudgetPolicy
from safer_offline.policies.trained import TrainedPolicy

UNUSUAL = 4.0
"""Standard deviations from the mean of what it was told while it learned: hardly any of that."""


def tell(
    policy: TrainedPolicy,
    targets: Mapping[str, float] | None = None,
    *,
    cost_limit: float | None = None,
    budget: Tensor | None = None,
) -> TrainedPolicy:
    """The same policy, told what it is asked to keep and to withstand.

    Args:
        policy: A policy; one that can be told neither stays as it is.
        targets: What to tell it whatever else is given, see `TrainedPolicy.aimed_at`.
        cost_limit: Largest cost of an episode; None leaves it what it was told before.
        budget: Of the attacks, raw units, shape (ds,); None leaves that.

    Raises:
        UsageError: If `targets` holds what it cannot be told.
    """
    actor, told = policy.actor, dict[str, float]()
    if cost_limit is not None and "target_cost" in actor.targets:
        told["target_cost"] = cost_limit
    if budget is not None and isinstance(actor, LimitAndBudgetPolicy):
        share = actor.share_of(budget)
        told["budget_share"] = min(share, 1.0)
        if share > 1 + ROUNDING and "budget_share" not in (targets or {}):
            warnings.warn(
                f"this budget is {share:.3g} times the largest that the policy learned to "
                "withstand; it acts as if told that one",
                stacklevel=2,
            )
    told |= targets or {}
    if isinstance(actor, LimitAndBudgetPolicy):
        limit, least = told.get("target_cost", math.inf), float(actor.limits[0])
        if limit < least * (1 - ROUNDING):
            warnings.warn(
                f"a limit of {limit:g} is below the least that the policy learned to keep; it acts "
                f"as if told that one, {least:g}",
                stacklevel=2,
            )
    if isinstance(actor, ToldPolicy):
        for name in (one for one in actor.targets if one in told):
            mean, deviation = actor.usually_told(name)
            away = abs(told[name] - mean) / deviation
            if away > UNUSUAL:
                warnings.warn(
                    f"{name} {told[name]:g} is {away:.0f} standard deviations from what this "
                    f"policy was told while it learned ({mean:.3g} ± {deviation:.2g}): what it "
                    "does then is a guess",
                    stacklevel=2,
                )
    return policy.aimed_at(**told)
