"""Settings chosen without a simulator: train with each, foresee what comes of it, keep the best."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.errors import UsageError
from safer_offline.files import write_atomically, write_json, writing
from safer_offline.foresight.estimate import Foresight
from safer_offline.foresight.model import DynamicsConfig, DynamicsEnsemble, fit_dynamics
from safer_offline.foresight.preference import (
    ROOM,
    WORTHWHILE,
    Alternative,
    Preference,
    best,
    boldest,
    holds,
    in_words,
)
from safer_offline.foresight.runs import FORESIGHT_FILE, foresee_run
from safer_offline.interruption import keeping
from safer_offline.learners.base import Learner
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.training.checkpoints import CHECKPOINT_FILE
from safer_offline.training.loop import Run, require_new, train

CHOICE_FILE = "choice.json"
TRIED = "tried"
RESTARTS = 5
"""Of the attacks by which settings are chosen. With one, costs under `mr` of 0.4 and 1.5 were
foreseen on Ball-Run where the simulator has 34 and 65; with five, 26 for the latter."""
KEPT = (CHECKPOINT_FILE, "config.json", "metrics.csv", FORESIGHT_FILE, POLICY_FILE)
"""What becomes the run; the policy last, which makes it one."""


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


class Telling(Protocol):
    """Who is told of the first training before others follow."""

    def __call__(self, given: Alternative, *, needed: bool) -> None:
        """`needed` says whether others follow."""
        ...


def alternatives_of(
    algorithm: type[Learner],
    *,
    given: Collection[str],
    kind: Literal["alternatives", "bolder"] = "alternatives",
) -> list[dict[str, Any]]:
    """Settings that an algorithm knows to serve some data better than its defaults.

    Args:
        algorithm: Says so by an attribute of the name `kind`, if it knows any.
        given: Settings that somebody has chosen; alternatives that touch them are left out.
        kind: Those for where the limit is foreseen to break, or those of less care.
    """
    known: Iterable[Mapping[str, Any]] = getattr(algorithm, kind, ())
    return [dict(one) for one in known if not set(one) & set(given)]


def choose(
    config: Any,  # noqa: ANN401 - the dataclass of whatever algorithm
    dataset: TransitionSource,
    alternatives: Sequence[Mapping[str, Any]],
    *,
    out: str | Path,
    algorithm: str | type[Learner] | None = None,
    seed: int = 0,
    resume: bool = False,
    model: DynamicsEnsemble | None = None,
    foreseen: Foresight | None = None,
    prefer: Preference = best,
    stop_early: bool = False,
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
        model: Of `fit_dynamics`. None fits one.
        foreseen: Of the settings given, where that is known already.
        prefer: Says which is kept, and why: `best`, or another of `preference`.
        stop_early: Whether the rest is left untrained once the best so far is foreseen to keep the
            limit under every attack.
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
    budget = {name: getattr(config, name, None) for name in ("epsilon", "epsilon_units")}
    kept = f"{'the' if stop_early else 'all'} trainings in {directory / TRIED} are complete"
    planned = list(zip(range(len(tried)), tried, configs, strict=True))
    found: list[Alternative] = []
    for several in [[one] for one in planned] if stop_early else [planned]:
        runs = [
            train(
                settings,
                dataset,
                out=directory / TRIED / _folder(number, one),
                algorithm=algorithm,
                seed=seed,
                resume=resume,
                like=directory / TRIED / _folder(0, {}) if number else None,
                **training,
            )
            for number, one, settings in several
        ]
        with keeping(kept, resume=("--resume",)):
            model = model or fit_dynamics(dataset, DynamicsConfig(), seed=seed)
            for (_, one, _), run in zip(several, runs, strict=True):
                foresight = foreseen if not one else None
                foresight = foresight or foresee_run(
                    run.directory,
                    run.policy,
                    dataset,
                    model=model,
                    restarts=RESTARTS,
                    seed=seed,
                    **budget,
                )
                found.append(Alternative(one, run, foresight))
        chosen, reason = prefer(found, limit=limit)
        if holds(chosen, limit):
            break
    with keeping(kept, resume=("--resume",)):
        return _keep(Choice(tuple(found), chosen, Run(chosen.run.policy, directory), reason))


def choose_where_needed(
    config: Any,  # noqa: ANN401 - the dataclass of whatever algorithm
    dataset: TransitionSource,
    alternatives: Sequence[Mapping[str, Any]],
    *,
    out: str | Path,
    bolder: Sequence[Mapping[str, Any]] = (),
    algorithm: str | type[Learner] | None = None,
    seed: int = 0,
    resume: bool = False,
    tell: Telling | None = None,
    **training: Any,  # noqa: ANN401 - as `train` takes it
) -> Choice:
    """Train with the settings given; `choose` only where these are foreseen to break the limit.

    Or where what they do unattacked is not to be foreseen. Alternatives are trained one after the
    other until one is foreseen to keep it under every attack. It is chosen only if it keeps most of
    their return (`WORTHWHILE`). Where next to no cost is foreseen (`ROOM`), less care is tried.

    Args:
        config: See `choose`, like `dataset`, `alternatives`, `algorithm`, `seed` and `resume`.
        dataset: See there.
        alternatives: See there.
        bolder: Settings of less care.
        out: Run directory. Where alternatives are trained, the first training moves to its folder
            `tried`, too.
        algorithm: See there.
        seed: See there.
        resume: See there.
        tell: Called with the first training, and whether alternatives are tried, before they are.
        **training: What else `train` takes.

    Raises:
        UsageError: See `choose` and `train`.
    """
    directory = Path(out)
    first = directory / TRIED / _folder(0, {})
    again: dict[str, Any] = {"algorithm": algorithm, "seed": seed, **training}
    moved = (first / POLICY_FILE).exists()
    if moved:
        require_new(directory, resume=resume)
    run = train(config, dataset, out=first if moved else out, resume=moved or resume, **again)
    with keeping(f"the training in {run.directory} is complete", resume=("--resume",)):
        model = fit_dynamics(dataset, DynamicsConfig(), seed=seed)
        restarts = RESTARTS if alternatives or bolder else 1
        foresight = foresee_run(
            run.directory, run.policy, dataset, model=model, restarts=restarts, seed=seed
        )
    given = Alternative({}, run, foresight)
    limit = foresight.cost_limit
    boldly = bool(bolder) and limit is not None and given.stays_below(ROOM * limit)
    others = bolder if boldly else alternatives if given.doubtful else ()
    if not moved:
        if tell is not None:
            tell(given, needed=bool(others))
        if not others:
            return Choice((given,), given, run, "Nothing else was tried.")
        _copy(directory, first)
        for events in directory.glob("events.out.tfevents.*"):  # else it is shown as the chosen one
            events.replace(first / events.name)
    return choose(
        config,
        dataset,
        others,
        out=out,
        resume=True,
        model=model,
        foreseen=foresight,
        prefer=boldest if boldly else partial(best, keep_return=WORTHWHILE),
        stop_early=not boldly,
        **again,
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
    _copy(source, directory)
    return choice


def _copy(source: Path, directory: Path) -> None:
    """A training's files; the policy, which says that they are complete, goes last."""
    with writing(directory, what="the run"):
        directory.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            write_atomically(directory / name, (source / name).read_bytes())


def _folder(number: int, settings: Mapping[str, Any]) -> str:
    """A name that tells, and that every file system takes."""
    plain = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", in_words(settings))
    return f"{number}-{plain[:80]}"
