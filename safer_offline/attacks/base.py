"""What an observation attack is, and the projected gradient ascent that most attacks share.

The adversary sees the true observations s and shows the policy others, s_hat, with
|s_hat_j - s_j| <= epsilon_j. All quantities are in raw observation units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import cycle, islice
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from safer_offline.attacks.budget import Box
from safer_offline.attacks.noise import NoiseSource
from safer_offline.errors import UsageError

Start = Literal["random", "zero", "corner"]

TRAVEL = 2.5
"""Length of all sign steps together, were they not to shrink, in multiples of the reach."""


class AttackTarget(Protocol):
    """What an attack may ask of its victim; everything is differentiable in every argument.

    A victim with a memory stands for the rows of one batch: it takes these, or all of them several
    times over, one copy after the other. What asks about some of them alone takes `rows_of`.
    """

    def action_distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (within the action bounds) and standard deviation of the Gaussian over actions.

        Takes (B, ds), returns twice (B, da).
        """
        ...

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Expected discounted return of (B, ds) and (B, da), shape (B,)."""
        ...

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Expected discounted cost of (B, ds) and (B, da), shape (B,)."""
        ...


def rows_of(target: AttackTarget, rows: Tensor | slice) -> AttackTarget:
    """The victim of some rows of a batch; the same one, unless it tells its rows apart.

    Args:
        target: The victim of all rows. What remembers has a method `rows`, too.
        rows: Which ones, as an index or a mask.
    """
    select: Callable[[Tensor | slice], AttackTarget] | None = getattr(target, "rows", None)
    return target if select is None else select(rows)


def projected_ascent(
    value_of: Callable[[Tensor], Tensor],
    starts: Tensor,
    *,
    box: Box,
    reach: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Climb with sign steps inside a box, each row for itself.

    Steps have the size `TRAVEL` / `steps` * reach, halved after 50 % and again after 75 % of them.
    Only the points are differentiated: no parameter behind `value_of` receives a gradient.

    Args:
        value_of: What to maximise: of points (B, ds), values (B,), each of its own row only.
        starts: Where to start, within the box, shape (B, ds).
        box: Where to stay.
        reach: Half the width of the box, shape (ds,).
        steps: Gradient steps.

    Returns:
        The best point that each row met, its start included, shape (B, ds), and its value, (B,).
    """
    points = best_points = starts.detach()
    best_values = torch.full_like(points[:, 0], -torch.inf)
    for step in range(steps + 1):
        leaf = points.detach().requires_grad_()
        with torch.enable_grad():
            values = value_of(leaf)
            # Of the sum, not the mean: rows must not influence one another.
            total = values.sum()
        values = values.detach()
        better = values > best_values
        best_values = torch.where(better, values, best_values)
        best_points = torch.where(better[:, None], points, best_points)
        if step < steps:
            (gradient,) = torch.autograd.grad(total, leaf)
            halvings = (step >= 0.5 * steps) + (step >= 0.75 * steps)
            stride = TRAVEL / steps * 0.5**halvings * reach
            points = box.project(points + stride * gradient.sign())
    return best_points, best_values


class Attack(ABC):
    """One way to choose perturbed observations within a budget."""

    name: ClassVar[str]
    """What the command line and the tables call it."""

    critics: ClassVar[tuple[str, ...]] = ()
    """Which critics of its victim it asks, of `reward` and `cost`; not every policy has them."""

    needs_gradients: ClassVar[bool] = False
    """Whether it follows gradients through its victim; not every policy passes them on."""

    @abstractmethod
    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """What the policy shall see instead of `observations`.

        Args:
            target: The victim. Its parameters receive no gradients.
            observations: True observations, raw units, shape (B, ds).
            epsilon: Budget of each coordinate, raw units, shape (ds,).
            noise: Source of the random numbers, for B rows.
            previous: Perturbation of the same rows one time step earlier, shape (B, ds); an attack
                may start from it.

        Returns:
            Perturbed observations without gradient, shape (B, ds), never further from the true
            ones than `epsilon` (see `Box.around` for what that means in floating point).
        """

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` must be called before `perturb`."""
        return False

    @property
    def needs_rehearsal(self) -> bool:
        """Whether it must first be found in whole episodes of its victim, which `fit` has not.

        Nothing here simulates: `safer_offline.evaluation.adversaries` does.
        """
        return False

    def fit(self, target: AttackTarget, observations: Tensor) -> Attack:
        """An attack adapted to this target; most have nothing to adapt.

        Args:
            target: The victim.
            observations: What it met in episodes without attack, raw units, shape (M, ds).
        """
        return self


class GradientAttack(Attack):
    """Projected gradient ascent with sign steps on the objective of a subclass.

    The best iterate of each row over all restarts and steps wins, the starts included.

    Args:
        steps: Gradient steps.
        restarts: Starting points of each row.

    Raises:
        UsageError: If one of them is below 1.
    """

    needs_gradients: ClassVar[bool] = True

    starts: ClassVar[tuple[Start, ...]] = ("random",)
    """Kinds of the starting points, repeated for as many restarts as there are."""

    def __init__(self, *, steps: int = 20, restarts: int = 5) -> None:
        if steps < 1 or restarts < 1:
            raise UsageError(
                f"attack '{self.name}' needs at least one step and one restart, "
                f"not steps={steps}, restarts={restarts}"
            )
        self.steps = steps
        self.restarts = restarts

    @abstractmethod
    def objective(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor], Tensor]:
        """The function to maximise, of perturbed observations (B, ds), with values (B,).

        Called once for each perturbation and without gradients, so this is the place to compute
        whatever depends on the clean observations (B, ds) only.
        """

    def allowed(self, clean: Tensor, *, epsilon: Tensor, previous: Tensor | None) -> Box:
        """Where it may lead the observations (B, ds): the budget, if a subclass does not say less.

        Args:
            clean: True observations, shape (B, ds).
            epsilon: Budget, shape (ds,).
            previous: Perturbation one time step earlier, shape (B, ds), if there was one.
        """
        return Box.around(clean, epsilon)

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`. If there are several restarts, the last one starts from `previous`."""
        clean = observations.detach()
        epsilon = epsilon.to(clean)
        rows, size = clean.shape
        box = self.allowed(clean, epsilon=epsilon, previous=previous).tile(self.restarts)
        deltas = self._starting_points(noise, rows, size).to(clean) * epsilon
        if previous is not None and self.restarts > 1:
            deltas[-1] = previous
        with torch.no_grad():
            value_of = self.objective(target, clean.repeat(self.restarts, 1))
        starts = box.project((clean + deltas).reshape(-1, size))
        best_points, best_values = projected_ascent(
            value_of, starts, box=box, reach=epsilon, steps=self.steps
        )
        winner = best_values.view(self.restarts, rows).argmax(dim=0)
        by_restart = best_points.view(self.restarts, rows, size)
        return by_restart[winner, torch.arange(rows, device=clean.device)]

    def _starting_points(self, noise: NoiseSource, rows: int, size: int) -> Tensor:
        """Starting perturbations in multiples of epsilon, shape (restarts, rows, size)."""
        points = noise.uniform((rows, self.restarts, size)).transpose(0, 1).contiguous()
        for restart, kind in enumerate(islice(cycle(self.starts), self.restarts)):
            if kind == "zero":
                points[restart] = 0
            elif kind == "corner":
                points[restart] = points[restart].sign()
        return points


class ActionAttack(GradientAttack):
    """A gradient attack whose objective sees observations only through what the policy does."""

    @abstractmethod
    def judge(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """What to maximise, of mean and deviation of the actions, each (B, da), values (B,).

        Called as `objective` is, which asks the policy for the actions.
        """

    def objective(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor], Tensor]:
        """See `GradientAttack`."""
        value_of = self.judge(target, clean)

        def value(perturbed: Tensor) -> Tensor:
            return value_of(*target.action_distribution(perturbed))

        return value
