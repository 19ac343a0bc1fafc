"""The learning rate of a stage."""

from __future__ import annotations

import torch


def learning_rate(highest: float, done: float) -> float:
    """Constant, then linear to (almost) zero over the last 40 % of a stage.

    Args:
        highest: The rate to begin with.
        done: Share of the stage that is done, from 0 to 1.
    """
    return highest * max(min(1.0, (1 - done) / 0.4), 0.01)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step of an optimiser have this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
