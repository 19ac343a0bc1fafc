"""`certify`: what no attack can do to the actions at the states that a policy visits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safer_offline.evaluation.certificates.bounds import Interval
from safer_offline.evaluation.certificates.measures import (
    Attacked,
    act,
    attacked,
    certified_actions,
    certified_cost,
    expected_cost,
)
from safer_offline.evaluation.certificates.networks import ActionNetwork, action_network
from safer_offline.evaluation.rollouts import EvaluatedPolicy
from safer_offline.learners.constrained import discounted_limit
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.trained import TrainedPolicy
from safer_offline.progress import progress_bar

STATES = 1000
"""Visited states that are looked at, drawn from all of them."""

ROUNDING = 1e-5
"""How far float32 may lead a policy out of bounds, as a share of the action's range, or of a cost
and its deviation; what goes further is an error."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far the action is moved, as a share of its range, in the coordinate moved furthest.

    Attributes:
        mean: Over states.
        worst: The largest at any state.
        by_coordinate: Mean over states of each coordinate of the action.
    """

    mean: float
    worst: float
    by_coordinate: tuple[float, ...]

    @classmethod
    def of(cls, moved: Tensor) -> Deviation:
        """That of shares (M, da)."""
        furthest = moved.amax(dim=1)
        return cls(
            mean=furthest.mean().item(),
            worst=furthest.max().item(),
            by_coordinate=tuple(moved.mean(dim=0).tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class ExpectedCost:
    """At how many states Q_c(s, a), at the true state, is within the limit.

    Q_c is the critic that the policy brings along: an estimate of the *discounted* cost from there
    on. A limit d of an episode of T steps is in this unit what a cost of d / T a step comes to.

    Attributes:
        limit: The limit, in that unit.
        discount: Of a step.
        natural: Share of the states where the action without attack keeps it.
        found: Share where the worst action that attacks found does; never less than certified.
        certified: Share where every action does that any attack within the budget can cause.
    """

    limit: float
    discount: float
    natural: float
    found: float
    certified: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is certain of single actions, whatever the attack; not of whole episodes.

    Attributes:
        states: How many visited states were looked at.
        refused: Why nothing is certified, in a few words; empty if something is.
        certified: How far any attack within the budget can move the action, at most.
        found: How far projected gradient ascent moves it.
        possible: How far any action at all would be: a certificate of this much says nothing.
        cost: What it means for the expected cost.
        cost_refused: Why nothing is said of that; empty if something is.
        failures: What must hold and does not; empty if all is in order.
    """

    states: int
    refused: str = ""
    certified: Deviation | None = None
    found: Deviation | None = None
    possible: Deviation | None = None
    cost: ExpectedCost | None = None
    cost_refused: str = ""
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON types; what is not known is null."""
        return dataclasses.asdict(self)


def certify(
    policy: EvaluatedPolicy,
    visited: Tensor,
    *,
    budget: Tensor,
    cost_limit: float | None,
    horizon: int | None,
    seed: int = 0,
    progress: bool = True,
) -> Certificate:
    """Bound the policy's actions over all observations within the budget of visited states.

    Args:
        policy: A policy of dense layers; of any other, the certificate says why there is none.
        visited: Observations of episodes without attack, raw units, (N, ds); `STATES` of them are
            drawn.
        budget: How far an attack may move each coordinate, raw units, (ds,).
        cost_limit: Largest allowed episode cost, undiscounted, if there is one.
        horizon: Steps of an episode, if they are known.
        seed: Of the draw, and of the attacks' starting points.
        progress: Show a progress bar if standard error is a terminal.
    """
    acting = action_network(policy)
    if isinstance(acting, str):
        return Certificate(states=0, refused=acting)
    drawn = torch.randperm(len(visited), generator=torch.Generator().manual_seed(seed))[:STATES]
    states = visited[drawn]
    limit = _limit_of_critic(policy, cost_limit, horizon)
    with progress_bar("certify", total=2 * len(states), enabled=progress) as bar:
        found = attacked(policy, states, budget, seed=seed)
        actions = certified_actions(acting, states, budget, done=bar.advance)
        cost, broken = None, _outside(actions, found, acting)
        if not isinstance(limit, str):
            assert isinstance(policy, TrainedPolicy)
            assert policy.cost_critic is not None
            # What float32 makes of an action belongs to it.
            spare = ROUNDING * (acting.high - acting.low)
            taken = Interval(actions.lower - spare, actions.upper + spare)
            worst = certified_cost(policy.cost_critic, states, taken, done=bar.advance)
            cost, beyond = _cost(policy, states, worst, found, limit)
            broken += beyond
    natural = act(policy, states).double()
    certified, moved, possible = (
        Deviation.of(_moved(natural, interval, acting))
        for interval in (
            actions,
            Interval(found.least, found.largest),
            Interval(acting.low.expand_as(natural), acting.high.expand_as(natural)),
        )
    )
    return Certificate(
        states=len(states),
        certified=certified,
        found=moved,
        possible=possible,
        cost=cost,
        cost_refused=limit if isinstance(limit, str) else "",
        failures=tuple(broken),
    )


def _moved(natural: Tensor, interval: Interval, acting: ActionNetwork) -> Tensor:
    """The largest distance of (M, da) from an interval's ends, as a share of the range."""
    furthest = torch.maximum(interval.upper - natural, natural - interval.lower)
    return furthest.clamp_min(0) / (acting.high - acting.low).clamp_min(1e-300)


def _limit_of_critic(
    policy: EvaluatedPolicy, cost_limit: float | None, horizon: int | None
) -> tuple[float, float] | str:
    """The limit in the unit of the policy's critic, and its discount; or why there is none."""
    if not isinstance(policy, TrainedPolicy) or policy.cost_critic is None:
        return "it has no critic of cost"
    if type(policy.cost_critic) is not CriticEnsemble:
        return f"its critic of cost is a {type(policy.cost_critic).__name__}, of a kind of its own"
    if cost_limit is None:
        return "nobody says what an episode may cost"
    settings: Mapping[str, Any] = policy.info.training.get("config", {})
    discount = settings.get("discount")
    if not isinstance(discount, int | float) or not 0 <= discount < 1:
        return "its file does not say by what its critic discounts"
    length = settings.get("episode_length") or horizon
    if not length:
        return "nobody says how long an episode is, by which the limit is discounted"
    # Critics look beyond a time limit unless they were told that it ends the episode.
    endless = not settings.get("timeouts_end", False)
    limit = discounted_limit(cost_limit, episode_length=length, discount=discount, endless=endless)
    return limit, discount


def _cost(
    policy: TrainedPolicy,
    states: Tensor,
    worst: Tensor,
    found: Attacked,
    limit: tuple[float, float],
) -> tuple[ExpectedCost, list[str]]:
    """Shares of the states within the limit, and what contradicts the bound `worst` (M,)."""
    assert found.cost is not None
    assert policy.cost_critic is not None
    largest, discount = limit
    natural = expected_cost(policy, states, act(policy, states))
    # What float32 sees within rounding of the bound is no more than the bound.
    within = [
        float((torch.minimum(values, worst) <= largest).double().mean())
        for values in (natural, found.cost, worst)
    ]
    shares = ExpectedCost(
        limit=largest, discount=discount, natural=within[0], found=within[1], certified=within[2]
    )
    allowed = ROUNDING * (policy.cost_critic.values.std.double() + found.cost.abs())
    beyond = int((found.cost > worst + allowed).sum())
    if not beyond:
        return shares, []
    return shares, [
        f"an attack leads to an expected cost above the certified one at {beyond} of "
        f"{len(states)} states: do not trust the certificate"
    ]


def _outside(actions: Interval, found: Attacked, acting: ActionNetwork) -> list[str]:
    """What contradicts the bounds of the actions: attacks that lead out of them."""
    allowed = ROUNDING * (acting.high - acting.low)
    out = (found.largest > actions.upper + allowed) | (found.least < actions.lower - allowed)
    if not (count := int(out.any(dim=1).sum())):
        return []
    return [
        f"an attack moves the action out of the certified bounds at {count} of {len(out)} states: "
        "do not trust the certificate"
    ]
