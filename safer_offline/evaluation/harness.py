"""How safe a policy stays when its observations are attacked.

All attacks meet the same episodes, so that what differs between them is the attack alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from torch import Tensor

from safer_offline.attacks import (
    Attack,
    EpsilonUnits,
    attack_budget,
    attack_settings,
    resolve_attacks,
)
from safer_offline.context import EnvironmentContext
from safer_offline.datasets.loading import Source, load_dataset
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, UsageError
from safer_offline.evaluation.critics.fitted_q import SIGNALS
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.critics.sources import (
    choose_sources,
    led_by,
    require_fit,
    why_no_critic,
)
from safer_offline.evaluation.film import drawn_environment
from safer_offline.evaluation.foreign import foreign_policy
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.evaluation.rollouts import EvaluatedPolicy
from safer_offline.evaluation.simulation import Evaluation
from safer_offline.evaluation.task import describe_differences, source_of
from safer_offline.policies.trained import POLICY_FILE, load_policy


def evaluate(
    policy: EvaluatedPolicy | object,
    *,
    env: str | EnvironmentSource | gymnasium.Env[Any, Any] | None = None,
    attacks: str | Sequence[str | Attack] = "all",
    attack_set: Sequence[str] = (),
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    workers: int | None = None,
    cost_limit: float | None = None,
    record: bool = False,
    film: bool = False,
    certify: bool = False,
    max_rows: int = 32,
    progress: bool = True,
    critics: str | Sequence[str] | None = None,
    data: Source | None = None,
    critic_settings: CriticSettings | None = None,
) -> EvaluationReport:
    """Run a policy in the simulator under each attack.

    The same call gives the same numbers, bit for bit, whatever `workers` is, in whatever order the
    attacks come and whichever others there are. Other `episodes` or `max_rows` change the size of
    the batches that the networks see, and with it possibly the last bit of an action; starts and
    random numbers of an episode stay the same.

    Args:
        policy: A policy of ours with its critics, or the run directory that holds it; or any
            other: see `foreign_policy`, which needs `env`.
        env: Name of the task (see `EnvironmentSource`), a source that says more than its name, or
            what `gymnasium.make` made. None takes the environment that the policy was trained for,
            as it was there; so does its name. What differs from that is a warning, and stands in
            the report.
        attacks: "all", names (a sequence, or separated by commas), or attacks of your own.
        attack_set: Their settings, such as `mad.steps=50`; see `resolve_attacks`.
        epsilon: Budget of the attacks: one number for all coordinates, or one for each.
        epsilon_units: What epsilon counts: raw observation units, or standard deviations of the
            dataset.
        episodes: Episodes under each attack.
        seed: Determines the episodes and the attacks' random numbers.
        workers: Simulation processes; None takes one for each core, 0 simulates in this process.
        cost_limit: Largest allowed episode cost; None takes the policy's own.
        record: Keep the steps of the worst and the median episode under the worst attack, and of
            the same ones without attack: `EvaluationReport.paths`.
        film: Also film the worst of these, natural beside attacked: `EvaluationReport.clip`.
        certify: Also bound what any attack can do to single actions, see `certificates.certify`.
        max_rows: Most simulators alive at once.
        progress: Show a progress bar if standard error is a terminal.
        critics: Whose critics lead the attacks that ask some, of "own" (the policy's), "data" and
            "rollouts", which are fitted to `data` and to episodes of the policy in the simulator;
            with several, each of these attacks is met with each, as in `mc`, `mc@data` and
            `mc@rollouts`. None takes the policy's own, and those of `data` if it is given; where
            the policy lacks some, "strong" attacks take those of rollouts instead.
        data: What to fit critics to, see `load_dataset`.
        critic_settings: How to fit them.

    Raises:
        UsageError: If an argument is impossible, a name unknown, or an environment not usable; if
            nothing says which environment or which cost is meant.
        DataError: If the policy, or the data, do not fit the environment.
        MissingSimulatorError: If there is no simulator on this machine.
    """
    evaluation = prepare(
        policy,
        env=env,
        attacks=attacks,
        attack_set=attack_set,
        epsilon=epsilon,
        epsilon_units=epsilon_units,
        episodes=episodes,
        seed=seed,
        cost_limit=cost_limit,
        record=record,
        film=film,
        certify=certify,
        critics=critics,
        data=data,
        critic_settings=critic_settings,
    )
    return evaluation.run(workers=workers, max_rows=max_rows, progress=progress)


def prepare(
    policy: EvaluatedPolicy | object,
    *,
    env: str | EnvironmentSource | gymnasium.Env[Any, Any] | None = None,
    attacks: str | Sequence[str | Attack] = "all",
    attack_set: Sequence[str] = (),
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    cost_limit: float | None = None,
    record: bool = False,
    film: bool = False,
    certify: bool = False,
    critics: str | Sequence[str] | None = None,
    data: Source | None = None,
    critic_settings: CriticSettings | None = None,
) -> Evaluation:
    """Everything of `evaluate` before the first episode: see there for arguments and errors."""
    if episodes < 1:
        raise UsageError(f"episodes must be at least 1, not {episodes}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, but is {seed}")
    victim = _victim(policy, env)
    cost_limit = victim.cost_limit if cost_limit is None else float(cost_limit)
    if cost_limit is not None and not 0 <= cost_limit < math.inf:
        raise UsageError(f"cost_limit must be finite and not negative, but is {cost_limit}")
    carried = victim.context
    source = source_of(carried, env)
    has = getattr(victim, "critics", SIGNALS)
    remembers = getattr(victim, "remembers", False)
    own, sources = choose_sources(
        critics,
        own=has,
        data=None if data is None else load_dataset(data, max_memory="auto"),
        settings=critic_settings or CriticSettings(),
        attacks=attacks,
        remembers=remembers,
    )
    asked = has if own else ()
    chosen = resolve_attacks(
        attacks,
        settings=attack_set,
        critics=SIGNALS if sources else asked,
        no_critic=why_no_critic(remembers=remembers),
        gradients=getattr(victim, "differentiable", True),
    )
    chosen, leaders = led_by(chosen, own=asked, sources=sources)
    if sources and not leaders and (critics, data) != (None, None):
        warnings.warn("no attack here asks critics, so none are fitted", stacklevel=3)
    sources = tuple(source for source in sources if source.name in leaders.values())
    budget = budget_of(victim, epsilon, units=epsilon_units)
    context = _simulated_context(victim, source)
    if film:
        # Before the first episode: what cannot be drawn should not cost the user an evaluation.
        drawn_environment(source).close()
    require_fit(sources, context, sizes=(victim.observation_size, victim.action_size))
    given = np.asarray(epsilon, np.float64)
    plan = EvaluationPlan(
        context=context,
        policy=getattr(victim, "fingerprint", ""),
        epsilon=given.item() if given.ndim == 0 else tuple(given.tolist()),
        epsilon_units=epsilon_units,
        episodes=episodes,
        seed=seed,
        cost_limit=cost_limit,
        attacks={attack.name: attack_settings(attack) for attack in chosen},
        certify=certify,
        critics={source.name: source.to_json() for source in sources},
        aims=getattr(victim, "aims", {}),
    )
    return Evaluation(
        plan=plan,
        policy=victim,
        source=source,
        attacks=chosen,
        budget=budget,
        critic_sources=sources,
        leaders=leaders,
        record=record,
        film=film,
    )


def budget_of(
    victim: EvaluatedPolicy, epsilon: float | Sequence[float], *, units: EpsilonUnits
) -> Tensor:
    """The budget of the attacks on a policy, raw units, (ds,): see `evaluate`.

    Raises:
        UsageError: If it is impossible, or counts deviations that nobody knows.
    """
    if units == "std" and not getattr(victim, "knows_deviations", True):
        raise UsageError(
            "a policy that comes without a dataset knows no deviations: give the budget in raw "
            "units, one number or one a coordinate"
        )
    if (count := np.size(np.asarray(epsilon))) not in (1, victim.observation_size):
        several = ",".join(f"{one:g}" for one in np.asarray(epsilon, np.float64))
        raise UsageError(
            f"epsilon has {count} numbers, but observations have {victim.observation_size} "
            f"coordinates: give one number, or {victim.observation_size}. For several budgets, one "
            f"after the other: --epsilon 1 --budgets {several}"
        )
    return attack_budget(epsilon, victim.observation_std, units=units)


def is_known(policy: object) -> TypeGuard[EvaluatedPolicy]:
    """Whether a policy answers all that an evaluation asks, as ours do."""
    return hasattr(policy, "action_distribution") and hasattr(policy, "observation_std")


def _is_run(path: Path) -> bool:
    return path.name == POLICY_FILE or (path / POLICY_FILE).is_file()


def _victim(
    policy: object, env: str | EnvironmentSource | gymnasium.Env[Any, Any] | None
) -> EvaluatedPolicy:
    """The policy itself if it is one as we know them, else what makes it one."""
    if is_known(policy):
        return policy
    if isinstance(policy, str | Path) and _is_run(Path(policy)):
        return load_policy(policy)
    if env is None:
        raise UsageError("this policy does not say what environment it is for: name it with env=")
    return foreign_policy(policy, source_of(EnvironmentContext(), env))


def _simulated_context(policy: EvaluatedPolicy, source: EnvironmentSource) -> EnvironmentContext:
    """What will be simulated, after a check that the policy fits it."""
    environment = source.make()
    try:
        sizes = {
            "observation": (policy.observation_size, environment.observation_space.shape),
            "action": (policy.action_size, environment.action_space.shape),
        }
        context = source.context_of(environment)
    finally:
        environment.close()
    if different := describe_differences(policy.context, context):
        warnings.warn(different, stacklevel=3)
    for what, (size, shape) in sizes.items():
        if (size,) != shape:
            raise DataError(
                f"the policy has {what}s of size {size}, but {context.env_id} has {what}s of size "
                f"{math.prod(shape or ())}",
                remedy="Evaluate it in the environment that its dataset comes from.",
            )
    return context
