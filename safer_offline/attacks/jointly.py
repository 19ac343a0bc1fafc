"""Several attacks on one batch in a single ascent: what training under many attacks takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.attacks.base import ActionAttack, AttackTarget, rows_of
from safer_offline.attacks.noise import NoiseSource


class Jointly(ActionAttack):
    """Equal shares of a batch meet one attack each, and the policy is asked for all at once.

    Row i meets attack i modulo their number, from one random start. It finds what the attacks find
    one after the other with the same random numbers, but for rounding, in about four fifths of the
    time.

    Args:
        attacks: Only their objectives count, not their steps, starts, or where they are allowed.
        steps: Gradient steps.
    """

    name: ClassVar[str] = "jointly"

    def __init__(self, *attacks: ActionAttack, steps: int) -> None:
        super().__init__(steps=steps, restarts=1)
        self.attacks = attacks

    @property
    def critics(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those that one of them asks."""
        return tuple(sorted({critic for attack in self.attacks for critic in attack.critics}))

    def judge(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """See `ActionAttack`; the rows lie share by share."""
        sizes = [len(share) for share in self._shares(len(clean))]
        places = torch.split(torch.arange(len(clean)), sizes)
        judges = [
            attack.judge(rows_of(target, rows), clean[rows])
            for attack, rows in zip(self.attacks, places, strict=True)
        ]

        def value(mean: Tensor, std: Tensor) -> Tensor:
            parts = zip(judges, torch.split(mean, sizes), torch.split(std, sizes), strict=True)
            return torch.cat([judge(*part) for judge, *part in parts])

        return value

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`. Where it begins is random, whatever `previous` was."""
        order = torch.cat(self._shares(len(observations)))
        perturbed = super().perturb(
            rows_of(target, order), observations[order], epsilon=epsilon, noise=noise
        )
        return perturbed[order.argsort()]

    def _shares(self, rows: int) -> list[Tensor]:
        """Which rows meet each of them."""
        count, every = len(self.attacks), torch.arange(rows)
        return [every[number::count] for number in range(count)]
