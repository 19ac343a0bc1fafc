"""The state-adversarial problem: perturbations are the actions, the victim's cost is the reward.

Needs Stable-Baselines3, and is imported by nobody but `learned`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from safer_offline.attacks.budget import Box
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal

FloatArray = NDArray[np.float32]


class StateAdversarialProblem(VecEnv):
    """A victim in its environments, as the environment of whoever perturbs what it observes.

    Observed is the true observation, standardised; an action is the perturbation of each coordinate
    that has a budget, in multiples of it; the reward is the cost of the victim's step.

    Args:
        rehearsal: The victim.
        simulators: Its environments.
        seeds: Of the episodes, one after the other.
        mean: Of each observed coordinate, (ds,).
        std: Likewise.
    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        simulators: VectorEnvironment,
        *,
        seeds: Iterator[int],
        mean: Tensor,
        std: Tensor,
    ) -> None:
        self._simulators = simulators
        self._victim = rehearsal.begin(simulators.num_envs)
        self._starts = seeds
        self._mean, self._std = mean.cpu().numpy(), std.cpu().numpy()
        self._budget = rehearsal.budget
        self._free = rehearsal.budget > 0
        self._true = np.zeros((simulators.num_envs, len(mean)), np.float32)
        self._actions = np.zeros((0, 0), np.float32)
        # Stable-Baselines3 looks for it.
        self.render_mode = None
        super().__init__(
            simulators.num_envs,
            gymnasium.spaces.Box(-np.inf, np.inf, (len(mean),), np.float32),
            gymnasium.spaces.Box(-1.0, 1.0, (int(self._free.sum()),), np.float32),
        )

    def reset(self) -> FloatArray:
        """Start an episode in every row."""
        self._victim.restart()
        self._true = self._simulators.reset(list(islice(self._starts, self.num_envs)))
        return self._standardised(self._true)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Note the perturbations, (B, coordinates with a budget)."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], list[dict[str, Any]]]:
        """Show them to the victim; a row whose episode ends begins another one."""
        true = torch.from_numpy(self._true).to(self._budget)
        deltas = torch.zeros_like(true)
        deltas[:, self._free] = torch.from_numpy(self._actions).to(true)
        seen = Box.around(true, self._budget).project(true + deltas * self._budget)
        steps = self._simulators.step(self._victim.act(seen))
        self._victim.earn(steps.rewards, steps.costs)
        done = steps.terminated | steps.truncated
        observed = self._standardised(steps.observations)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(done):
            infos[row] = {
                "terminal_observation": observed[row],
                "TimeLimit.truncated": bool(steps.truncated[row]),
            }
        self._true = steps.observations
        if done.any():
            self._true = self._simulators.restart(done, list(islice(self._starts, int(done.sum()))))
            self._victim.restart(done)
            observed = self._standardised(self._true)
        return observed, steps.costs, done, infos

    def close(self) -> None:
        """Whoever made the simulators closes them."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ANN401 - of SB3
        """The attribute of this problem, once for each row."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ANN401
        """Set an attribute of this problem."""
        setattr(self, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ANN401
        indices: Any = None,  # noqa: ANN401
        **method_kwargs: Any,  # noqa: ANN401
    ) -> list[Any]:
        """There are no environments of Gymnasium inside that could be called."""
        raise NotImplementedError(method_name)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:  # noqa: ANN401
        """They are in no wrapper."""
        return [False] * len(list(self._get_indices(indices)))

    def _standardised(self, observations: FloatArray) -> FloatArray:
        standardised: FloatArray = (observations - self._mean) / self._std
        return standardised
