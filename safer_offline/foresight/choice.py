"""Settings chosen without a simulator: train with each, foresee what comes of it, keep the best.

Best is the largest natural return among those whose foreseen cost keeps the limit under every
attack; where none does, the least worst cost.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.errors import UsageError
from safer_offline.files import write_atomically, write_json, writing
from safer_offline.foresight.estimate import Estimate, Foresight
from safer_offline.foresight.model import DynamicsConfig, fit_dynamics
from safer_offline.foresight.runs import FORESIGHT_FILE, foresee_run
from safer_offline.interruption import keeping
from safer_offline.learners.base import Learner
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.training.checkpoints import CHECKPOINT_FILE
from safer_offline.training.loop import Run, require_new, train

CHOICE_FILE = "choice.json"
TRIED = "tried"
KEPT = (CHECKPOINT_FILE, "config.json", "metrics.csv", FORESIGHT_FILE, POLICY_FILE)
"""What becomes the run; the policy last, which makes it one."""


@dataclass(frozen=True)
class Alternative:
    """One training that was tried.

    Attributes:
        settings: What differs from the settings given; nothing for those themselves.
        run: The training.
        foresight: What is foreseen of its policy.
    """

    settings: Mapping[str, Any]
    run: Run
    foresight: Foresight

    @property
    def name(self) -> str:
        """The settings in words."""
        return in_words(self.settings)

    @property
    def natural(self) -> Estimate:
        """What is foreseen without an attack."""
        return self.foresight.estimates[0]

    @property
    def worst(self) -> Estimate:
        """What is foreseen where it costs most."""
        return max(self.foresight.estimates, key=lambda one: one.cost)


@dataclass(frozen=True)
class Choice:
    """What was tried, and which of it was kept.

    Attributes:
        alternatives: In the order tried.
        chosen: The one that was kept.
        run: The run directory that holds it now.
        reason: Why it, in words.
    """

    alternatives: tuple[Alternative, ...]
    chosen: Alternative
    run: Run
    reason: str

    def lines(self) -> list[str]:
        """In words: a line for each, and the reason."""
        width = max(len(one.name) for one in self.alternatives)
        lines = [
            f"  {one.name:{width}}  return {one.natural.reward:.1f}, cost {one.natural.cost:.1f}; "
            f"worst cost {one.worst.cost:.1f} ({one.worst.attack})"
            for one in self.alternatives
        ]
        return [*lines, f"Chosen: {self.chosen.name}. {self.reason}"]


def in_words(settings: Mapping[str, Any]) -> str:
    """Such as `margin=1 recovery_weight=1`."""
    told = (
        f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in settings.items()
    )
    return " ".join(told) or "as given"


def choose(
    config: Any,  # noqa: ANN401 - the dataclass of whatever algorithm
    dataset: TransitionSource,
    alternatives: Sequence[Mapping[str, Any]],
    *,
    out: str | Path,
    algorithm: str | type[Learner] | None = None,
    seed: int = 0,
    resume: bool = False,
    **training: Any,  # noqa: ANN401 - as `train` takes it
) -> Choice:
    """Train with the settings given and with each alternative, and keep what promises most.

    Args:
        config: The settings given; with a cost limit.
        dataset: What to learn from.
        alternatives: Settings to replace by others, such as `[{"margin": 1.0}]`. All are foreseen
            under the budget of the settings given.
        out: Run directory; trainings lie in its folder `tried`.
        algorithm: See `train`.
        seed: See `train`.
        resume: Go on where an earlier call was stopped.
        **training: What else `train` takes.

    Raises:
        UsageError: If there is no cost limit to choose by, an alternative is given twice or has an
            impossible value, or `out` holds a run and `resume` is false.
    """
    limit = getattr(config, "cost_limit", None)
    if limit is None:
        raise UsageError("choosing goes by the cost limit, which this algorithm does not have")
    tried = [dict(one) for one in ({}, *alternatives)]
    for number, one in enumerate(tried):
        if one in tried[:number]:
            raise UsageError(f"'{in_words(one)}' is to be tried twice: once is enough")
    configs = [dataclasses.replace(config, **one) for one in tried]
    directory = Path(out)
    require_new(directory, resume=resume)
    runs = [
        train(
            settings,
            dataset,
            out=directory / TRIED / _folder(number, one),
            algorithm=algorithm,
            seed=seed,
            resume=resume,
            **training,
        )
        for number, (one, settings) in enumerate(zip(tried, configs, strict=True))
    ]
    budget = {name: getattr(config, name, None) for name in ("epsilon", "epsilon_units")}
    with keeping(f"all trainings in {directory / TRIED} are complete", resume=("--resume",)):
        model = fit_dynamics(dataset, DynamicsConfig(), seed=seed)
        found = tuple(
            Alternative(
                one,
                run,
                foresee_run(run.directory, run.policy, dataset, model=model, seed=seed, **budget),
            )
            for one, run in zip(tried, runs, strict=True)
        )
        chosen, reason = _best(found, limit=limit)
        return _keep(Choice(found, chosen, Run(chosen.run.policy, directory), reason))


def _best(found: Sequence[Alternative], *, limit: float) -> tuple[Alternative, str]:
    keeping = [one for one in found if one.worst.cost <= limit and one.natural.trusted]
    if keeping:
        return (
            max(keeping, key=lambda one: one.natural.reward),
            f"Of the {len(keeping)} that are foreseen to keep the limit of {limit:g} under every "
            "attack it returns most.",
        )
    return (
        min(found, key=lambda one: one.worst.cost),
        f"None is foreseen to keep the limit of {limit:g} under every attack; it exceeds it least.",
    )


def _keep(choice: Choice) -> Choice:
    """Copy the chosen training's files to the run directory, and write down why."""
    directory, source = choice.run.directory, choice.chosen.run.directory
    document = {
        "chosen": choice.chosen.name,
        "reason": choice.reason,
        "alternatives": [
            {
                "settings": dict(one.settings),
                "run": str(one.run.directory.relative_to(directory)),
                **one.foresight.to_json(),
            }
            for one in choice.alternatives
        ],
    }
    with writing(directory, what="the run"):
        write_json(directory / CHOICE_FILE, document)
        for name in KEPT:
            write_atomically(directory / name, (source / name).read_bytes())
    return choice


def _folder(number: int, settings: Mapping[str, Any]) -> str:
    """A name that tells, and that every file system takes."""
    plain = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", in_words(settings))
    return f"{number}-{plain[:80]}"
