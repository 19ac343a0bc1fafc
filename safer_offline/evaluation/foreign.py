"""Policies that others trained, or wrote: whatever turns observations into actions.

    evaluate(my_controller, env="car-circle")             # a function of one observation
    evaluate(PPO.load("ppo.zip"), env="car-circle")       # a model of Stable-Baselines3
    evaluate(torch.jit.load("actor.pt"), env="car-circle")

What is a PyTorch network inside, as models of Stable-Baselines3 are, is attacked by its gradients;
everything else is asked for actions alone, by attacks that need no more (`Attack.needs_gradients`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safer_offline.context import EnvironmentContext
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, UsageError
from safer_offline.importing import failure_of

DEVIATION = 0.1
"""What attacks take for the deviation of an action that has none, as a share of half its range."""

Answer = Callable[[Tensor], Tensor]
"""Actions (B, da) of raw observations (B, ds)."""


class ForeignPolicy:
    """A policy without critics, without a dataset, and without a spread of its actions.

    Args:
        answer: Its actions, of raw observations (B, ds); clipped to the bounds afterwards.
        differentiable: Whether `answer` passes gradients on to the observations.
        context: The environment that it acts in.
        fingerprint: Names its contents, where they are known.
        network: The module that answers, where it is one and nothing else.

    Attributes:
        differentiable: As given.
        context: As given.
        fingerprint: As given.
        network: As given.
        low: Least action, (da,).
        high: Largest action, (da,).
    """

    critics: tuple[str, ...] = ()
    knows_deviations = False
    cost_limit: float | None = None
    reward_range: tuple[float, float] | None = None

    def __init__(
        self,
        answer: Answer,
        *,
        differentiable: bool,
        context: EnvironmentContext,
        fingerprint: str = "",
        network: nn.Module | None = None,
    ) -> None:
        observation, action = context.observation_space, context.action_space
        if observation is None or action is None:
            raise UsageError("the environment of a foreign policy must tell its spaces")
        self.differentiable = differentiable
        self.context = context
        self.fingerprint = fingerprint
        self.network = network
        self.observation_size = observation.size
        self.action_size = action.size
        self._answer = answer
        self.low = torch.tensor(action.low)
        self.high = torch.tensor(action.high)

    @property
    def observation_std(self) -> Tensor:
        """Ones: there is no dataset, so budgets in deviations mean nothing (`prepare` refuses)."""
        return torch.ones(self.observation_size)

    def predict(self, observations: NDArray[np.float32], /) -> NDArray[Any]:
        """Actions (B, da) of raw observations (B, ds), within the bounds."""
        with torch.no_grad():
            return self._actions(torch.as_tensor(observations)).numpy()

    def action_distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of (B, ds), and the same small deviation for all, twice (B, da)."""
        mean = self._actions(observations)
        half = (self.high - self.low) / 2
        deviation = torch.where(torch.isfinite(half), DEVIATION * half, DEVIATION)
        return mean, deviation.expand_as(mean)

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """There is none."""
        raise UsageError("this policy has no reward critic")

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """There is none."""
        raise UsageError("this policy has no cost critic")

    def _actions(self, observations: Tensor) -> Tensor:
        actions = self._answer(observations)
        wanted = (len(observations), self.action_size)
        if tuple(actions.shape) != wanted:
            raise DataError(
                f"the policy answers {wanted[0]} observations with an array of shape "
                f"{tuple(actions.shape)}, not {wanted}",
                remedy=f"{self.context.env_id} has actions of size {self.action_size}",
            )
        return self.clip(actions)

    def clip(self, actions: Tensor) -> Tensor:
        """The nearest actions within the bounds."""
        return torch.clamp(actions, self.low.to(actions), self.high.to(actions))


def foreign_policy(
    policy: object, source: EnvironmentSource, *, fingerprint: str = ""
) -> ForeignPolicy:
    """A policy of others in the environment that `source` makes: see `foreign_policy_in`."""
    environment = source.make()
    try:
        context = source.context_of(environment)
    finally:
        environment.close()
    return foreign_policy_in(context, policy, fingerprint=fingerprint)


def foreign_policy_in(
    context: EnvironmentContext, policy: object, *, fingerprint: str = ""
) -> ForeignPolicy:
    """A policy that is not ours.

    Args:
        context: Where it acts; tells its spaces.
        policy: A `torch.nn.Module` from observations (B, ds) to actions (B, da), or to a tuple that
            begins with these; a model of Stable-Baselines3; anything else with
            `predict(observations)`, such as a model of d3rlpy; or a function of one observation
            (ds,). A function keeps no memory between steps: it meets many episodes in turn.
        fingerprint: Names its contents, where they are known.

    Raises:
        UsageError: If it is none of these.
    """
    inner = getattr(policy, "policy", None)
    if isinstance(policy, nn.Module):
        # What was exported is as it was then, and cannot be switched.
        with contextlib.suppress(NotImplementedError):
            policy.eval()
        answer, differentiable = _network(policy), True
    elif isinstance(inner, nn.Module) and hasattr(inner, "unscale_action"):
        inner.set_training_mode(False)  # type: ignore[operator]  # Stable-Baselines3 has it
        answer, differentiable = _stable_baselines(inner), True
    elif callable(getattr(policy, "predict", None)):
        answer, differentiable = _batch_function(policy.predict), False  # type: ignore[attr-defined]
    elif callable(policy) and not inspect.isclass(policy):
        answer, differentiable = _function(policy), False
    else:
        raise UsageError(
            f"a {type(policy).__name__} is no policy: give a run, a network of PyTorch, a model "
            "with predict(observations), or a function of an observation"
        )
    return ForeignPolicy(
        answer,
        differentiable=differentiable,
        context=context,
        fingerprint=fingerprint,
        network=policy if isinstance(policy, nn.Module) else None,
    )


def _network(module: nn.Module) -> Answer:
    def answer(observations: Tensor) -> Tensor:
        try:
            actions = module(observations)
        except Exception as error:
            raise UsageError(
                f"the network failed on observations of shape {tuple(observations.shape)}: "
                f"{failure_of(error)}. It must take batches of any size"
            ) from error
        first: Tensor = actions[0] if isinstance(actions, tuple) else actions
        return first

    return answer


def _stable_baselines(policy: Any) -> Answer:  # noqa: ANN401 - an optional package
    """The deterministic action, as `predict` has it, but without leaving PyTorch."""

    def answer(observations: Tensor) -> Tensor:
        actions: Tensor = policy._predict(observations, deterministic=True)
        if not policy.squash_output:
            return actions
        low, high = (
            torch.as_tensor(b) for b in (policy.action_space.low, policy.action_space.high)
        )
        return low + 0.5 * (actions + 1) * (high - low)

    return answer


def _batch_function(predict: Callable[..., Any]) -> Answer:
    def answer(observations: Tensor) -> Tensor:
        actions = _called(predict, observations.numpy())
        return _as_actions(actions[0] if isinstance(actions, tuple) else actions)

    return answer


def _function(function: Callable[..., Any]) -> Answer:
    def answer(observations: Tensor) -> Tensor:
        # A copy each: it must not write into what the attack goes on with.
        return torch.stack(
            [_as_actions(_called(function, row.copy())) for row in observations.numpy()]
        )

    return answer


def _called(function: Callable[..., Any], argument: NDArray[np.float32]) -> Any:  # noqa: ANN401
    try:
        return function(argument)
    except Exception as error:
        raise UsageError(f"the policy failed: {failure_of(error)}") from error


def _as_actions(given: object) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(given, dtype=np.float32))
    except (TypeError, ValueError):
        raise UsageError(f"the policy must return numbers, but returned {given!r}") from None
