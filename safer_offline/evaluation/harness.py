"""How safe a policy stays when its observations are attacked.

All attacks meet the same episodes, so that what differs between them is the attack alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeGuard

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from safer_offline.attacks import (
    Attack,
    AttackTarget,
    EpsilonUnits,
    Natural,
    NoiseSource,
    WithCritics,
    attack_budget,
    attack_settings,
    relabelled,
    resolve_attacks,
)
from safer_offline.context import EnvironmentContext
from safer_offline.datasets.loading import Source, load_dataset
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, UsageError
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal
from safer_offline.evaluation.adversaries.rehearse import rehearsal_work, rehearse
from safer_offline.evaluation.certificates.certificate import certify as certify_actions
from safer_offline.evaluation.critics.finding import CriticFinder, critics_work
from safer_offline.evaluation.critics.fitted_q import SIGNALS, FittedCritics
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.critics.sources import (
    CriticSource,
    choose_sources,
    led_by,
    require_fit,
    why_no_critic,
)
from safer_offline.evaluation.foreign import foreign_policy
from safer_offline.evaluation.paths import (
    EpisodePath,
    attacks_to_show,
    episodes_to_show,
    record_paths,
)
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.reference import dsrl_range
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.evaluation.rollouts import EvaluatedPolicy, Job, Rollouts
from safer_offline.evaluation.task import describe_differences, environment_of
from safer_offline.evaluation.unfinished import UnfinishedEvaluation
from safer_offline.progress import ProgressBar, progress_bar

FIT_EPISODES = 20
"""Natural episodes from which an attack learns what it must know of its victim."""

# Domains of the episode seeds: fitting sees other episodes than the evaluation, and both others
# than datasets, whose seed sequences have no spawn key.
_EVALUATE, _FIT = 101, 102


def evaluate(
    policy: EvaluatedPolicy | object,
    *,
    env: str | EnvironmentSource | None = None,
    attacks: str | Sequence[str | Attack] = "all",
    attack_set: Sequence[str] = (),
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    workers: int | None = None,
    cost_limit: float | None = None,
    record: bool = False,
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
        policy: A policy of ours with its critics, or any other: see `foreign_policy`, which needs
            `env`.
        env: Name of the task (see `EnvironmentSource`), or a source that says more than its name.
            None takes the environment that the policy was trained for, as it was there; so does its
            name. What differs from that is a warning, and stands in the report.
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
        certify=certify,
        critics=critics,
        data=data,
        critic_settings=critic_settings,
    )
    return evaluation.run(workers=workers, max_rows=max_rows, progress=progress)


def prepare(
    policy: EvaluatedPolicy | object,
    *,
    env: str | EnvironmentSource | None = None,
    attacks: str | Sequence[str | Attack] = "all",
    attack_set: Sequence[str] = (),
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    cost_limit: float | None = None,
    record: bool = False,
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
    source = env if isinstance(env, EnvironmentSource) else environment_of(carried, env=env)
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


class Trial(NamedTuple):
    """An attack with a budget; all episodes of a plan run in each trial."""

    attack: Attack
    budget: Tensor
    """How far it may move each coordinate, raw units, (ds,)."""
    multiple: float = 1.0
    """The same as a multiple of the budget asked for."""
    critics: FittedCritics | None = None
    """Whom the attack asks instead of the policy's own critics, once they are fitted."""

    @property
    def needs_rehearsal(self) -> bool:
        """Whether the attack must be found first; without a budget there is nothing to find."""
        return self.attack.needs_rehearsal and bool(self.budget.any())

    @property
    def met(self) -> Attack:
        """What the episodes meet: no attack where there is nothing to find."""
        if self.attack.needs_rehearsal and not self.needs_rehearsal:
            return relabelled(Natural(), self.attack.name)
        return self.attack


class Simulated(NamedTuple):
    """What happened in the episodes of a plan."""

    episodes: pd.DataFrame
    """What `Rollouts.run` tells of each, by multiples, attacks and episodes."""
    trials: list[Trial]
    """With what their attacks learned of their victim."""
    visited: Tensor | None = None
    """What the policy saw without attack, (N, ds); None if nothing is to be certified, or yet."""


SoFar = Callable[[Simulated], object]
"""Gets what `Evaluation.simulate` would return if it ended here."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation that is about to begin.

    Attributes:
        plan: All that its numbers depend on.
        policy: The victim.
        source: Makes the environment.
        attacks: As asked for; `simulate` fits or finds those that must know their victim.
        budget: Of the attacks, raw units, shape (ds,).
        record: Whether `run` keeps the steps of some episodes, see `evaluate`.
        critic_sources: What critics are fitted to.
        leaders: The names of those sources whose critics lead an attack, by the name of the attack;
            all others ask the policy's own.
    """

    plan: EvaluationPlan
    policy: EvaluatedPolicy
    source: EnvironmentSource
    attacks: tuple[Attack, ...]
    budget: Tensor
    record: bool = False
    critic_sources: tuple[CriticSource, ...] = ()
    leaders: dict[str, str] = field(default_factory=dict)

    @property
    def trials(self) -> list[Trial]:
        """What there is to run."""
        return [Trial(attack, self.budget) for attack in self.attacks]

    def run(
        self,
        *,
        workers: int | None = None,
        max_rows: int = 32,
        progress: bool = True,
        keep_in: Path | None = None,
        adversaries_in: Path | None = None,
        critics_in: Path | None = None,
        meanwhile: Callable[[EvaluationReport], object] | None = None,
    ) -> EvaluationReport:
        """Run all episodes; see `evaluate`.

        Attacks that must first be found, which takes minutes, come last.

        Args:
            workers: See `evaluate`, like the two that follow.
            max_rows: See there.
            progress: See there.
            keep_in: A folder, which exists, for what is done: an interrupted evaluation goes on
                from there, to the same numbers.
            adversaries_in: A folder for attacks that must first be found: against the same policy,
                with the same budget and settings, they are found once.
            critics_in: A folder for critics that must be fitted: to the same policy, once.
            meanwhile: Gets the report of all other attacks before the first of these is searched.
        """

        def report(found: Simulated) -> EvaluationReport:
            return self.report(self.plan, found, progress=progress)

        found = self.simulate(
            self.trials,
            workers=workers,
            max_rows=max_rows,
            progress=progress,
            keep_in=keep_in,
            adversaries_in=adversaries_in,
            critics_in=critics_in,
            meanwhile=None if meanwhile is None else lambda so_far: meanwhile(report(so_far)),
        )
        whole = report(found)
        if not self.record:
            return whole
        return replace(
            whole,
            paths=self._paths(
                whole, found.trials, workers=workers, max_rows=max_rows, progress=progress
            ),
        )

    def _paths(
        self,
        report: EvaluationReport,
        trials: Sequence[Trial],
        *,
        workers: int | None,
        max_rows: int,
        progress: bool,
    ) -> tuple[EpisodePath, ...]:
        """What happened in the episodes that are worth a look."""
        worst = report.worst_attack()
        shown = episodes_to_show(report.episodes, attack=worst)
        met = attacks_to_show(worst, report.attacks)
        seeds = _episode_seeds(self.plan.seed, self.plan.episodes, domain=_EVALUATE)
        jobs = [
            job
            for trial in trials
            if trial.attack.name in met
            for wave in _waves([trial], seeds, max_rows)
            for job in wave
            if not shown.keys().isdisjoint(job.episodes)
        ]
        horizon = self.plan.context.max_episode_steps or 0
        total = horizon * sum(len(job.seeds) for job in jobs)
        with (
            progress_bar("record", total=total, enabled=progress) as bar,
            Rollouts(
                self.policy, source=self.source, seed=self.plan.seed, workers=workers, bar=bar
            ) as rollouts,
        ):
            return record_paths(rollouts, jobs, shown=shown, known=report.episodes)

    def simulate(
        self,
        trials: Sequence[Trial],
        *,
        workers: int | None,
        max_rows: int,
        progress: bool,
        keep_in: Path | None,
        adversaries_in: Path | None,
        critics_in: Path | None,
        meanwhile: SoFar | None,
    ) -> Simulated:
        """Run the episodes of the plan in each of some trials.

        Args:
            trials: Of `attacks`, in any number.
            workers: See `run`, like all that follow.
            max_rows: See there.
            progress: See there.
            keep_in: See there.
            adversaries_in: See there.
            critics_in: See there.
            meanwhile: See there.
        """
        if max_rows < 1:
            raise UsageError(f"max_rows must be at least 1, not {max_rows}")
        plan, policy = self.plan, self.policy
        fitting = plan.certify or any(attack.needs_fit for attack in self.attacks)
        horizon = plan.context.max_episode_steps or 0
        total: float = horizon * (len(trials) * plan.episodes + fitting * FIT_EPISODES)
        total += sum(
            rehearsal_work(trial.attack, horizon=horizon, size=policy.observation_size)
            for trial in trials
            if trial.needs_rehearsal
        )
        total += sum(critics_work(source, horizon=horizon) for source in self.critic_sources)
        with (
            progress_bar("evaluate", total=total, enabled=progress) as bar,
            Rollouts(
                policy,
                source=self.source,
                seed=plan.seed,
                workers=workers,
                bar=bar,
            ) as rollouts,
        ):
            visited = None
            critics = self._critics(bar, workers=workers, folder=critics_in)
            trials = [
                t._replace(critics=critics[self.leaders[t.attack.name]])
                if t.attack.name in self.leaders
                else t
                for t in trials
            ]
            if fitting:
                recorder = _Recorder()
                seeds = _episode_seeds(plan.seed, FIT_EPISODES, domain=_FIT)
                rollouts.run([Job(recorder, range(FIT_EPISODES), seeds, self.budget)])
                visited = torch.cat(recorder.seen)
                fitted = {
                    t.attack.name: t.attack.fit(
                        policy if t.critics is None else WithCritics(policy, t.critics), visited
                    )
                    for t in trials
                    if t.attack.needs_fit
                }
                trials = [t._replace(attack=fitted.get(t.attack.name, t.attack)) for t in trials]
            seeds = _episode_seeds(plan.seed, plan.episodes, domain=_EVALUATE)
            # Each attack that must be found has waves of its own, behind those of all others.
            at_once = [trial for trial in trials if not trial.needs_rehearsal]
            groups = [at_once] if at_once else []
            groups += [[trial] for trial in trials if trial.needs_rehearsal]
            sizes = [len(list(_waves(group, seeds, max_rows))) for group in groups]
            done = UnfinishedEvaluation(
                keep_in,
                identity={"plan": plan.to_json(), "max_rows": max_rows},
                waves=sum(sizes),
            )
            ran: list[Trial] = []
            begun = 0
            with done.kept_if_interrupted():
                for group, size in zip(groups, sizes, strict=True):
                    found = group
                    if group[0].needs_rehearsal:
                        if meanwhile is not None and ran:
                            meanwhile(Simulated(self._sorted(done.tables[:begun]), ran))
                        meanwhile = None
                        rollouts.close()  # its simulators would only take memory
                        rehearsal = self._rehearsal(
                            group[0].budget, bar, workers=workers, folder=adversaries_in
                        )
                        asked = group[0].attack
                        # What stands in for it may call itself something else.
                        attack = relabelled(rehearse(asked, rehearsal), asked.name)
                        found = [group[0]._replace(attack=attack)]
                    for number, wave in enumerate(_waves(found, seeds, max_rows), start=begun):
                        if number < len(done.tables):
                            bar.advance(horizon * sum(len(job.seeds) for job in wave))
                        else:
                            done.add(rollouts.run(wave))
                    begun += size
                    ran += found
            return Simulated(self._sorted(done.tables), ran, visited if plan.certify else None)

    def _critics(
        self, bar: ProgressBar, *, workers: int | None, folder: Path | None
    ) -> dict[str, FittedCritics]:
        """Those that lead attacks, by their source."""
        finder = CriticFinder(
            self.policy,
            source=self.source,
            horizon=self.plan.context.max_episode_steps or 0,
            workers=workers,
            bar=bar,
            identity=self._identity,
            # What has no name cannot be found again.
            folder=folder if self.plan.policy else None,
        )
        return finder.find(self.critic_sources, self.plan.to_json().get("critics", {}))

    @property
    def _identity(self) -> dict[str, Any]:
        """Whom, and where, all that must first be found is about."""
        environment = self.plan.to_json()["environment"]
        environment.pop("versions", None)
        return {
            "policy_sha256": self.plan.policy,
            "env": self.plan.context.env_id,
            "environment": environment,
        }

    def _rehearsal(
        self, budget: Tensor, bar: ProgressBar, *, workers: int | None, folder: Path | None
    ) -> Rehearsal:
        return Rehearsal(
            self.policy,
            source=self.source,
            budget=budget,
            workers=workers,
            horizon=self.plan.context.max_episode_steps or 0,
            bar=bar,
            identity={**self._identity, "budget": budget.tolist()},
            # What has no name cannot be found again.
            folder=folder if self.plan.policy else None,
        )

    def _sorted(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """All of them as one, attacks in the order in which they were asked for."""
        order = pd.CategoricalDtype([attack.name for attack in self.attacks], ordered=True)
        table = pd.concat(tables, ignore_index=True).astype({"attack": order})
        table = table.sort_values(["multiple", "attack", "episode"], ignore_index=True)
        return table.astype({"attack": str})

    def report(self, plan: EvaluationPlan, found: Simulated, *, progress: bool) -> EvaluationReport:
        """What was found with one budget, with what is known of the policy.

        Args:
            plan: Of these episodes.
            found: What `simulate` tells of them, with one trial for each attack.
            progress: See `run`.
        """
        episodes, trials, visited = found
        carried = self.policy.context
        ran = {trial.attack.name: trial for trial in trials}
        asked = [attack for attack in self.attacks if attack.name in ran]
        critics: dict[str, dict[str, Any]] = {}
        for trial in trials:
            if trial.critics is not None:
                told = critics.setdefault(
                    self.leaders[trial.attack.name], {**trial.critics.told, "asked": []}
                )
                told["asked"] = sorted({*told["asked"], *trial.attack.critics})
        return EvaluationReport(
            plan=plan,
            carried=carried,
            # Returns of another task do not compare.
            reward_range=self.policy.reward_range if carried.is_task_of(plan.context) else None,
            dsrl_range=dsrl_range(plan.context),
            attacks={attack.name: attack_settings(ran[attack.name].attack) for attack in asked},
            episodes=episodes.drop(columns="multiple"),
            searched=tuple(
                attack.name
                for attack in asked
                if attack.needs_rehearsal and ran[attack.name].budget.any()
            ),
            certificate=None
            if visited is None
            else certify_actions(
                self.policy,
                visited,
                budget=attack_budget(
                    plan.epsilon, self.policy.observation_std, units=plan.epsilon_units
                ),
                cost_limit=plan.cost_limit,
                horizon=plan.context.max_episode_steps,
                seed=plan.seed,
                progress=progress,
            ),
            critics=critics,
        )


def is_known(policy: object) -> TypeGuard[EvaluatedPolicy]:
    """Whether a policy answers all that an evaluation asks, as ours do."""
    return hasattr(policy, "action_distribution") and hasattr(policy, "observation_std")


def _victim(policy: object, env: str | EnvironmentSource | None) -> EvaluatedPolicy:
    """The policy itself if it is one as we know them, else what makes it one."""
    if is_known(policy):
        return policy
    if env is None:
        raise UsageError("this policy does not say what environment it is for: name it with env=")
    source = env if isinstance(env, EnvironmentSource) else EnvironmentSource(name=env)
    return foreign_policy(policy, source)


class _Recorder(Natural):
    """No attack, but it remembers what the policy saw."""

    name: ClassVar[str] = "fit"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`."""
        self.seen.append(observations)
        return observations


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


def _episode_seeds(seed: int, count: int, *, domain: int) -> list[int]:
    """Environment seeds of episodes 0, 1, ...; those of fewer episodes are a prefix of these."""
    sequence = np.random.SeedSequence([seed], spawn_key=(domain,))
    return [int(word) for word in sequence.generate_state(count)]


def _waves(trials: Sequence[Trial], seeds: list[int], max_rows: int) -> Iterator[list[Job]]:
    """Split trials x episodes into waves of at most `max_rows` rows, of sizes as equal as can be.

    How the episodes of a trial are grouped depends on their number only, not on other trials.
    """
    count = len(seeds)
    for part in np.array_split(np.arange(count), math.ceil(count / max_rows)):
        episodes = range(int(part[0]), int(part[-1]) + 1)
        part_seeds = [seeds[i] for i in episodes]
        jobs = [
            Job(trial.met, episodes, part_seeds, trial.budget, trial.multiple, trial.critics)
            for trial in trials
        ]
        together = max_rows // len(episodes)
        for group in np.array_split(np.arange(len(jobs)), math.ceil(len(jobs) / together)):
            yield [jobs[i] for i in group]
