"""Stage 3 of offline SAFER for what must be steered all the time: imitate what each driver meant.

Who imitates several drivers at once learns from them what they have in common with what they do,
not why they do it. On Drone-Run each keeps a speed of its own, so a clone of all of them learns
that the speed it has is the one that is wanted: shown one that is too high, the drivers brake and
the clone speeds up. And whoever explores with noise that lasts for some steps leaves its traces in
the state, so a clone takes a turning drone for a reason to turn on. Unattacked neither shows. A
constant offset of a quarter of the budget, on one coordinate, is then enough: nothing brings the
drone back. Three things undo this, and all come from the data alone:

1. *It is told what followed.* Mean reward and mean cost, within the margin, of a window of steps
   ahead say what a driver was about: at the same speed, who will be slower soon is braking. The
   policy learns from all of the data and acts as the episodes that the E-step chose: told the
   reward of the faster among them (`AIM`) and no cost.
2. *What is left over is carried on.* a_t = pi(s_t) + n_t with n_t = rho n_{t-1} + white noise: the
   noise of a step is explained by that of the step before, so the state need not explain it. This
   is the likelihood of a regression with autoregressive errors (Cochrane and Orcutt, "Application
   of Least Squares Regression to Relationships Containing Auto-Correlated Error Terms", JASA 1949).
   rho is fitted, one number an action coordinate; who acts adds no noise.
3. *What is corrected counts.* Nearly all steps are steady, and say little about what to do when
   something is wrong. Steps whose reward is unlike what follows, where a driver is correcting, are
   drawn more often. On Drone-Run this took the worst cost under attack of the full budget from 145
   to 95, the mean of three training seeds; on Drone-Circle it is worth nothing.

No attack is made in training. Under noise or attacks the gains that a drone hangs on fall.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from safer_offline.datasets.dataset.access import BLOCK_ROWS, Columns, TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.offline_estep import EStepAnswer
from safer_offline.learners.safer.schedule import learning_rate, set_learning_rate
from safer_offline.policies.foretold import ForetoldPolicy
from safer_offline.policies.gaussian import gaussian_nll
from safer_offline.policies.layers import Standardizer, gradient_step, polyak_update

AIM = 0.9
"""Share of the steps followed whose reward ahead is at most what the policy is told when it acts.
All of them keep clear of cost, so the faster ones may be followed. On Drone-Run the median, 0.5,
returns 305, this 350, and half of the budget costs either nothing (16 episodes of seed 7); at three
quarters, which no attack but a constant offset broke, it costs 29 in place of 2. `evaluate --aim`
tells another."""
MOST_UNLIKE = 6.0
"""Times the median by which a step may count as unlike what follows it: else crashes are drawn."""


class ForetoldImitation:
    """A policy, and all of the data that it is fitted to.

    Args:
        config: Settings; `foretold` says which steps ahead.
        dataset: What to learn from.
        answer: Of the E-step: whom to act like.
        signals: Reward of each step, and its cost within the margin, shape (N, 2).
        actor: The policy network to fit; its observations are standardised already.
        steps: Updates of this stage.
        seed: Of the batches.

    Attributes:
        answer: As given.
        averaged_actor: The policy to keep: an exponential average of the fitted one.
        rows: Draws steps and those before them; as many as the robust M-step, two batches. More
            often those where something is corrected (`correction_weight`).
        carried: rho, shape (da,); zero where the settings say so (`carry_noise`).
    """

    def __init__(
        self,
        config: SAFERConfig,
        dataset: TransitionSource,
        answer: EStepAnswer,
        *,
        signals: Tensor,
        actor: ForetoldPolicy,
        steps: int,
        seed: int,
    ) -> None:
        self.answer = answer
        self._config, self._steps, self._actor = config, steps, actor
        starts, lengths = (
            torch.tensor(dataset.episodes[name].to_numpy()) for name in ("start", "length")
        )
        first, last = config.foretold
        ahead, known = what_follows(signals, starts, lengths, first=first, last=last)
        table = StepsInPairs(dataset, ahead, rows=known, firsts=starts)
        actor.standardize_told(Standardizer(2).fit(ahead[known]))
        chosen = (answer.episode_weights / lengths).repeat_interleave(lengths)
        reward, cost = whom_to_act_like(ahead[known], chosen[known])
        actor.reward_ahead.fill_(reward)
        actor.cost_ahead.fill_(cost)
        self.averaged_actor = copy.deepcopy(actor)
        self.carried = nn.Parameter(
            torch.zeros_like(actor.box.centre), requires_grad=config.carry_noise
        )
        self._optimizer = torch.optim.Adam(
            [*actor.parameters(), self.carried], lr=config.learning_rate
        )
        unlike = corrections(signals[known, 0], ahead[known, 0])
        self.rows = TransitionSampler(
            table,
            batch_size=2 * config.batch_size,
            seed=seed + 1,
            weights=1 + config.correction_weight * unlike.double(),
        )

    def update(self, step: int) -> dict[str, Tensor | float]:
        """Fit policy and rho to the next batch.

        Args:
            step: Updates of this stage done so far.

        Returns:
            The loss, and the mean of rho.
        """
        config, done, batch = self._config, step / self._steps, self.rows.sample()
        mean, std = self._actor.when_told(
            torch.cat([batch["observations"], batch["observations_before"]]),
            torch.cat([batch["ahead"], batch["ahead_before"]]),
        )
        (now, before), (deviation, _) = mean.chunk(2), std.chunk(2)
        left_over = batch["follows"][:, None] * (batch["actions_before"] - before)
        loss = gaussian_nll(batch["actions"], now + self.carried * left_over, deviation).mean()
        set_learning_rate(self._optimizer, learning_rate(config.learning_rate, done))
        gradient_step(self._optimizer, loss, max_norm=10.0)
        polyak_update(self.averaged_actor, self._actor, config.averaging_rate)
        return {"policy": loss.detach(), "carried": self.carried.detach().mean()}

    def state_dict(self) -> dict[str, Any]:
        """See `Fitting`."""
        return {
            "answer": dict(vars(self.answer)),
            "averaged_actor": self.averaged_actor.state_dict(),
            "carried": self.carried.detach(),
            "optimizer": self._optimizer.state_dict(),
            "rows": self.rows.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Fitting`."""
        self.averaged_actor.load_state_dict(state["averaged_actor"])
        with torch.no_grad():
            self.carried.copy_(state["carried"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.rows.load_state_dict(state["rows"])


class StepsInPairs:
    """Steps, each with the one before it in its episode: a `Table` for a sampler.

    Args:
        dataset: The steps.
        ahead: What follows each, shape (N, k).
        rows: Steps to draw from, int (K,).
        firsts: First steps of the episodes, (E,), before which there is none.
    """

    def __init__(
        self, dataset: TransitionSource, ahead: Tensor, *, rows: Tensor, firsts: Tensor
    ) -> None:
        self._steps = dataset.table(("observations", "actions"))
        self._ahead, self._rows = ahead, rows.int()
        self._follows = torch.ones(len(ahead), dtype=torch.bool)
        self._follows[firsts] = False

    @property
    def num_rows(self) -> int:
        """K."""
        return len(self._rows)

    @property
    def rows_at_once(self) -> int:
        """See `Table`."""
        return self._steps.rows_at_once

    def take(self, rows: Tensor) -> Columns:
        """The columns of each step, and those of the step before by names that end with `_before`.

        `follows` is 1 where there is one; else it is the step itself.
        """
        at = self._rows[rows].long()
        follows = self._follows[at]
        both = torch.cat([at, at - follows.long()])
        columns = {**self._steps.take(both), "ahead": self._ahead[both]}
        pairs = {name: column.chunk(2) for name, column in columns.items()}
        return {
            **{name: now for name, (now, _) in pairs.items()},
            **{f"{name}_before": before for name, (_, before) in pairs.items()},
            "follows": follows.float(),
        }

    def stream(self) -> Iterator[Columns]:
        """See `Table`."""
        for start in range(0, self.num_rows, BLOCK_ROWS):
            yield self.take(torch.arange(start, min(start + BLOCK_ROWS, self.num_rows)))


def what_follows(
    signals: Tensor, starts: Tensor, lengths: Tensor, *, first: int, last: int
) -> tuple[Tensor, Tensor]:
    """Means of signals over steps t + first to t + last - 1, where episodes are that long.

    Args:
        signals: Of all steps, shape (N, k).
        starts: First steps of the episodes, shape (E,).
        lengths: Steps of the episodes, shape (E,).
        first: Where the window begins.
        last: Where it ends.

    Returns:
        The means, shape (N, k), of what is left of the window, at least of an episode's last step;
        and the steps from which at least half of it is left, or all steps if it is so for none.
    """
    sums = torch.cat([signals.new_zeros(1, signals.shape[1]).double(), signals.double().cumsum(0)])
    ends = (starts + lengths).repeat_interleave(lengths)
    steps = torch.arange(len(signals))
    begin = torch.minimum(steps + first, ends - 1)
    end = torch.minimum(steps + last, ends).maximum(begin + 1)
    means = (sums[end] - sums[begin]) / (end - begin)[:, None]
    known = (steps + (first + last) / 2 <= ends).nonzero()[:, 0]
    return means.float(), known if len(known) else steps


def corrections(rewards: Tensor, ahead: Tensor) -> Tensor:
    """How unlike the rewards of steps are to what follows them: what is steady is not corrected.

    Args:
        rewards: Of the steps, shape (K,).
        ahead: Mean reward of what follows each, shape (K,).

    Returns:
        Their distance in units of its median, at most `MOST_UNLIKE`, shape (K,). Where most are
        alike to the last digit the unit is the mean, and where all are, it is zero throughout.
    """
    unlike = (rewards - ahead).abs()
    unit = unlike.median()
    unit = unit if bool(unit > 0) else unlike.mean()
    return (unlike / unit.clamp_min(torch.finfo(unlike.dtype).tiny)).clamp_max(MOST_UNLIKE)


def whom_to_act_like(ahead: Tensor, weights: Tensor) -> tuple[float, float]:
    """What to tell the policy when it acts: what those who are followed had ahead of them.

    Args:
        ahead: Reward and cost ahead of each step, shape (K, 2).
        weights: How much each is followed, shape (K,).

    Returns:
        The least cost, and of the steps that have it the weighted quantile `AIM` of the reward: of
        a mean, the start of an episode would take a part. First the reward, then the cost.
    """
    if not bool((weights > 0).any()):
        weights = torch.ones_like(weights)
    cost = float(ahead[weights > 0, 1].min())
    kept = (weights > 0) & (ahead[:, 1] <= cost)
    rewards, order = ahead[kept, 0].sort(stable=True)
    share = weights[kept][order].double().cumsum(0)
    told = int(torch.searchsorted(share, AIM * share[-1:]))
    return float(rewards[told]), cost
