"""How safe a policy stays when its observations are attacked, measured in simulation.

harness     `evaluate`: a policy, an environment, attacks and a budget
simulation  how an evaluation runs, every episode under every attack
trials      what there is to run: attacks with budgets, in batches of episodes
budgets     `evaluate_budgets`: the same with several budgets, and the curve through them
task        which environment is meant: what the policy carries, or what the user says
foreign     policies that others trained or wrote, as ours look to an attack
foreign_files  the same in files of Stable-Baselines3, PyTorch and ONNX, and by name
wrapper     attacks in loops of one's own, as a wrapper of Gymnasium
plan        all that the numbers depend on, as JSON and as a name
rollouts    episodes of an attacked policy, many at once
certificates  what no attack can do to single actions, proven
critics     critics that were fitted for an attack, so that the policy's own need not lead it
parallel    waves of these episodes side by side, in processes
adversaries attacks that must first be found in whole episodes, and how they are
durations   how long an evaluation takes, before it begins
unfinished  what is done so far, for an evaluation that is interrupted
gates       what must hold of every evaluation
statistics  estimators on the episodes of one policy: plain functions of arrays
seeds       estimators over several trainings of one method
reference   the returns that DSRL scales its own by
paths       some episodes step by step: what was true, and what the policy saw
plane       where observations hold a place, for pictures of paths
path_figures  such pictures
film        the same as a clip, drawn by the simulator
colours     of all figures
results     what was found: every episode under every attack
remarks     what to know of attacks that were searched for
tables      the same as a table on screen
rendering   the same as files and a figure
curves      cost against budget as tables, files and a figure
comparison  several policies beside each other, start by start
profiles    how many episodes of each score above a threshold
trainings   which of them differ in the training seed alone
running     evaluations one after the other
side_by_side  a comparison as a table, files and a figure
outputs     one budget or several, on screen, as JSON and as files
report/     one page about runs: `write_report`
folders     where they lie, so that none replaces another, and which there are
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safer_offline.evaluation.report import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    # Only then: what evaluates need not load what writes pages.
    return getattr(importlib.import_module(f"{__name__}.report"), name)
