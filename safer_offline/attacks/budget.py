"""The budget of an attack: how far it may move each coordinate of an observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from safer_offline.errors import UsageError

EpsilonUnits = Literal["raw", "std"]


def attack_budget(
    epsilon: float | Sequence[float] | Tensor,
    observation_std: Tensor,
    *,
    units: EpsilonUnits = "raw",
) -> Tensor:
    """The largest change of each observation coordinate, in raw observation units.

    Args:
        epsilon: One number for all coordinates, or one for each.
        observation_std: Standard deviation of each coordinate in the dataset, shape (ds,);
            infinite where the policy does not read it, which leaves nothing to attack there. Also
            says the device and the number type of the budget.
        units: What `epsilon` counts: raw observation units or multiples of `observation_std`.

    Returns:
        Budget of shape (ds,).

    Raises:
        UsageError: If `epsilon` is negative, not finite or of the wrong length, or the units are
            unknown.
    """
    if units not in ("raw", "std"):
        raise UsageError(f"unknown units '{units}' of epsilon; use 'raw' or 'std'")
    size = len(observation_std)
    given = torch.as_tensor(epsilon, dtype=observation_std.dtype, device=observation_std.device)
    if given.ndim > 1 or given.numel() not in (1, size):
        raise UsageError(
            f"epsilon has shape {tuple(given.shape)}, observations have {size} coordinates: "
            f"give one number, or {size}"
        )
    bad = ~(torch.isfinite(given) & (given >= 0)).reshape(-1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise UsageError(
            f"epsilon must be finite and not negative, but is {given.reshape(-1)[first].item()} "
            f"at coordinate {first}"
        )
    budget = given * observation_std if units == "std" else given.expand(size).clone()
    return torch.where(torch.isfinite(observation_std), budget, 0.0)


class Box(NamedTuple):
    """The observations that a budget allows, between `lower` and `upper`, each (B, ds)."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def around(cls, observations: Tensor, epsilon: Tensor) -> Box:
        """The box |x_j - observations_j| <= epsilon_j, rounded inwards.

        `observations - epsilon` may round to a number outside of the budget. The bounds are
        therefore found in float64 and rounded towards the observation: whatever is clamped to
        them differs from it by no more than epsilon, both in exact arithmetic on float32 numbers
        and when the difference is itself computed in float32.

        Args:
            observations: Shape (B, ds).
            epsilon: Budget, shape (ds,).
        """
        centre, reach = observations.double(), epsilon.to(observations.device).double()
        lower = (centre - reach).to(observations.dtype)
        upper = (centre + reach).to(observations.dtype)
        # A bound of float32 lies beyond the budget by at most its last bit: step back by one.
        lower = torch.where(
            centre - lower.double() > reach, torch.nextafter(lower, observations), lower
        )
        upper = torch.where(
            upper.double() - centre > reach, torch.nextafter(upper, observations), upper
        )
        return cls(lower, upper)

    def project(self, points: Tensor) -> Tensor:
        """The nearest allowed observations, shape (B, ds)."""
        return torch.clamp(points, self.lower, self.upper)

    def near(self, other: Box) -> Box:
        """The part of this box that lies in another one; where none does, the nearest points."""
        return Box(self.project(other.lower), self.project(other.upper))

    def tile(self, times: int) -> Box:
        """The same box `times` times over, shape (times * B, ds)."""
        return Box(self.lower.repeat(times, 1), self.upper.repeat(times, 1))
