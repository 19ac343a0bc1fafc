"""An attack that only asks for actions: random search over the corners of the budget.

In the manner of the square attack (Andriushchenko et al., "Square Attack: a query-efficient
black-box adversarial attack via random search", ECCV 2020): always at corners, which is where
differences of actions are largest, and changing ever fewer coordinates at once.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.attacks.base import Attack, AttackTarget
from safer_offline.attacks.budget import Box
from safer_offline.attacks.noise import NoiseSource
from safer_offline.errors import UsageError


class Search(Attack):
    """Maximises the difference of the action from that at the true observation, without gradients.

    It works on policies that are no networks, and where gradients vanish or mislead.

    Args:
        queries: How many times it asks for an action.
        share: Which share of the coordinates it changes at first; it falls to none at the end, but
            one is always changed.
    """

    name: ClassVar[str] = "search"

    def __init__(self, *, queries: int = 50, share: float = 0.5) -> None:
        if queries < 1:
            raise UsageError(f"attack 'search' needs at least one query, not {queries}")
        if not 0 < share <= 1:
            raise UsageError(f"attack 'search': share must be above 0 and at most 1, not {share}")
        self.queries = queries
        self.share = share

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`. The search begins at `previous`, or at a random corner."""
        clean = observations.detach()
        epsilon = epsilon.to(clean)
        box = Box.around(clean, epsilon)
        rows, size = clean.shape
        signs = noise.uniform((rows, self.queries, size)).to(clean).sign()
        draws = noise.uniform((rows, self.queries, size)).to(clean).abs()
        start = signs[:, 0] * epsilon if previous is None else previous.to(clean)
        with torch.no_grad():
            wanted, deviation = target.action_distribution(clean)
            best = box.project(clean + start)
            value = self._difference(target, best, wanted, deviation)
            for query in range(1, self.queries):
                share = self.share * (1 - query / self.queries)
                changed = draws[:, query] < share
                # At least one, the one whose draw is least.
                changed |= draws[:, query] <= draws[:, query].amin(dim=1, keepdim=True)
                corner = clean + signs[:, query] * epsilon
                candidate = box.project(torch.where(changed, corner, best))
                reached = self._difference(target, candidate, wanted, deviation)
                better = reached > value
                best = torch.where(better[:, None], candidate, best)
                value = torch.where(better, reached, value)
        return best

    @staticmethod
    def _difference(
        target: AttackTarget, perturbed: Tensor, wanted: Tensor, deviation: Tensor
    ) -> Tensor:
        """Squared difference of the mean action, in deviations, shape (B,)."""
        mean, _ = target.action_distribution(perturbed)
        return (((mean - wanted) / deviation) ** 2).sum(dim=-1)
