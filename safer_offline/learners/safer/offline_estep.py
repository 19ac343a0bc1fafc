"""The E-step on a fixed dataset: over whole episodes, and over candidate actions at its states.

Both are the same convex problem (`safer_offline.estep`). Over episodes everything is observed, and
q also repairs the distribution of states on which the constraint is averaged. But the episodes
that q favours never visit unsafe states, where an attack may lead; there the second one says what
to do, with critics, among actions that the data support.

Only states count in the M-step at which there is something to recover from: cost soon followed in
the data (`recovery_horizon`). Elsewhere what is asked, always less cost, only slows the policy
down. On Car-Circle a horizon of 30 steps returns 303 and 298, and all states 275 and 255, where one
episode in 16 stands still; the worst costs are 0.9 and 1.1, and 2.1 and 1.6. With 15 steps it is
306, at a worst cost of 8 (training seeds 0 and 1, 16 episodes of seed 7).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.estep import ESTEP_SOLVERS, EStepResult
from safer_offline.learners.margins import BLOCK_ROWS, CostModel, costs_within_margin
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.estimation import Estimation
from safer_offline.policies.behavior import BehaviorModel
from safer_offline.policies.critics import CriticEnsemble

NEARLY_ALL = 0.9
"""Where few episodes may be followed, the share of them to concentrate on: at 1, the KL limit is
zero and leaves no choice."""


@dataclass(frozen=True)
class EStepAnswer:
    """What the M-step fits: weights of episodes, and weighted candidate actions at some states.

    Attributes:
        episode_weights: q over episodes, shape (episodes,); (conditions, episodes) where it is
            solved under several (`conditioned`).
        rows: Transitions whose observations are the recovery states, shape (K,).
        candidates: Actions at these states, shape (N, K, da).
        candidate_weights: q over the candidates of each state, shape (N, K).
        endangered: At which of these states there is something to recover from, bool (K,).
    """

    episode_weights: Tensor
    rows: Tensor
    candidates: Tensor
    candidate_weights: Tensor
    endangered: Tensor


class EpisodeSums(NamedTuple):
    """What the E-step over episodes knows of them.

    Attributes:
        returns: Shape (episodes,).
        costs: What they would have cost within reach, shape (episodes,).
        costly: Which steps would have cost something, bool (N,).
    """

    returns: Tensor
    costs: Tensor
    costly: Tensor


def offline_estep(
    dataset: TransitionSource,
    config: SAFERConfig,
    estimation: Estimation,
    *,
    epsilon: Tensor,
    generator: torch.Generator,
) -> tuple[EStepAnswer, dict[str, Tensor | float]]:
    """Stage 2: solve both E-steps.

    Args:
        dataset: The data.
        config: Settings.
        estimation: What stage 1 found.
        epsilon: Budget of the attacks, raw units, shape (ds,); on the device of the networks.
        generator: For everything that is drawn.

    Returns:
        Their answer, on the CPU, and what is worth logging about them.
    """
    sums = episode_sums(
        dataset,
        cost_model=estimation.cost_model,
        reach=config.margin * epsilon,
        generator=generator,
    )
    episodes = episode_estep(dataset, config, sums)
    recoveries, report = recovery_estep(
        dataset, config, estimation, costly=sums.costly, generator=generator
    )
    answer = EStepAnswer(episode_weights=episodes.weights[:, 0], **recoveries)
    return answer, estep_report("episodes", episodes) | report


def recovery_estep(
    dataset: TransitionSource,
    config: SAFERConfig,
    estimation: Estimation,
    *,
    costly: Tensor,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], dict[str, Tensor | float]]:
    """The E-step over candidate actions, at states drawn from all of the data.

    Args:
        dataset: The data.
        config: Settings.
        estimation: What stage 1 found.
        costly: Which steps cost something within reach, bool (N,).
        generator: For everything that is drawn.

    Returns:
        `rows`, `candidates`, `candidate_weights` and `endangered` of an `EStepAnswer`, on the CPU,
        and what is worth logging.
    """
    rows, candidates = draw_candidates(dataset, config, estimation.behavior, generator=generator)
    chosen = candidate_estep(
        dataset,
        config,
        dataset.take(("observations",), rows)["observations"].to(candidates.device),
        candidates,
        reward_critic=estimation.reward_critic,
        cost_critic=estimation.cost_critic,
    )
    answer = {
        "rows": rows,
        "candidates": candidates.cpu(),
        "candidate_weights": chosen.weights.float().cpu(),
        "endangered": endangered_states(dataset, rows, costly, horizon=config.recovery_horizon),
    }
    return answer, estep_report("candidates", chosen)


def endangered_states(
    dataset: TransitionSource, rows: Tensor, costly: Tensor, *, horizon: int
) -> Tensor:
    """At which states cost followed soon: at this step of the data or one of the next ones.

    Args:
        dataset: Its episodes, which nothing follows the end of.
        rows: Transitions whose observations are the states, shape (K,).
        costly: Which transitions cost something, bool (N,).
        horizon: Steps, this one among them; 0 takes all states.

    Returns:
        Bool (K,). All of them where cost followed at none.
    """
    starts, lengths = (
        torch.tensor(dataset.episodes[name].to_numpy()) for name in ("start", "length")
    )
    last = (starts + lengths - 1)[torch.searchsorted(starts, rows, right=True) - 1]
    soon = torch.zeros(len(rows), dtype=torch.bool)
    for ahead in range(min(horizon, int(lengths.max()))):
        soon |= costly[torch.minimum(rows + ahead, last)]
    return soon if bool(soon.any()) else ~soon


def estep_report(which: str, result: EStepResult) -> dict[str, Tensor | float]:
    """What to log of an E-step."""
    return {
        f"{which}_eta": result.eta,
        f"{which}_lambda": result.lam,
        f"{which}_cost_limit": result.cost_limit,
        f"{which}_relaxed": float(result.status == "relaxed"),
        f"{which}_kkt_residual": result.kkt_residual,
        f"{which}_effective": float((1 / (result.weights.double() ** 2).sum(0)).mean()),
    }


def episode_estep(dataset: TransitionSource, config: SAFERConfig, sums: EpisodeSums) -> EStepResult:
    """Which episodes to follow: one state, whose actions are the episodes.

        max_q sum_i q_i R_i   s.t.   sum_i q_i C_i <= cost_limit,   KL(q || uniform) <= -log share

    with observed returns R and the costs C that the episodes would have had within reach. With
    `limit_each_episode` q is zero where the observed cost alone exceeds the limit, if any keeps it:
    where costs are all or nothing, q would else spend the limit on a few episodes that break it
    throughout.

    Args:
        dataset: The episodes.
        config: `cost_limit`, `limit_each_episode`, `episode_share`, `estep_solver`.
        sums: R and C, see `episode_sums`.

    Returns:
        The solution; its weights have shape (episodes, 1).
    """
    follow = _to_follow(dataset, config)
    # KL(q || uniform over all) is KL(q || uniform over those) + log(all / those).
    share = config.episode_share / float(follow.double().mean())
    share = min(share, max(config.episode_share, NEARLY_ALL))
    result = ESTEP_SOLVERS[config.estep_solver](
        sums.returns[follow][:, None],
        sums.costs[follow][:, None],
        cost_limit=config.cost_limit,
        kl_limit=-math.log(share),
    )
    weights = result.weights.new_zeros(len(follow), 1)
    weights[follow] = result.weights
    if result.status == "relaxed":
        warnings.warn(
            f"few episodes stay within a cost of {config.cost_limit:g} at a margin of "
            f"{config.margin:g}; the E-step over episodes allows {result.cost_limit:.4g}",
            stacklevel=2,
        )
    return dataclasses.replace(result, weights=weights)


def _to_follow(dataset: TransitionSource, config: SAFERConfig) -> Tensor:
    """Which episodes q may follow, bool (episodes,)."""
    costs = torch.tensor(dataset.episodes["cost"].to_numpy())
    if not config.limit_each_episode:
        return torch.ones(len(costs), dtype=torch.bool)
    follow = costs <= config.cost_limit
    return follow if bool(follow.any()) else ~follow


def episode_sums(
    dataset: TransitionSource,
    *,
    cost_model: CostModel,
    reach: Tensor,
    generator: torch.Generator,
) -> EpisodeSums:
    """Returns of the episodes, and their costs within reach.

    Args:
        dataset: The episodes.
        cost_model: Where cost is.
        reach: How far observations may be off, raw units, shape (ds,).
        generator: For the search within reach.
    """
    starts = torch.tensor(dataset.episodes["start"].to_numpy())
    returns, robust_costs = torch.zeros(2, dataset.num_episodes, dtype=torch.float64)
    costly = torch.empty(dataset.num_transitions, dtype=torch.bool)
    first = 0
    for rewards, worst in steps_within_reach(
        dataset, cost_model=cost_model, reach=reach, generator=generator
    ):
        rows = torch.arange(first, first + len(worst))
        episodes = torch.searchsorted(starts, rows, right=True) - 1
        returns.index_add_(0, episodes, rewards.double())
        robust_costs.index_add_(0, episodes, worst.double())
        costly[rows] = worst > 0
        first += len(rows)
    return EpisodeSums(returns, robust_costs, costly)


def steps_within_reach(
    dataset: TransitionSource,
    *,
    cost_model: CostModel,
    reach: Tensor,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rewards of the steps and their costs within reach, (n,) each, n at a time; see above."""
    costs = (block["costs"] for block in dataset.stream(("costs",)))
    costly = torch.cat([block[block > 0] for block in costs]).mean()
    names = ("next_observations", "rewards", "costs")
    for block in dataset.stream(names, rows=BLOCK_ROWS):
        worst = costs_within_margin(
            cost_model,
            block["next_observations"],
            block["costs"],
            reach=reach,
            generator=generator,
            costly=costly,
        )
        yield block["rewards"], worst


def draw_candidates(
    dataset: TransitionSource,
    config: SAFERConfig,
    behavior: BehaviorModel,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """States from all of the data, and actions that the data support there.

    Returns:
        Rows of the dataset, shape (K,), and candidate actions, shape (N, K, da): the dataset's own
        and samples of the behaviour model, on whose device they are.
    """
    rows = torch.randint(dataset.num_transitions, (config.recovery_states,), generator=generator)
    device = behavior.box.centre.device
    taken = dataset.take(("observations", "actions"), rows)
    drawn = {name: part.to(device) for name, part in taken.items()}
    samples = behavior.sample(drawn["observations"], config.candidates - 1, generator=generator)
    return rows, torch.cat([drawn["actions"][None], samples])


@torch.no_grad()
def candidate_estep(
    dataset: TransitionSource,
    config: SAFERConfig,
    observations: Tensor,
    candidates: Tensor,
    *,
    reward_critic: CriticEnsemble,
    cost_critic: CriticEnsemble,
) -> EStepResult:
    """Which candidate actions to take: the paper's E-step, over all the states at once.

    At many of these states no action keeps the limit. The budget is then relaxed to (almost) the
    least cost within the KL limit, which makes this a step towards safety.

    Args:
        dataset: Its mean episode length translates the limit.
        config: `cost_limit`, `candidate_kl`, `cost_deviations`, `discount`, `estep_solver`.
        observations: States, raw units, shape (K, ds).
        candidates: Actions, shape (N, K, da).
        reward_critic: Value of actions.
        cost_critic: Cost of actions; so many deviations above its mean are used.

    Returns:
        The solution; its weights have shape (N, K).
    """
    q_reward = torch.stack([reward_critic.mean(observations, a) for a in candidates])
    q_cost = torch.stack(
        [cost_critic.upper(observations, a, deviations=config.cost_deviations) for a in candidates]
    )
    # The critics continue a cut episode at its own rate for ever (`discounted_to_go`). At that
    # rate a limit d for an episode of T steps means d / (T (1 - discount)).
    length = dataset.num_transitions / dataset.num_episodes
    return ESTEP_SOLVERS[config.estep_solver](
        q_reward,
        q_cost,
        cost_limit=config.cost_limit / (length * (1 - config.discount)),
        kl_limit=config.candidate_kl,
    )


def information(weights: Tensor) -> Tensor:
    """KL(q || uniform) of each state, shape (K,), for q of shape (actions N, states K).

    How much the E-step has to say at a state: nothing where all candidates are as good.
    """
    terms: Tensor = torch.special.xlogy(weights, weights * len(weights))
    return terms.sum(0).clamp_min(0)
