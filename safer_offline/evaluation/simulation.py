"""An evaluation that is about to begin, and how it runs: every episode under every attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from safer_offline.attacks import (
    Attack,
    GradientAttack,
    attack_budget,
    attack_settings,
    relabelled,
)
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import UsageError
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal
from safer_offline.evaluation.adversaries.rehearse import rehearsal_work, rehearse
from safer_offline.evaluation.certificates.certificate import certify as certify_actions
from safer_offline.evaluation.critics.finding import CriticFinder, critics_work
from safer_offline.evaluation.critics.fitted_q import FittedCritics
from safer_offline.evaluation.critics.sources import CriticSource
from safer_offline.evaluation.film import drawn_environment, film
from safer_offline.evaluation.gates import gradients_lead_somewhere
from safer_offline.evaluation.parallel import run_waves
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
from safer_offline.evaluation.trials import EVALUATE, FIT, Recorder, Trial, episode_seeds, waves
from safer_offline.evaluation.unfinished import UnfinishedEvaluation
from safer_offline.progress import ProgressBar, progress_bar

FIT_EPISODES = 20
"""Natural episodes from which an attack learns what it must know of its victim."""


class Simulated(NamedTuple):
    """What happened in the episodes of a plan."""

    episodes: pd.DataFrame
    """What `Rollouts.run` tells of each, by multiples, attacks and episodes."""
    trials: list[Trial]
    """With what their attacks learned of their victim."""
    visited: Tensor | None = None
    """What the policy saw without attack, (N, ds); None if nobody asks for it, or not yet."""


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
        film: Whether it also films the worst of them.
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
    film: bool = False
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
        if not self.record and not self.film:
            return whole
        paths = self._paths(
            whole, found.trials, workers=workers, max_rows=max_rows, progress=progress
        )
        return replace(whole, paths=paths, clip=self._clip(paths) if self.film else b"")

    def _clip(self, paths: tuple[EpisodePath, ...]) -> bytes:
        environment = drawn_environment(self.source)
        try:
            return film(paths, environment)
        finally:
            environment.close()

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
        seeds = episode_seeds(self.plan.seed, self.plan.episodes, domain=EVALUATE)
        jobs = [
            job
            for trial in trials
            if trial.attack.name in met
            for wave in waves([trial], seeds, max_rows)
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
        # Gates compare attacks that follow gradients where the policy goes.
        fitting = plan.certify or any(
            attack.needs_fit or isinstance(attack, GradientAttack) for attack in self.attacks
        )
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
                recorder = Recorder()
                seeds = episode_seeds(plan.seed, FIT_EPISODES, domain=FIT)
                rollouts.run([Job(recorder, range(FIT_EPISODES), seeds, self.budget)])
                visited = torch.cat(recorder.seen)
                fitted = {
                    t.attack.name: t.attack.fit(t.victim_of(policy), visited)
                    for t in trials
                    if t.attack.needs_fit
                }
                trials = [t._replace(attack=fitted.get(t.attack.name, t.attack)) for t in trials]
            seeds = episode_seeds(plan.seed, plan.episodes, domain=EVALUATE)
            # Each attack that must be found has waves of its own, behind those of all others.
            at_once = [trial for trial in trials if not trial.needs_rehearsal]
            groups = [at_once] if at_once else []
            groups += [[trial] for trial in trials if trial.needs_rehearsal]
            sizes = [len(list(waves(group, seeds, max_rows))) for group in groups]
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
                    batches = list(waves(found, seeds, max_rows))
                    kept = min(max(len(done.tables) - begun, 0), size)
                    bar.advance(
                        horizon * sum(len(j.seeds) for wave in batches[:kept] for j in wave)
                    )
                    for table in run_waves(rollouts, batches[kept:], workers=workers, bar=bar):
                        done.add(table)
                    begun += size
                    ran += found
            return Simulated(self._sorted(done.tables), ran, visited)

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

    def _failed_gates(
        self, trials: Sequence[Trial], visited: Tensor, *, budget: Tensor
    ) -> tuple[str, ...]:
        """What attacks that follow gradients should reach and do not."""
        # What remembers its episode cannot be asked about observations out of their order.
        if getattr(self.policy, "remembers", False) or not budget.any():
            return ()
        victims = [(trial.attack, trial.victim_of(self.policy)) for trial in trials]
        return tuple(gradients_lead_somewhere(victims, visited, budget=budget))

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
        budget = attack_budget(plan.epsilon, self.policy.observation_std, units=plan.epsilon_units)
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
            failed_gates=()
            if visited is None
            else self._failed_gates(trials, visited, budget=budget),
            certificate=None
            if visited is None or not plan.certify
            else certify_actions(
                self.policy,
                visited,
                budget=budget,
                cost_limit=plan.cost_limit,
                horizon=plan.context.max_episode_steps,
                seed=plan.seed,
                progress=progress,
            ),
            critics=critics,
        )
