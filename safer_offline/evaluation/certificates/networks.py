"""Which policies are a network that can be bounded, and that network.

The first layer takes the standardisation in, so that inputs are raw observations, and what comes
after the last layer never falls: it maps bounds of the answers to bounds of the actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from safer_offline.evaluation.certificates.bounds import (
    FUNCTIONS,
    Activation,
    Dense,
    Network,
)
from safer_offline.evaluation.foreign import ForeignPolicy
from safer_offline.evaluation.rollouts import EvaluatedPolicy
from safer_offline.policies.conditioned import CostConditionedPolicy
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.foretold import ForetoldPolicy
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.limit_and_budget import LimitAndBudgetPolicy
from safer_offline.policies.squashed import SquashedGaussianPolicy
from safer_offline.policies.trained import TrainedPolicy

TOLD = (CostConditionedPolicy, ForetoldPolicy)
"""They have a network whose last inputs are what they are told."""

_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.ReLU: "relu", nn.Tanh: "tanh"}


class ActionNetwork(NamedTuple):
    """How a policy acts."""

    network: Network
    """From raw observations (B, ds)."""
    finish: Callable[[Tensor], Tensor]
    """From its answers (B, da) to actions (B, da); each rises with its own answer, or stays."""
    low: Tensor
    """Least action, shape (da,)."""
    high: Tensor
    """Largest action, shape (da,)."""


def action_network(policy: EvaluatedPolicy) -> ActionNetwork | str:
    """The network of a policy, or why it has none that can be bounded, in a few words."""
    if isinstance(policy, ForeignPolicy):
        if policy.network is None:
            return "what it is inside is not known; give a Sequential of Linear, ReLU and Tanh"
        layers = _layers_of(policy.network)
        if isinstance(layers, str):
            return layers
        network, last = layers
        if not (torch.isfinite(policy.low).all() and torch.isfinite(policy.high).all()):
            return "its actions have no bounds, of which a change could be a share"
        return ActionNetwork(
            network,
            lambda answers: policy.clip(last(answers)),
            policy.low.double(),
            policy.high.double(),
        )
    if not isinstance(policy, TrainedPolicy):
        return f"a {type(policy).__name__} cannot be looked into"
    actor = policy.actor
    # A subclass may act otherwise.
    if type(actor) in (GaussianPolicy, SquashedGaussianPolicy):
        return _of_gaussian(actor)
    if type(actor) is LimitAndBudgetPolicy:
        return _of_gaussian(actor.acting())
    if isinstance(actor, TOLD) and type(actor) in TOLD:
        inner = _of_gaussian(actor.network)
        first, *others = inner.network.layers
        size = policy.observation_size
        told = first.weight[:, size:] @ actor.told.double()
        first = Dense(first.weight[:, :size], first.bias + told)
        return inner._replace(network=inner.network._replace(layers=(first, *others)))
    return (
        f"its network ({policy.info.actor}) is none of dense layers, ReLU and tanh alone, from an "
        "observation to an action"
    )


def cost_networks(critic: CriticEnsemble) -> tuple[Network, ...]:
    """Each member of a critic, from raw (s, a) of shape (B, ds + da) to its estimate (B, 1)."""
    networks = []
    parameters = list(zip(critic.ensemble.weights, critic.ensemble.biases, strict=True))
    values = Dense.of(critic.values.std[:, None], critic.values.mean)
    for member in range(critic.ensemble.members):
        first, *others = (Dense.of(w[member].T, b[member, 0]) for w, b in parameters)
        first = first.behind_standardizer(critic.observations.mean, critic.observations.std)
        *hidden, last = first, *others
        networks.append(_relu_network((*hidden, values.after(last))))
    return tuple(networks)


def _of_gaussian(actor: nn.Module) -> ActionNetwork:
    assert isinstance(actor, GaussianPolicy)
    dense = [layer for layer in actor.network if isinstance(layer, nn.Linear)]
    first, *others = (Dense.of(layer.weight, layer.bias) for layer in dense)
    first = first.behind_standardizer(actor.observations.mean, actor.observations.std)
    *hidden, last = first, *others
    # Behind the locations, the network has the deviations, by which nobody acts.
    size = len(actor.box.centre)
    last = Dense(last.weight[:size], last.bias[:size])
    centre, half = actor.box.centre.double(), actor.box.half_range.double()
    return ActionNetwork(
        _relu_network((*hidden, last)),
        lambda answers: centre + half * answers.tanh(),
        centre - half,
        centre + half,
    )


def _relu_network(layers: Sequence[Dense]) -> Network:
    between: list[Activation] = ["relu"] * (len(layers) - 1)
    return Network(tuple(layers), tuple(between))


def _layers_of(module: nn.Module) -> tuple[Network, Callable[[Tensor], Tensor]] | str:
    """A network of others and the activation behind its last layer, or what it has besides."""
    layers: list[Dense] = []
    activations: list[Activation] = []
    for part in _parts(module):
        kind = type(part)
        if isinstance(part, nn.Linear) and kind is nn.Linear:
            dense = Dense.of(part.weight, part.bias)
            if len(layers) > len(activations):
                layers[-1] = dense.after(layers[-1])
            else:
                layers.append(dense)
        elif kind in _ACTIVATIONS and len(activations) < len(layers):
            activations.append(_ACTIVATIONS[kind])
        elif kind is not nn.Identity:
            return (
                f"its network has a {kind.__name__} where only layers of Linear with ReLU or Tanh "
                "between them can be bounded"
            )
    if not layers:
        return "its network has no layer"
    network = Network(tuple(layers), tuple(activations[: len(layers) - 1]))
    last = activations[len(layers) - 1 :]
    return network, FUNCTIONS[last[0]] if last else lambda answers: answers


def _parts(module: nn.Module) -> list[nn.Module]:
    """What a module runs one after the other."""
    # A subclass may run its children otherwise.
    if type(module) is not nn.Sequential:
        return [module]
    return [part for child in module for part in _parts(child)]
