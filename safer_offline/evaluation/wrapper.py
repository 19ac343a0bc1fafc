"""Attacks in loops of one's own: an environment of Gymnasium whose observations are attacked.

    env = AttackedObservation(gymnasium.make("safer_offline:SafetyCarCircle-v0"), policy, "mc")
    observation, info = env.reset(seed=0)                          # what the policy sees
    env.step(policy.predict(observation))                          # info["true_observation"]

For learning under attack, the policy may come later, and may change while it is attacked:

    env = AttackedObservation(gymnasium.make("safer_offline:SafetyCarCircle-v0"), attack="mad")
    model = PPO("MlpPolicy", env)
    env.policy = model
    model.learn(100_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.attacks import Attack, EpsilonUnits, resolve_attacks
from safer_offline.context import BoxSpace, EnvironmentContext
from safer_offline.errors import UsageError
from safer_offline.evaluation.foreign import foreign_policy_in
from safer_offline.evaluation.harness import budget_of, is_known
from safer_offline.evaluation.rollouts import Adversary, EvaluatedPolicy, Job

_ROW = np.ones(1, np.bool_)


class AttackedObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Shows attacked observations to whoever acts; rewards, costs and ends stay as they are.

    `info["true_observation"]` holds what the adversary saw. An episode that begins with
    `reset(seed=...)` meets the same random numbers as the episode of that seed in `evaluate`. The
    spaces are those of the environment; an attacked observation may leave their bounds by as much
    as the budget allows.

    Args:
        env: An environment whose observations and actions are flat boxes.
        policy: The victim: a policy of ours, or of others (see `evaluate`). It may also be set
            later, as an attribute; until then only attacks will do that ask it nothing.
        attack: A name (see `evaluate --attacks`), or an attack.
        epsilon: Budget: one number for all coordinates, or one for each.
        epsilon_units: What epsilon counts: raw observation units, or standard deviations of the
            dataset, where the policy knows them.
        seed: Of the attack's random numbers.

    Raises:
        UsageError: If an argument is impossible; if the environment or the policy is of a kind that
            cannot be attacked here; if the attack must first be fitted or found, or asks for what
            the policy does not have.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        policy: object = None,
        attack: str | Attack = "mad",
        *,
        epsilon: float | Sequence[float] = 0.05,
        epsilon_units: EpsilonUnits = "raw",
        seed: int = 0,
    ) -> None:
        super().__init__(env)
        if seed < 0:
            raise UsageError(f"seed must not be negative, but is {seed}")
        self._context = _context_of(env)
        self._attack = attack
        self._epsilon = epsilon
        self._epsilon_units = epsilon_units
        self._seed = seed
        self._starts = np.random.default_rng(seed)
        self._adversary: Adversary | None = None
        self.policy = policy

    @property
    def policy(self) -> object:
        """The victim; whoever sets it begins a new episode."""
        return self._policy

    @policy.setter
    def policy(self, policy: object) -> None:
        victim: EvaluatedPolicy
        if policy is None:
            victim = _Nobody(self._context)
        elif is_known(policy):
            victim = policy
        else:
            victim = foreign_policy_in(self._context, policy)
        if getattr(victim, "remembers", False):
            raise UsageError(
                "this policy remembers its episode, and what it remembers is attacked, too: only "
                "`evaluate` can do that"
            )
        _require_sizes(victim, self._context)
        self._policy, self._victim = policy, victim
        # Whoever comes later may know deviations that nobody knows now.
        self._job = None if policy is None else self._prepared()
        self._adversary = None

    def _prepared(self) -> Job:
        """The attack and its budget, if the victim can be met with them."""
        victim = self._victim
        (attack,) = resolve_attacks(
            [self._attack],
            critics=getattr(victim, "critics", ("reward", "cost")),
            gradients=getattr(victim, "differentiable", True),
        )
        _require_ready(attack)
        budget = budget_of(victim, self._epsilon, units=self._epsilon_units)
        return Job(attack, range(1), [0], budget)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; see Gymnasium."""
        observation, info = self.env.reset(seed=seed, options=options)
        start = int(self._starts.integers(2**32)) if seed is None else seed
        job = (self._job or self._prepared())._replace(seeds=[start])
        self._adversary = Adversary(job, self._victim, self._seed)
        return self._attacked(self._adversary, observation, info)

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[np.float32], Any, bool, bool, dict[str, Any]]:
        """Act once; see Gymnasium.

        Raises:
            UsageError: If there is no episode, or it began with another policy.
        """
        if self._adversary is None:
            raise UsageError("call reset first: an episode begins with the policy that it attacks")
        observation, reward, terminated, truncated, info = self.env.step(action)
        seen, info = self._attacked(self._adversary, observation, info)
        return seen, reward, terminated, truncated, info

    def _attacked(
        self, adversary: Adversary, observation: NDArray[Any], info: dict[str, Any]
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        true = np.asarray(observation, np.float32)
        seen = adversary.perturb(true[None], _ROW)[0].cpu().numpy()
        return seen, {**info, "true_observation": true}


class _Nobody:
    """The victim as long as there is none: it has sizes, and answers nothing."""

    critics = ("reward", "cost")
    differentiable = True
    knows_deviations = False
    cost_limit: float | None = None
    reward_range: tuple[float, float] | None = None

    def __init__(self, context: EnvironmentContext) -> None:
        observation, action = context.observation_space, context.action_space
        assert observation is not None
        assert action is not None
        self.context = context
        self.observation_size = observation.size
        self.action_size = action.size
        # NaN in whatever asks for deviations; `attack_budget` then says so.
        self.observation_std = torch.ones(observation.size)

    def action_distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        self._refuse()

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        self._refuse()

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        self._refuse()

    def predict(self, observations: NDArray[np.float32], /) -> NDArray[Any]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            "this attack asks the policy, and there is none yet: give AttackedObservation one, or "
            "set its attribute `policy` before the first episode"
        )


def _context_of(env: gymnasium.Env[Any, Any]) -> EnvironmentContext:
    for what, space in (("observation", env.observation_space), ("action", env.action_space)):
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise UsageError(
                f"the {what} space must be a flat Box, but is {space}: wrap the environment first, "
                "with gymnasium.wrappers.FlattenObservation for instance"
            )
    assert isinstance(env.observation_space, gymnasium.spaces.Box)
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    return EnvironmentContext(
        env_id=env.spec.id if env.spec is not None else type(env.unwrapped).__name__,
        observation_space=BoxSpace.from_gymnasium(env.observation_space),
        action_space=BoxSpace.from_gymnasium(env.action_space),
    )


def _require_sizes(victim: EvaluatedPolicy, context: EnvironmentContext) -> None:
    assert context.observation_space is not None
    size = context.observation_space.size
    if victim.observation_size != size:
        raise UsageError(
            f"the policy has observations of size {victim.observation_size}, but {context.env_id} "
            f"has {size}"
        )


def _require_ready(attack: Attack) -> None:
    """Refuse what must be adapted to its victim in whole episodes first."""
    if attack.needs_fit:
        raise UsageError(
            f"attack '{attack.name}' must be fitted to its victim first: give "
            f"make_attack('{attack.name}').fit(policy, observations), with observations (M, ds) "
            "that it meets without attack"
        )
    if attack.needs_rehearsal:
        raise UsageError(
            f"attack '{attack.name}' must be found first: `evaluate --attacks {attack.name}` does, "
            "and keeps what it found in RUN/evaluations/adversaries/. Give what it takes to skip "
            "the search, such as make_attack('learned', file=...)"
        )
