"""Offline SAFER trained once for several limits and budgets: told when it acts which ones hold.

Stage 1 is SAFER's, and done once. In stages 2 and 3 each limit and each share of the budget has an
E-step over episodes and a network of its own. What only attacks are worth grows with the share:
from what a policy does that nobody attacks (`UNATTACKED`) at 0 to the settings given at 1.

One network with limit and share as two more inputs was tried first, on Car-Circle. A limit hardly
acts as an input: it decides which paths are followed, not what is done on one, and the network
takes the mean. At the full budget that cost up to 8 % of the return (seven settings and seeds), and
took the worst cost from 2 to between 2 and 12.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safer_offline.errors import UsageError
from safer_offline.learners.safer.config import (
    AFTER_STAGE_1,
    ALTERNATIVES,
    UNATTACKED,
    SAFERConfig,
)
from safer_offline.learners.safer.imitation import Fitting, Imitation
from safer_offline.learners.safer.learner import SAFER
from safer_offline.learners.safer.offline_estep import (
    EStepAnswer,
    episode_estep,
    episode_sums,
    estep_report,
    recovery_estep,
)
from safer_offline.policies.actors import ActionBox
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.limit_and_budget import LimitAndBudgetPolicy


@dataclass(frozen=True, kw_only=True)
class SAFERConditionedConfig(SAFERConfig):
    """Settings of SAFER trained for several limits and budgets; those of SAFER and two more.

    `cost_limit` and `epsilon` are what the policy is told unless somebody tells it another.

    Attributes:
        limit_multiples: Limits to learn, in multiples of `cost_limit`; 1 is one of them.
        budget_shares: Shares of the budget to learn, the last of them 1. Each, with each limit,
            takes about as long as SAFER alone; 0 takes a fifth of that.
    """

    limit_multiples: tuple[float, ...] = (1.0,)
    budget_shares: tuple[float, ...] = (0.0, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.foretold:
            raise UsageError("foretold is for one limit and budget: use algorithm safer")
        multiples, shares = self.limit_multiples, self.budget_shares
        if not all(0 <= one < math.inf for one in multiples) or 1.0 not in multiples:
            raise UsageError(
                "limit_multiples must be finite, not negative, and hold 1, but are "
                f"{_listed(multiples)}"
            )
        rising = all(one < two for one, two in pairwise(shares))
        if not (shares and rising and shares[0] >= 0 and shares[-1] == 1):
            raise UsageError(
                "budget_shares must be different numbers from 0 to 1, the least first, that end "
                f"with 1, but are {_listed(shares)}"
            )


class SAFERConditioned(SAFER):
    """SAFER for several limits and budgets at once: told when it acts which ones hold.

    See `SAFER` for arguments and attributes.
    """

    name: ClassVar[str] = "safer-conditioned"
    Config: ClassVar[type[SAFERConditionedConfig]] = SAFERConditionedConfig
    alternatives: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        one for one in ALTERNATIVES if "foretold" not in one
    )
    bolder: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    after_stage_1: ClassVar[frozenset[str]] = AFTER_STAGE_1 | {"limit_multiples", "budget_shares"}
    config: SAFERConditionedConfig
    actor: LimitAndBudgetPolicy

    def build_actor(self, scale: Standardizer) -> LimitAndBudgetPolicy:
        """See `SAFER`."""
        limits, shares = limits_of(self.config), self.config.budget_shares
        actor = LimitAndBudgetPolicy(
            self.dataset.observation_size,
            ActionBox(self.dataset.action_low, self.dataset.action_high),
            hidden_sizes=self.config.hidden_sizes,
            limits=len(limits),
            shares=len(shares),
        )
        actor.standardize(scale)
        actor.limits.copy_(torch.tensor(limits))
        actor.shares.copy_(torch.tensor(shares))
        actor.full_budget.copy_(self.budget)
        actor.target_cost.fill_(self.config.cost_limit)
        return actor

    def solve_estep(self) -> tuple[EStepAnswer, dict[str, Tensor | float]]:
        """See `SAFER`; what is logged of episodes is for the limit and budget of the settings."""
        config, weights = self.config, []
        report: dict[str, Tensor | float] = {}
        sums = {
            share: episode_sums(
                self.dataset,
                cost_model=self.estimation.cost_model,
                reach=settings_at(config, share).margin * self.budget,
                generator=self._generator,
            )
            for share in config.budget_shares
        }
        for share, limit in conditions_of(config):
            given = (limit, share) == (config.cost_limit, 1)
            with warnings.catch_warnings():
                if not given:
                    # A limit that nobody asked for yet is no cause for alarm.
                    warnings.simplefilter("ignore")
                settings = settings_at(config, share, limit=limit)
                solved = episode_estep(self.dataset, settings, sums[share])
            weights.append(solved.weights[:, 0])
            if given:
                report = estep_report("episodes", solved)
        recoveries, of_recoveries = recovery_estep(
            self.dataset,
            config,
            self.estimation,
            costly=sums[1.0].costly,
            generator=self._generator,
        )
        # Of all conditions, in the place of those of one.
        answer = EStepAnswer(episode_weights=torch.stack(weights), **recoveries)
        return answer, report | of_recoveries

    def imitate(self, answer: EStepAnswer) -> Fitting:
        """See `SAFER`."""
        config, parts = self.config, {}
        for (share, limit), weights, network in zip(
            conditions_of(config), answer.episode_weights, self.actor.experts, strict=True
        ):
            assert isinstance(network, GaussianPolicy)
            given = (limit, share) == (config.cost_limit, 1)
            parts["" if given else f"_{share:g}_of_budget_{limit:g}"] = self.imitation_of(
                dataclasses.replace(answer, episode_weights=weights),
                network,
                config=settings_at(config, share, limit=limit),
                epsilon=share * self.budget,
            )
        return Imitations(answer, parts, actor=self.actor)


class Imitations:
    """The M-steps for all limits and shares of the budget: an update is one of each.

    Args:
        answer: Of the E-steps.
        parts: By what their losses are called, in the order of the actor's networks.
        actor: The policy network that they are parts of.
    """

    def __init__(
        self, answer: EStepAnswer, parts: Mapping[str, Imitation], *, actor: LimitAndBudgetPolicy
    ) -> None:
        self.answer, self.parts = answer, parts
        self._actor = actor

    @property
    def averaged_actor(self) -> LimitAndBudgetPolicy:
        """See `Fitting`."""
        kept = copy.deepcopy(self._actor)
        kept.experts = nn.ModuleList(part.averaged_actor for part in self.parts.values())
        return kept

    def update(self, step: int) -> dict[str, Tensor | float]:
        """See `Fitting`."""
        return {
            loss + name: value
            for name, part in self.parts.items()
            for loss, value in part.update(step).items()
        }

    def state_dict(self) -> dict[str, Any]:
        """See `Fitting`."""
        return {
            "answer": dict(vars(self.answer)),
            "parts": [part.progress() for part in self.parts.values()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Fitting`."""
        for part, place in zip(self.parts.values(), state["parts"], strict=True):
            part.load_state_dict(place)


def limits_of(config: SAFERConditionedConfig) -> list[float]:
    """The cost limits to learn, the least first."""
    return sorted({multiple * config.cost_limit for multiple in config.limit_multiples})


def conditions_of(config: SAFERConditionedConfig) -> list[tuple[float, float]]:
    """Shares of the budget and cost limits to learn: all limits of the first share, and so on."""
    return [(share, limit) for share in config.budget_shares for limit in limits_of(config)]


def settings_at(config: SAFERConfig, share: float, *, limit: float | None = None) -> SAFERConfig:
    """SAFER's settings for a cost limit, where attackers have a share of the budget.

    Margin and recovery grow with it, the former as a part of the full budget; where nobody attacks,
    nothing is attacked in training, and who is followed keeps the limit in each episode.
    """
    least = min(UNATTACKED["margin"], config.margin)
    return dataclasses.replace(
        config,
        cost_limit=config.cost_limit if limit is None else limit,
        margin=least + share * (config.margin - least),
        recovery_weight=share * config.recovery_weight,
        adversarial_weight=config.adversarial_weight if share else 0.0,
        limit_each_episode=config.limit_each_episode or share == 0,
    )


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{one:g}" for one in numbers) or "none"
