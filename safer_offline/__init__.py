"""Offline safe reinforcement learning that stays safe under observation attacks.

    from safer_offline import SAFERConfig, evaluate, load_dataset, load_policy, train
    from safer_offline.datasets import collect

Names are imported when they are first used: training never loads the simulator, and `--help` never
loads torch.

learners/       algorithms; `safer/` is ours
policies/       networks, critics, and the policy file
estep/          the constrained E-step, one convex problem
attacks/        what an adversary does to observations
training/       the loop, checkpoints, resuming
foresight/      what a policy would do, from models of the data alone
evaluation/     how safe a policy stays under attack
environments/   simulators, made deterministic
datasets/       everything about datasets (its folder lies at the top)
cli/            the commands (likewise)
context         which environment data and policies come from
registration    the ids of our tasks in Gymnasium
registry, settings, importing   names, options and code of other people
errors, files, locking, interruption, progress, machine   errors, disks, signals, bars, cores
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from safer_offline.registration import register_with_gymnasium

if TYPE_CHECKING:
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.estep import solve_estep, solve_estep_cvxpy
    from safer_offline.evaluation.budgets import BudgetReport, evaluate_budgets
    from safer_offline.evaluation.comparison import Comparison
    from safer_offline.evaluation.critics.settings import CriticSettings
    from safer_offline.evaluation.folders import list_evaluations
    from safer_offline.evaluation.harness import evaluate
    from safer_offline.evaluation.report import write_report
    from safer_offline.evaluation.results import EvaluationReport
    from safer_offline.evaluation.wrapper import AttackedObservation
    from safer_offline.foresight import Foresight, choose, foresee
    from safer_offline.learners import (
        SAFER,
        BCConfig,
        BCQLagConfig,
        BCSafeConfig,
        BEARLagConfig,
        CAPSConfig,
        CDTConfig,
        COptiDICEConfig,
        CPQConfig,
        FISORConfig,
        SAFERConfig,
        SAFERPaperConfig,
    )
    from safer_offline.policies.trained import TrainedPolicy, load_policy
    from safer_offline.training.loop import Run, train

__all__ = [
    "SAFER",
    "AttackedObservation",
    "BCConfig",
    "BCQLagConfig",
    "BCSafeConfig",
    "BEARLagConfig",
    "BudgetReport",
    "CAPSConfig",
    "CDTConfig",
    "COptiDICEConfig",
    "CPQConfig",
    "Comparison",
    "CriticSettings",
    "EvaluationReport",
    "FISORConfig",
    "Foresight",
    "Run",
    "SAFERConfig",
    "SAFERPaperConfig",
    "TrainedPolicy",
    "choose",
    "evaluate",
    "evaluate_budgets",
    "foresee",
    "list_evaluations",
    "load_dataset",
    "load_policy",
    "solve_estep",
    "solve_estep_cvxpy",
    "train",
    "write_report",
]

_HOMES = {
    "SAFER": "learners",
    "BCConfig": "learners",
    "BCQLagConfig": "learners",
    "BCSafeConfig": "learners",
    "BEARLagConfig": "learners",
    "CAPSConfig": "learners",
    "CDTConfig": "learners",
    "COptiDICEConfig": "learners",
    "CPQConfig": "learners",
    "FISORConfig": "learners",
    "SAFERConfig": "learners",
    "SAFERPaperConfig": "learners",
    "AttackedObservation": "evaluation.wrapper",
    "EvaluationReport": "evaluation.results",
    "Comparison": "evaluation.comparison",
    "BudgetReport": "evaluation.budgets",
    "CriticSettings": "evaluation.critics.settings",
    "evaluate": "evaluation.harness",
    "evaluate_budgets": "evaluation.budgets",
    "list_evaluations": "evaluation.folders",
    "load_dataset": "datasets.loading",
    "write_report": "evaluation.report",
    "Foresight": "foresight.estimate",
    "choose": "foresight.choice",
    "foresee": "foresight.estimate",
    "TrainedPolicy": "policies.trained",
    "load_policy": "policies.trained",
    "Run": "training.loop",
    "train": "training.loop",
    "solve_estep": "estep",
    "solve_estep_cvxpy": "estep",
}


register_with_gymnasium()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
