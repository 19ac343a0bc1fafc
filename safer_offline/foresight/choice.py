"""Settings chosen without a simulator: train with each, foresee what comes of it, keep the best.

Best is the largest natural return among those whose foreseen cost keeps the limit under every
attack. Where none does, those count that may keep it unattacked, or else all; among them those that
keep it unattacked and under noise, if there are any; and of these the least worst cost, or what
returns most of those that come near it (`ALIKE`). The worst constant offset is foreseen, too, but
does not choose (`Foresight.decisive`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.errors import UsageError
from safer_offline.files import write_atomically, write_json, writing
from safer_offline.foresight.estimate import Estimate, Foresight
from safer_offline.foresight.model import DynamicsConfig, DynamicsEnsemble, fit_dynamics
from safer_offline.foresight.runs import FORESIGHT_FILE, foresee_run
from safer_offline.interruption import keeping
from safer_offline.learners.base import Learner
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.training.checkpoints import CHECKPOINT_FILE
from safer_offline.training.loop import Run, require_new, train

CHOICE_FILE = "choice.json"
TRIED = "tried"
WORTHWHILE = 0.8
"""Share of the returns that safety under attack must leave where not all models say that it is
needed: it may be a false alarm. On Car-Run it is, and the remedy would cost 70 % of the return."""
STANDING = 0.5
"""Less than this share of what another returns is no caution any more but harm. On Drone-Circle
recovery and attacks in training leave a tenth."""
ALIKE = 1.25
"""Worst costs within this factor of the least are equally bad; where none keeps the limit, return
then decides."""
RESTARTS = 5
"""Of the attacks by which settings are chosen. With one, costs under `mr` of 0.4 and 1.5 were
foreseen on Ball-Run where the simulator has 34 and 65; with five, 26 for the latter."""
ROOM = 0.1
"""Where no model foresees more than this share of the limit under any attack, less care is tried.
Small costs are overestimated, seldom underestimated (`benchmarks/foresight.py`)."""
BOLD = 0.5
"""Share of the limit that less care may be foreseen to cost at worst; in no model more than all."""
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
    def undisturbed(self) -> list[Estimate]:
        """What is foreseen while nobody means harm: unattacked, and under noise."""
        return [one for one in self.foresight.estimates if one.attack in {"natural", "uniform"}]

    @property
    def worst(self) -> Estimate:
        """What is foreseen where it costs most, of what is decisive."""
        return max(self.foresight.decisive, key=lambda one: one.cost)

    @property
    def doubtful(self) -> bool:
        """Whether the limit is foreseen to break, or what is done unattacked not to be foreseen."""
        return self.foresight.breaks_limit or not self.natural.trusted

    def stays_below(self, cost: float) -> bool:
        """Whether no model foresees more than that, by estimates that are all to be trusted."""
        return all(one.trusted and one.cost_interval[1] <= cost for one in self.foresight.decisive)


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
    model: DynamicsEnsemble | None = None,
    foreseen: Foresight | None = None,
    keep_return: float | None = None,
    stop_early: bool = False,
    boldly: bool = False,
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
        keep_return: Share of the returns foreseen of the settings given, unattacked and under
            noise, that another must keep to be chosen, where they keep the limit unattacked;
            where all models say that these break it under attack, one that holds need keep no
            more than `STANDING`. Besides, none is chosen that returns less than that share of
            another. None demands neither.
        stop_early: Whether the rest is left untrained once the best so far is foreseen to keep the
            limit under every attack.
        boldly: Whether the alternatives take less care than the settings given: one is chosen only
            if it is foreseen to return more and to cost at worst `BOLD` of the limit.
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
        chosen, reason = (
            _boldest(found, limit=limit)
            if boldly
            else _best(found, limit=limit, keep_return=keep_return)
        )
        if _holds(chosen, limit):
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
    boldly = not given.doubtful and limit is not None and given.stays_below(ROOM * limit)
    others = alternatives if given.doubtful else bolder if boldly else ()
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
        keep_return=WORTHWHILE,
        stop_early=not boldly,
        boldly=boldly,
        **again,
    )


def _best(
    found: Sequence[Alternative], *, limit: float, keep_return: float | None
) -> tuple[Alternative, str]:
    unattacked = [one for one in found if _may_keep(one, limit)]
    left, among = list(found), []

    def narrow(to: Sequence[Alternative], words: str) -> None:
        nonlocal left
        if 0 < len(to) < len(left):
            left = list(to)
            among.append(words)

    narrow(unattacked, "of those that may keep it unattacked")
    if keep_return is not None:
        if found[0] in unattacked:
            broken = any(one.cost_interval[0] > limit for one in found[0].foresight.decisive)
            kept = [
                one
                for one in left
                if _keeps(one, found[0], keep_return)
                or (broken and _holds(one, limit) and _keeps(one, found[0], STANDING))
            ]
            narrow(kept, f"of those that return {keep_return:.0%} of what the settings given do")
        most = max(one.natural.reward for one in left)
        standing = [one for one in left if _at_least(one.natural, STANDING, most)]
        narrow(standing, f"of those that return {STANDING:.0%} of what another does")
    keeping = [one for one in left if _holds(one, limit)]
    if keeping:
        return (
            max(keeping, key=lambda one: one.natural.reward),
            f"Of the {len(keeping)} that are foreseen to keep the limit of {limit:g} under every "
            "attack it returns most.",
        )
    undisturbed = [one for one in left if all(it.cost <= limit for it in one.undisturbed)]
    narrow(undisturbed, "of those that keep it unattacked and under noise")
    least = min(one.worst.cost for one in left)
    alike = [one for one in left if one.worst.cost <= ALIKE * least]
    words = ", and ".join(among)
    return (
        max(alike, key=lambda one: one.natural.reward),
        f"None is foreseen to keep the limit of {limit:g} under every attack; "
        + (f"{words}, " if words else "")
        + (
            "it exceeds it least."
            if len(alike) == 1
            else f"{len(alike)} exceed it about equally, and of these it returns most."
        ),
    )


def _boldest(found: Sequence[Alternative], *, limit: float) -> tuple[Alternative, str]:
    """Of settings of less care than the first."""
    given, *others = found
    sound = [
        one
        for one in others
        if one.natural.reward > given.natural.reward
        and one.worst.cost <= BOLD * limit
        and one.stays_below(limit)
    ]
    if not sound:
        return given, "Less care is foreseen to return no more, or to come too near the limit."
    return (
        max(sound, key=lambda one: one.natural.reward),
        f"Hardly any cost is foreseen of the settings given; this is foreseen to return more, and "
        f"to cost no more than {BOLD:.0%} of the limit of {limit:g} under any attack.",
    )


def _may_keep(one: Alternative, limit: float) -> bool:
    """Whether it keeps the limit unattacked, or at least not all models say that it breaks it."""
    return one.natural.cost_interval[0] <= limit and one.natural.trusted


def _holds(one: Alternative, limit: float) -> bool:
    """Whether it keeps the limit under every attack."""
    return _may_keep(one, limit) and one.worst.cost <= limit


def _keeps(one: Alternative, given: Alternative, share: float) -> bool:
    """Whether it keeps that share of the returns of the settings given, unattacked and noisy."""
    return all(
        _at_least(mine, share, other.reward)
        for mine, other in zip(one.undisturbed, given.undisturbed, strict=True)
    )


def _at_least(one: Estimate, share: float, reward: float) -> bool:
    """Whether it returns that share of another return, which may be negative."""
    return one.reward >= reward - (1 - share) * abs(reward)


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
