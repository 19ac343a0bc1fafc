"""Everything that a small network may answer, for boxes of inputs: interval and CROWN bounds.

Interval bounds are pushed through layer by layer and forget that all neurons see the same input.
CROWN (Zhang et al., "Efficient Neural Network Robustness Certification with General Activation
Functions", NeurIPS 2018) lays a line below and one above every activation, and follows these
backwards to the input. Each layer takes the tightest of both before the next one is looked at.

Bounds hold for the network in exact arithmetic; they are computed in float64 and widened by its
rounding. A network that is evaluated in float32 may miss them by the rounding of that.

Why this is not a library's work: auto-LiRPA 0.3, the last release, needs torch < 1.13 and does not
import with NumPy 2. bound-propagation 0.4.7 works with today's torch, but stops with a failed
assertion in float32 where a box is a point, and its licence (GPL-3.0) is not ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Activation = Literal["relu", "tanh"]

ROUNDING = 1e-11
"""Share of what is summed up, and of 1, by which bounds are widened against rounding in float64."""


class Dense(NamedTuple):
    """x -> weight x + bias, in float64."""

    weight: Tensor
    """Shape (outputs, inputs)."""
    bias: Tensor
    """Shape (outputs,)."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> Dense:
        """The same numbers as float64; no bias is zeros."""
        weight = weight.detach().double()
        return cls(
            weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
        )

    def after(self, other: Dense) -> Dense:
        """This layer behind another one, as one."""
        return Dense(self.weight @ other.weight, self.weight @ other.bias + self.bias)

    def behind_standardizer(self, mean: Tensor, std: Tensor) -> Dense:
        """This layer behind (x - mean) / std of its first inputs; infinite std: not read.

        Args:
            mean: Shape (k,), of the first k inputs; the others come as they are.
            std: Likewise.
        """
        weight = self.weight.clone()
        weight[:, : len(std)] /= std.double()
        return Dense(weight, self.bias - weight[:, : len(mean)] @ mean.double())


class Network(NamedTuple):
    """Dense layers with an activation between each two."""

    layers: tuple[Dense, ...]
    activations: tuple[Activation, ...]

    @property
    def width(self) -> int:
        """Neurons of the widest layer."""
        return max(len(layer.bias) for layer in self.layers)


class Interval(NamedTuple):
    """Numbers from `lower` to `upper`, each of the same shape."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def around(cls, centre: Tensor, reach: Tensor) -> Interval:
        """What is no further from the centre than that, in float64."""
        centre, reach = centre.double(), reach.double()
        return cls(centre - reach, centre + reach)

    def tightest(self, other: Interval) -> Interval:
        """What both hold."""
        return Interval(
            torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        )


class LinearBounds(NamedTuple):
    """Two affine functions of the input of which one is never above, the other never below."""

    lower: Tensor
    """Slopes, shape (B, outputs, inputs) or (outputs, inputs)."""
    upper: Tensor
    lower_constant: Tensor
    """Shape (B, outputs) or (outputs,)."""
    upper_constant: Tensor

    def over(self, box: Interval) -> Interval:
        """Their extremes over the box (B, inputs), each of shape (B, outputs)."""
        centre, reach = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
        ends = []
        for side, slopes, constant in (
            (-1, self.lower, self.lower_constant),
            (1, self.upper, self.upper_constant),
        ):
            at_centre, within = (_times(s, x) for s, x in ((slopes, centre), (slopes.abs(), reach)))
            error = ROUNDING * (1 + _times(slopes.abs(), centre.abs()) + within + constant.abs())
            ends.append(at_centre + constant + side * (within + error))
        return Interval(*ends)


class Line(NamedTuple):
    """slope x + constant, for each neuron (B, neurons)."""

    slope: Tensor
    constant: Tensor


class Bounds(NamedTuple):
    """What is known of a network's answers to a box of inputs."""

    interval: Interval
    """The tightest, shape (B, outputs)."""
    linear: LinearBounds
    """CROWN's."""


def network_bounds(network: Network, box: Interval) -> Bounds:
    """Bounds of all that a network answers to inputs of a box.

    Args:
        network: With at least one layer.
        box: Inputs, shape (B, inputs); rows are independent of one another.
    """
    lines: list[tuple[Line, Line]] = []
    reached = box
    for depth, layer in enumerate(network.layers):
        linear = _followed_back(network.layers[: depth + 1], lines)
        interval = linear.over(box)
        if depth > 0:
            interval = interval.tightest(interval_through(layer, reached))
        if depth < len(network.activations):
            activation = network.activations[depth]
            lines.append(LINES[activation](interval))
            reached = Interval(*(FUNCTIONS[activation](end) for end in interval))
    return Bounds(interval, linear)


def split_bounds(network: Network, box: Interval, *, splits: int) -> Interval:
    """Tighter ones: each box is cut in two so many times, where that matters most.

    Args:
        network: With at least one layer.
        box: Inputs, shape (B, inputs).
        splits: 2 to this power boxes are looked at for each.

    Returns:
        Shape (B, outputs).
    """
    whole, linear = network_bounds(network, box)
    if splits == 0:
        return whole
    steepest = (linear.lower.abs() + linear.upper.abs()).expand(len(box.lower), -1, -1).sum(1)
    cut = (steepest * (box.upper - box.lower)).argmax(dim=1, keepdim=True)
    middle = ((box.lower + box.upper) / 2).gather(1, cut)
    halves = Interval(
        torch.cat([box.lower, box.lower.scatter(1, cut, middle)]),
        torch.cat([box.upper.scatter(1, cut, middle), box.upper]),
    )
    lower, upper = split_bounds(network, halves, splits=splits - 1)
    return whole.tightest(
        Interval(torch.minimum(*lower.chunk(2)), torch.maximum(*upper.chunk(2))),
    )


def interval_through(layer: Dense, inputs: Interval) -> Interval:
    """What a layer makes of inputs (B, inputs) that each vary for themselves, (B, outputs)."""
    weight, bias = layer
    return LinearBounds(weight, weight, bias, bias).over(inputs)


def mean_bounds(networks: Sequence[Network], box: Interval) -> Interval:
    """Bounds of the mean of several networks' answers to the same input, shape (B, outputs)."""
    each = [network_bounds(network, box) for network in networks]
    intervals = Interval(
        *(torch.stack(ends).mean(0) for ends in zip(*(b.interval for b in each), strict=True))
    )
    linear = LinearBounds(
        *(torch.stack(part).mean(0) for part in zip(*(b.linear for b in each), strict=True))
    )
    return linear.over(box).tightest(intervals)


def _followed_back(layers: Sequence[Dense], lines: Sequence[tuple[Line, Line]]) -> LinearBounds:
    """The last of some layers as affine functions of the input, given the lines between them."""
    weight, bias = layers[-1]
    slopes, constants = [weight, weight], [bias, bias]
    for layer, (below, above) in zip(reversed(layers[:-1]), reversed(lines), strict=True):
        for side, (helps, hurts) in enumerate(((below, above), (above, below))):
            up, down = slopes[side].clamp_min(0), slopes[side].clamp_max(0)
            constants[side] = (
                constants[side] + _times(up, helps.constant) + _times(down, hurts.constant)
            )
            through = up * helps.slope[:, None] + down * hurts.slope[:, None]
            constants[side] = constants[side] + through @ layer.bias
            slopes[side] = through @ layer.weight
    return LinearBounds(*slopes, *constants)


def _times(slopes: Tensor, values: Tensor) -> Tensor:
    """(B, outputs, n) or (outputs, n) times (B, n), shape (B, outputs)."""
    return (slopes @ values[..., None])[..., 0]


def _relu_lines(interval: Interval) -> tuple[Line, Line]:
    """Above the chord; below either zero or the number itself, whichever is nearer."""
    lower, upper = interval
    slope = _chord(
        interval, interval.lower.relu(), interval.upper.relu(), flat=(lower > 0).double()
    )
    above = Line(slope, lower.relu() - slope * lower)
    kept = torch.where(lower >= 0, 1.0, torch.where(upper > -lower, 1.0, 0.0)).to(lower)
    return Line(kept, torch.zeros_like(lower)), above


def _tanh_lines(interval: Interval) -> tuple[Line, Line]:
    """The chord where the curve bends away from it, else the least slope that the curve has."""
    lower, upper = interval
    low, high = lower.tanh(), upper.tanh()
    least = torch.minimum(1 - low**2, 1 - high**2)
    chord = _chord(interval, low, high, flat=least)
    below = torch.where(lower >= 0, chord, least)
    above = torch.where(upper <= 0, chord, least)
    return Line(below, low - below * lower), Line(above, high - above * upper)


def _chord(interval: Interval, low: Tensor, high: Tensor, *, flat: Tensor) -> Tensor:
    """Slope of the line through both ends; `flat` where these are one."""
    width = interval.upper - interval.lower
    return torch.where(width > 0, (high - low) / width.clamp_min(1e-300), flat).clamp(0, 1)


LINES = {"relu": _relu_lines, "tanh": _tanh_lines}
"""Of pre-activations, the line below the activation and the one above it."""

FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh}
