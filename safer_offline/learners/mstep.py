"""The robust M-step: fit the policy to the E-step's answer, at true and at attacked observations.

With target actions a drawn from q, weights w and an attacked observation s_hat of the same state,

    L = mean w [ -log pi(a | s) - rho log pi(a | s_hat) ]

The first term is the paper's M-step, weighted maximum likelihood; the second is its adversarial
training step: what is right at s must also be done when the adversary shows s_hat. Only the
observation is attacked, never a real agent, and the action is one that was right at the true s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safer_offline.attacks import Attack, AttackTarget, NoiseSource
from safer_offline.policies.gaussian import GaussianPolicy, gaussian_nll


def robust_mstep_loss(
    policy: GaussianPolicy,
    observations: Tensor,
    attacked: Tensor,
    actions: Tensor,
    weights: Tensor,
    *,
    adversarial_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted negative log-likelihood of target actions, clean and attacked.

    Args:
        policy: The policy to fit.
        observations: True observations s, shape (B, ds).
        attacked: What an adversary shows instead, shape (B, ds).
        actions: Target actions, shape (B, da).
        weights: Weight of each row, shape (B,).
        adversarial_weight: rho.

    Returns:
        The loss, and its two parts by name.
    """
    mean, std = policy(torch.cat([observations, attacked]))
    nll = gaussian_nll(torch.cat([actions, actions]), mean, std)
    clean, adversarial = (torch.cat([weights, weights]) * nll).view(2, -1).mean(dim=1)
    return clean + adversarial_weight * adversarial, {
        "nll": clean.detach(),
        "nll_attacked": adversarial.detach(),
    }


def mixed_attack(
    attacks: Sequence[Attack],
    target: AttackTarget,
    observations: Tensor,
    *,
    epsilon: Tensor,
    noise: NoiseSource,
) -> Tensor:
    """Attack equal slices of a batch by one attack each, so that every step meets all of them.

    Args:
        attacks: The attacks; row i meets attack i modulo their number.
        target: Policy and critics as they are now.
        observations: True observations, shape (B, ds).
        epsilon: Budget, raw units, shape (ds,).
        noise: Random numbers.

    Returns:
        Attacked observations, shape (B, ds).
    """
    attacked = observations.clone()
    for number, attack in enumerate(attacks):
        rows = slice(number, None, len(attacks))
        attacked[rows] = attack.perturb(target, observations[rows], epsilon=epsilon, noise=noise)
    return attacked
