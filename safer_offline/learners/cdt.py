"""The Constrained Decision Transformer: imitation of whole sequences, told what they earn and cost.

A causal transformer learns which action followed a history, given what was earned and what it cost
from there on. Told a large return and a small cost, it acts as if it were about to have these. Liu
et al., "Constrained Decision Transformer for Offline Safe Reinforcement Learning", ICML 2023; as in
OSRL's code, which has a loss on the next cost that the paper does not have. Differences, each a
setting or a matter of course:

* Observations are standardised (`standardize`), and actions are counted in half action ranges.
* The network and the batch are smaller than OSRL's (128 numbers, 3 layers, 8 heads; 2048 sequences
  for 100,000 steps), so that a processor trains it in minutes.
* There is no augmentation of episodes towards the frontier of cost and return, `augment_percent`.
* A step costs or does not: the classifier of costs knows no more, whatever the amounts are.
* What OSRL's own configurations leave off is not there (`cost_prefix`, `loss_state_weight`, ...).

Nothing bootstraps here, so it makes no difference whether an episode ended or ran out of time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.attacks import GeneratorNoise, attack_budget
from safer_offline.datasets.dataset.access import Transitions
from safer_offline.datasets.dataset.sequences import (
    SequenceTable,
    steps_since_start,
    still_to_come,
)
from safer_offline.errors import DataError, UsageError
from safer_offline.learners.constrained import require_positive
from safer_offline.learners.robust import (
    FITS,
    ActorTarget,
    Adversary,
    Distribution,
    RobustConfig,
    robust_term,
)
from safer_offline.learners.selection import Weighting, sample_by_episode
from safer_offline.learners.simple import SimpleLearner
from safer_offline.policies.trained import TrainedPolicy
from safer_offline.policies.transformer import SequencePolicy, initialize

PIECE_SEQUENCES = 64
"""Sequences of a batch that are computed together: their activations stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class CDTConfig(RobustConfig):
    """Settings of the Constrained Decision Transformer (Liu et al., ICML 2023).

    The policy acts by what its episode held before: `episode = policy.begin()`. What it aims at can
    be changed later: `policy.aimed_at(target_return=300, target_cost=5)`.

    Attributes:
        cost_limit: Largest cost of an episode; what to aim at if `target_cost` does not say.
        target_return: Return that the policy aims at; none takes the best of the episodes that cost
            no more than `target_cost`.
        target_cost: Cost that the policy aims at; none takes the limit, or the largest cost in the
            data if that is less.
        sequence_length: Steps that the policy looks back, the present one included.
        embedding_size: Numbers in a token (OSRL: 128).
        layers: Blocks of the transformer (OSRL: 3).
        heads: Of their attention (OSRL: 8).
        dropout: Share of numbers dropped in training, also of attention.
        episode_length: Steps that have an embedding of their time; none takes the longest episode.
        stochastic: Learn the deviation of the actions, by likelihood; else the squared error.
        initial_temperature: Weight of the entropy at first; it is fitted so that the entropy
            becomes minus the size of an action.
        temperature_rate: Learning rate of that.
        reward_scale: Unit of the returns that the network sees.
        cost_origin: The cost to come that the network sees as 0.
        standardize: Whether the network sees standardised observations (OSRL: raw ones).
        cost_loss_weight: Weight of predicting whether the step costs (OSRL; not in the paper).
        weighting: How often an episode is drawn, see `bc`; `cost` is OSRL's.
        cost_cap: For `weighting=cost`, the cost from which on an episode is not drawn.
        batch_size: Sequences of a batch (OSRL: 2048).
        learning_rate: Of AdamW, after the warm-up (OSRL: 1e-4, for its many steps).
        weight_decay: Of AdamW.
        warmup_steps: Steps over which the learning rate grows.
        max_norm: Largest norm of a gradient; what is above is cut.
    """

    cost_limit: float = 10.0
    target_return: float | None = None
    target_cost: float | None = None
    sequence_length: int = 10
    embedding_size: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    episode_length: int | None = None
    stochastic: bool = True
    initial_temperature: float = 0.1
    temperature_rate: float = 1e-4
    reward_scale: float = 0.1
    cost_origin: float = 50.0
    standardize: bool = True
    cost_loss_weight: float = 0.02
    weighting: Weighting = "cost"
    cost_cap: float = 70.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    max_norm: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = (
            "sequence_length", "embedding_size", "layers", "heads", "initial_temperature",
            "reward_scale", "cost_cap", "batch_size", "learning_rate", "warmup_steps", "max_norm",
        )  # fmt: skip
        require_positive(self, *positive)
        if self.episode_length is not None:
            require_positive(self, "episode_length")
        for name in ("cost_limit", "temperature_rate", "cost_loss_weight", "weight_decay"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise UsageError(f"{name} must be >= 0 and finite, but is {value}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and below 1, but is {self.dropout}")
        if self.embedding_size % self.heads:
            raise UsageError(
                f"embedding_size ({self.embedding_size}) must be a multiple of heads ({self.heads})"
            )


class CDT(SimpleLearner[CDTConfig]):
    """Constrained Decision Transformer: acts by its history and what is left to earn and cost."""

    name: ClassVar[str] = "cdt"
    Config = CDTConfig

    def build(self) -> None:
        """See `SimpleLearner`."""
        config, data = self.config, self.dataset
        longest = int(data.episodes["length"].max())
        if config.sequence_length > longest:
            raise DataError(
                f"sequences of {config.sequence_length} steps are longer than every episode",
                path=data.path,
                remedy=f"the longest has {longest} steps: --set sequence_length={longest}, or less",
            )
        self.actor = SequencePolicy(
            data.observation_size,
            copy.deepcopy(self.box),
            embedding_size=config.embedding_size,
            layers=config.layers,
            heads=config.heads,
            sequence_length=config.sequence_length,
            episode_length=config.episode_length or longest,
            reward_scale=config.reward_scale,
            cost_origin=config.cost_origin,
            stochastic=config.stochastic,
        )
        if config.standardize:
            self.standardize(self.actor.observations)
        target_return, target_cost = choose_targets(config, data.episodes, path=data.path)
        self.actor.target_return.fill_(target_return)
        self.actor.target_cost.fill_(target_cost)

        self.next_cost = nn.Linear(config.embedding_size, 2)
        initialize(self.next_cost)
        self.optimizer = torch.optim.AdamW(
            [*self.actor.parameters(), *self.next_cost.parameters()],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(config.initial_temperature)), requires_grad=False
        )
        self.temperature_optimizer = torch.optim.Adam(
            [self.log_temperature], lr=config.temperature_rate
        )
        rows = data.table(("observations", "actions", "costs"), _columns)
        self.batches = sample_by_episode(
            data,
            SequenceTable(rows, config.sequence_length),
            weighting=config.weighting,
            cost_cap=config.cost_cap,
            batch_size=config.batch_size,
            seed=self.seed,
        )
        self._adversary = Adversary(
            config,
            budget=attack_budget(
                config.epsilon, self.actor.observations.std, units=config.epsilon_units
            ).repeat(config.sequence_length),
            noise=GeneratorNoise(self.generator),
        )

    def learn(self) -> dict[str, Tensor | float]:
        """See `SimpleLearner`."""
        config, batch = self.config, self.batches.sample()
        batch["steps"] = batch["steps"].long()
        first = batch["steps"][:, :1]
        # Behind the end of an episode follows another, or nothing.
        ages = torch.arange(config.sequence_length, device=self.device)
        batch["held"] = batch["steps"] == first + ages
        total = batch["held"].sum()
        self.optimizer.zero_grad(set_to_none=True)
        pieces = zip(*(torch.split(part, PIECE_SEQUENCES) for part in batch.values()), strict=True)
        losses: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=(), enabled=config.dropout > 0):
            if config.dropout:
                torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            for piece in pieces:
                parts = self._losses(dict(zip(batch, piece, strict=True)), total=total)
                parts["policy"].backward()  # type: ignore[no-untyped-call]
                for name, part in parts.items():
                    losses[name] = losses.get(name, torch.zeros(())) + part.detach()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1, (self.step + 1) / config.warmup_steps)
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], config.max_norm)
        self.optimizer.step()
        if config.stochastic:
            self._fit_temperature(losses["entropy"])
        if config.adversarial_weight:
            return {**losses, "epsilon_ramp": self._adversary.ramp(self.step / self.steps)}
        return {**losses}

    def _losses(self, piece: Mapping[str, Tensor], *, total: Tensor) -> dict[str, Tensor]:
        """Shares in the losses of the batch, which has `total` steps."""
        config, actor, held = self.config, self.actor, piece["held"]
        fit = FITS["nll" if config.stochastic else "mse"]
        # OSRL takes the mean over what is behind an episode, too, but for the likelihood.
        padded = config.batch_size * config.sequence_length
        actions = self.box.units(piece["actions"])[held]
        unit = total * actions.shape[-1] if config.stochastic else padded

        features = actor.features(piece, drop=config.dropout)
        clean = actor.heads_of(features[:, :, 0][held])
        losses = {fit.name: fit.loss(actions, *clean).sum() / unit}
        loss = losses[fit.name]
        if config.stochastic:
            losses["entropy"] = gaussian_entropy(clean[1]).sum() / unit
            loss = loss - self.log_temperature.exp() * losses["entropy"]
        if config.cost_loss_weight:
            costly = (piece["costs"][held] > 0).long()
            guess = self.next_cost(features[:, :, 1][held])
            losses["cost"] = functional.cross_entropy(guess, costly, reduction="sum") / padded
            loss = loss + config.cost_loss_weight * losses["cost"]
        if config.adversarial_weight:
            attacked = actor.heads_of(self._attacked(piece)[:, :, 0][held])
            term = robust_term(config.robustness, actions, clean=clean, attacked=attacked, fit=fit)
            losses[f"{fit.name}_attacked"] = term.sum() / unit
            loss = loss + config.adversarial_weight * losses[f"{fit.name}_attacked"]
        return {"policy": loss, **losses}

    def _attacked(self, piece: Mapping[str, Tensor]) -> Tensor:
        """Features of the sequences whose observations an adversary shows otherwise."""
        shown = self._adversary.attack(
            Sequences(self.actor, piece),
            piece["observations"].flatten(1),
            done=self.step / self.steps,
        )
        window = {**piece, "observations": shown.view_as(piece["observations"])}
        return self.actor.features(window, drop=self.config.dropout)

    def _fit_temperature(self, entropy: Tensor) -> None:
        """Raise the weight of the entropy where that is below minus the size of an action."""
        excess = entropy + self.dataset.action_size
        self.log_temperature.grad = self.log_temperature.exp() * excess
        self.temperature_optimizer.step()

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(self.actor)


class Sequences(ActorTarget):
    """Sequences of K steps as an attack sees them: all observations of one are one observation.

    An attack then moves them together, as an adversary does who was there from the first step on.

    Args:
        actor: The victim.
        window: The B sequences, see `SequencePolicy.features`, and which of their steps are `held`.
    """

    def __init__(self, actor: SequencePolicy, window: Mapping[str, Tensor]) -> None:
        super().__init__(self._distribution)
        self._actor = actor
        self._window = window

    def rows(self, rows: Tensor | slice) -> Sequences:
        """Some of the sequences; see `rows_of`."""
        return Sequences(self._actor, {name: part[rows] for name, part in self._window.items()})

    def _distribution(self, observations: Tensor) -> Distribution:
        """Of all actions of a sequence, twice (B, K * da); the same for what is behind its end."""
        copies = len(observations) // len(self._window["held"])
        window = {
            name: part.repeat(copies, *[1] * (part.ndim - 1)) for name, part in self._window.items()
        }
        shown = observations.view_as(window["observations"])
        features = self._actor.features({**window, "observations": shown})
        held = window["held"][..., None]
        mean, std = self._actor.heads_of(features[:, :, 0])
        return torch.where(held, mean, 0.0).flatten(1), torch.where(held, std, 1.0).flatten(1)


def choose_targets(
    config: CDTConfig, episodes: pd.DataFrame, *, path: Path | None
) -> tuple[float, float]:
    """Return and cost to aim at: what the settings say, or the best in the data at the limit.

    Args:
        config: Settings.
        episodes: Table of the episodes, with `return` and `cost`.
        path: Of the data, for messages.

    Raises:
        DataError: If one of them is outside of what the episodes have.
    """
    costs, returns = episodes["cost"].to_numpy(float), episodes["return"].to_numpy(float)
    limit = config.cost_limit
    target_cost = min(limit, costs.max()) if config.target_cost is None else config.target_cost
    option = "--cost-limit " if config.target_cost is None else "--set target_cost="
    if not costs.min() <= target_cost <= costs.max():
        nearest = costs.min() if target_cost < costs.min() else costs.max()
        raise DataError(
            f"no episode shows how to act for a cost of {target_cost:g}: they cost "
            f"{costs.min():g} to {costs.max():g}",
            path=path,
            field="costs",
            remedy=f"aim at what the data have: {option}{nearest:g}",
        )
    best = float(returns[costs <= target_cost].max())
    target_return = best if config.target_return is None else config.target_return
    if not returns.min() <= target_return <= returns.max():
        raise DataError(
            f"no episode shows how to act for a return of {target_return:g}: they return "
            f"{returns.min():g} to {returns.max():g}",
            path=path,
            field="rewards",
            remedy=f"leave target_return out, for {best:g}: the best at a cost of at most "
            f"{target_cost:g}",
        )
    return target_return, target_cost


def gaussian_entropy(std: Tensor) -> Tensor:
    """Entropy of each coordinate of a Gaussian; the shape is that of the deviations."""
    return std.log() + 0.5 * math.log(2 * math.pi * math.e)


def _columns(block: Transitions) -> Mapping[str, Tensor]:
    ends = block.terminals | block.timeouts
    return {
        "returns_to_come": still_to_come(block.rewards, ends),
        "costs_to_come": still_to_come(block.costs, ends),
        "steps": steps_since_start(ends),
    }
