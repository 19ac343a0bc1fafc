"""Evaluations one after the other, and what they say beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from safer_offline.errors import UsageError
from safer_offline.evaluation import outputs
from safer_offline.evaluation.budgets import BudgetEvaluation, BudgetReport
from safer_offline.evaluation.comparison import Comparison
from safer_offline.evaluation.folders import adversaries_folder, critics_folder, results_folder
from safer_offline.evaluation.side_by_side import RunOfMethod
from safer_offline.evaluation.simulation import Evaluation
from safer_offline.evaluation.trainings import group_by_training
from safer_offline.interruption import Interrupted, signal_of
from safer_offline.locking import sole_writer


def run_each(
    evaluations: Mapping[str, Evaluation | BudgetEvaluation],
    *,
    workers: int | None = None,
    say: Callable[[str], object] = lambda line: None,
    meanwhile: Callable[[str, outputs.Found], object] = lambda run, found: None,
) -> tuple[Comparison, dict[str, RunOfMethod]]:
    """Run several evaluations and compare what they find.

    Each leaves its results where it would leave them by itself, and keeps beside them what it takes
    to go on from there: whoever has written the comparison calls `forget_unfinished` for each.

    Args:
        evaluations: By the paths of the runs.
        workers: Simulation processes, see `evaluate`.
        say: Gets a line for each evaluation that is done, and one for each remark of it.
        meanwhile: Gets the path of a run and what is found of it before an attack is searched.

    Returns:
        The comparison, and what it is of by the paths of the runs.

    Raises:
        UsageError: If a policy is given twice.
        Interrupted: If somebody interrupts; says what is kept.
    """
    policies = {run: evaluation.policy for run, evaluation in evaluations.items()}
    methods = group_by_training(policies)
    folders = {run: results_folder(run, one.plan) for run, one in evaluations.items()}
    if len(set(folders.values())) < len(folders):
        raise UsageError(
            "two of these policies would write the same results; put each into a folder of its own"
        )
    found: dict[str, outputs.Found] = {}
    for number, (run, evaluation) in enumerate(evaluations.items(), start=1):
        folder = folders[run]
        try:
            with sole_writer(folder):
                found[run] = evaluation.run(
                    workers=workers,
                    keep_in=folder,
                    adversaries_in=adversaries_folder(run),
                    critics_in=critics_folder(run),
                    meanwhile=partial(meanwhile, run),
                )
                outputs.save(found[run], folder)
        except KeyboardInterrupt as error:
            raise _with_others(error, done=number - 1, of=len(evaluations)) from None
        say(f"{number} of {len(evaluations)}: {run}, {_in_short(found[run])}; results in {folder}")
        for remark in found[run].remarks():
            say(f"{remark}.")
        for sentence in found[run].certified():
            say(sentence)
    method_of = {run: method for method, several in methods.items() for run in several}
    runs = {
        run: RunOfMethod(method_of[run], evaluation.plan, folders[run])
        for run, evaluation in evaluations.items()
    }
    reports = {method: [found[run] for run in several] for method, several in methods.items()}
    return Comparison.of(reports), runs


def _in_short(found: outputs.Found) -> str:
    last = list(found.reports.values())[-1] if isinstance(found, BudgetReport) else found
    worst = last.worst_case()
    return f"worst per episode {worst['reward_mean']:.1f}, cost {worst['cost_mean']:.1f}"


def _with_others(error: KeyboardInterrupt, *, done: int, of: int) -> Interrupted:
    """The interruption of one evaluation, with what is kept of the others."""
    kept = [f"{done} of {of} runs are kept"] if done else []
    if isinstance(error, Interrupted) and error.kept:
        kept.append(error.kept)
    return Interrupted("; ".join(kept), number=signal_of(error))
