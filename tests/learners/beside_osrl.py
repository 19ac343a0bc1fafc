"""OSRL beside ours: its modules without what they import for nothing, its weights, its noise."""

import copy
import importlib
import math
import sys
import types
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import nn

SMALL = {
    "hidden_sizes": (16, 12),
    "critic_hidden_sizes": (12, 16),
    "batch_size": 32,
    "actor_rate": 1e-3,
    "critic_rate": 2e-3,
    "cost_limit": 2.0,
    "episode_length": 20,
    # As OSRL does it:
    "timeouts_end": True,
    "standardize": False,
}
"""Settings of ours that are OSRL's ways, on small networks."""

CRITICS = {"cost_ends": False, "vae_hidden_size": 24, "vae_rate": 3e-3, "sampled_actions": 4}
"""Further ones of those with critics of actions."""


def osrl(module, monkeypatch):
    """A module of OSRL's algorithms; the test is skipped where it cannot be imported."""
    for name in ("fsrl", "fsrl.utils", "wandb"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["fsrl.utils"].DummyLogger = sys.modules["fsrl.utils"].WandbLogger = object
    pytest.importorskip("osrl")
    try:
        return importlib.import_module(f"osrl.algorithms.{module}")
    except ImportError as error:
        pytest.skip(f"OSRL needs more than is installed: {error}")


def linears(network):
    return [part for part in network.modules() if isinstance(part, nn.Linear)]


@torch.no_grad()
def copy_layers(theirs, ours):
    """Weights of linear layers, in their order."""
    for to, source in zip(theirs, ours, strict=True):
        to.weight.copy_(source.weight)
        to.bias.copy_(source.bias)


@torch.no_grad()
def copy_two_heads(network, one, other, ours):
    """Ours has one last layer for what are two in OSRL."""
    *body, last = linears(ours)
    copy_layers(network, body)
    for head, weight, bias in zip(
        (one, other), last.weight.chunk(2), last.bias.chunk(2), strict=True
    ):
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def copy_squashed(theirs, ours):
    copy_two_heads(linears(theirs.net), theirs.mu_layer, theirs.log_std_layer, ours.network)


def copy_vae(theirs, ours):
    copy_two_heads((theirs.e1, theirs.e2), theirs.mean, theirs.log_std, ours.encoder)
    copy_layers((theirs.d1, theirs.d2, theirs.d3), linears(ours.decoder))


def copy_double(theirs, ours):
    copy_ensemble([*theirs.q1_nets, *theirs.q2_nets], ours.ensemble)


@torch.no_grad()
def copy_ensemble(networks, ensemble):
    """Networks of OSRL's, and one ensemble of ours that does for all of them."""
    assert len(networks) == ensemble.members
    for member, network in enumerate(networks):
        for layer, weight, bias in zip(
            linears(network), ensemble.weights, ensemble.biases, strict=True
        ):
            layer.weight.copy_(weight[member].T)
            layer.bias.copy_(bias[member, 0])


class Noise:
    """Normal numbers that depend on nothing but how many are asked for, and on the seed.

    So both sides see the same, whatever the order and the shape in which they ask.
    """

    def __init__(self):
        self.seed = 0

    def __call__(self, *shape):
        shape = torch.empty(*shape).shape  # of numbers, or of one tuple
        count = math.prod(shape)
        generator = torch.Generator().manual_seed(1000 * count + self.seed)
        return torch.empty(count).normal_(generator=generator).view(*shape)

    @contextmanager
    def everywhere(self):
        """In place of what OSRL draws with."""
        with (
            mock.patch("torch.randn", self),
            mock.patch("torch.randn_like", lambda tensor: self(*tensor.shape)),
            mock.patch("torch.distributions.normal._standard_normal", lambda n, **_: self(*n)),
            mock.patch("torch.normal", lambda mean, std: mean + std * self(*mean.shape)),
        ):
            yield


def compare_updates(ours, theirs, copy_all, *, updates=20):
    """The same weights, batches and noise: the same losses, and the same weights after them.

    Args:
        ours: A learner that has done no update.
        theirs: OSRL's model, its optimisers set up.
        copy_all: Copies all of our weights into a model of OSRL's.
        updates: Number of them.
    """
    copy_all(theirs, ours)
    noise, batches = Noise(), copy.deepcopy(ours.batches)
    ours.noise = noise
    for seed in range(updates):
        noise.seed = seed
        batch = batches.sample()
        s, after, a = (batch[n] for n in ("observations", "next_observations", "actions"))
        r, c, done = batch["rewards"], batch["costs"], 1 - batch["going_on"]
        with noise.everywhere():
            expected = {
                "vae": theirs.vae_loss(s, a)[0],
                "reward_critic": theirs.critic_loss(s, after, a, r, done)[0],
                "cost_critic": theirs.cost_critic_loss(s, after, a, c, done)[0],
                "actor": theirs.actor_loss(s)[0],
            }
            theirs.sync_weight()
        with mock.patch("safer_offline.learners.constrained.PIECE_ROWS", 50):  # several pieces
            losses = ours.update()
        for name, loss in expected.items():
            wanted = pytest.approx(float(loss.detach()), rel=1e-3, abs=1e-4)
            assert float(losses[name]) == wanted, (seed, name)
    assert_same_parameters(theirs, ours, copy_all)


def assert_same_parameters(theirs, ours, copy_all):
    """OSRL's model stays what it is if it takes over our weights."""
    before = {name: tensor.detach().clone() for name, tensor in theirs.named_parameters()}
    copy_all(theirs, ours)
    for name, tensor in theirs.named_parameters():
        torch.testing.assert_close(before[name], tensor, rtol=1e-3, atol=2e-5)
