"""The network parts that policies, critics and models are built from."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

CONSTANT_WITHIN = 1e-6
"""A coordinate is constant if its deviation is at most this share of its mean, or of the least
deviation."""


class Standardizer(nn.Module):
    """Affine map of raw observations to zero mean and unit variance, stored with the weights.

    A coordinate of infinite deviation is not read: whatever it is, it maps to zero.

    Args:
        size: Number of coordinates.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(
        self,
        values: Tensor | Iterable[Tensor],
        *,
        min_std: float = 1e-3,
        leave_out_constants: bool = False,
    ) -> Standardizer:
        """Take mean and standard deviation of (N, size) values; returns itself.

        A coordinate that hardly varies keeps `min_std`: an attack must not be able to move it by
        thousands of standard deviations.

        Args:
            values: All of them, or blocks of them one after the other.
            min_std: Least standard deviation.
            leave_out_constants: Let coordinates that never vary have an infinite deviation. They
                tell nothing, and a network that read them would hang on them under attack.
        """
        count, mean, squares = 0, torch.zeros(1).double(), torch.zeros(1).double()
        for block in (values,) if isinstance(values, Tensor) else values:
            rows = len(block)
            block_variance, block_mean = torch.var_mean(block.double(), dim=0, correction=0)
            # Chan, Golub and LeVeque: sums of squares about two means make one about the joint.
            shift = block_mean - mean
            squares = squares + block_variance * rows + shift**2 * (count * rows / (count + rows))
            mean = mean + shift * (rows / (count + rows))
            count += rows
        self.mean.copy_(mean)
        std = (squares / (count - 1)).sqrt()
        # What is below the resolution of float32 is rounding: of the value, or of the least that
        # counts, as where a simulator leaves 1e-13 in place of zero.
        constant = std <= CONSTANT_WITHIN * mean.abs().clamp_min(min_std)
        std = std.clamp_min(min_std)
        if leave_out_constants:
            std[constant] = torch.inf
        self.std.copy_(std)
        return self

    def without(self, coordinates: Tensor) -> Standardizer:
        """The same map, but that some coordinates, bool (size,), are not read."""
        other = copy.deepcopy(self)
        other.std[coordinates] = torch.inf
        return other

    def forward(self, values: Tensor) -> Tensor:
        """Standardised values, any leading shape."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Values in raw units again."""
        return values * self.std + self.mean


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class EnsembleMLP(nn.Module):
    """E networks of one shape, evaluated together as batched matrix products.

    Args:
        members: Number of networks E.
        sizes: Layer sizes of each.
    """

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.members = members
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in itertools.pairwise(sizes):
            # The initialisation of nn.Linear, member by member.
            bound = inputs**-0.5
            self.weights.append(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, input size) for all members, or (E, B, input size), -> (E, B, output size)."""
        hidden = inputs if inputs.ndim == 3 else inputs.expand(self.members, *inputs.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < last:
                hidden = functional.relu_(hidden)
        return hidden


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Target <- (1 - rate) target + rate source, parameters only."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, *, max_norm: float) -> None:
    """One optimiser step down the gradient of `loss`, its norm clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(cast("list[Tensor]", parameters), max_norm)
    optimizer.step()
