"""Where the results of evaluations lie, so that none replaces another, and which there are.

Every evaluation of a run has a folder of its own, `RUN/evaluations/NAME`, named for what was
evaluated (`EvaluationPlan.name`). The same evaluation once more takes the same place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from safer_offline.errors import UsageError
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.rendering import as_standard_json
from safer_offline.files import require_writable

FOLDER = "evaluations"
ADVERSARIES = "adversaries"
CRITICS = "critics"
REPORT_FILE = "evaluation.json"
COMPARISON_FILE = "comparison.json"


def results_folder(
    run: str | Path, plan: EvaluationPlan, *, out: str | Path | None = None, overwrite: bool = False
) -> Path:
    """The folder for the results of an evaluation; nothing is made yet.

    Args:
        run: Run directory, or the policy file in it.
        plan: What is evaluated.
        out: Put them here instead.
        overwrite: Whether results of another evaluation that lie there may be replaced.

    Raises:
        UsageError: If the folder holds the results of another evaluation.
        OutputError: If nothing could be written there.
    """
    folder = _home(run) / plan.name if out is None else Path(out)
    require_writable(folder)
    report = folder / REPORT_FILE
    if report.exists() and not overwrite and _config(report) != _comparable(plan):
        raise _another("evaluation", folder, _home(run))
    return folder


def comparison_folder(
    plans: Mapping[str, EvaluationPlan], *, out: str | Path | None = None, overwrite: bool = False
) -> Path:
    """The folder for a comparison of runs: among the evaluations of the first; nothing is made yet.

    Args:
        plans: What each run is evaluated with, by its path.
        out: Put it here instead.
        overwrite: Whether another comparison that lies there may be replaced.

    Raises:
        UsageError: If the folder holds another comparison.
        OutputError: If nothing could be written there.
    """
    first, plan = next(iter(plans.items()))
    config = {run: _comparable(one) for run, one in plans.items()}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    name = f"{plan.name.rpartition('-')[0]}-{len(plans)}runs-{digest[:8]}"
    folder = _home(first) / name if out is None else Path(out)
    require_writable(folder)
    if not overwrite and (folder / COMPARISON_FILE).exists():
        known = _read(folder / COMPARISON_FILE).get("config")
        if not isinstance(known, dict) or {k: _lasting(v) for k, v in known.items()} != config:
            raise _another("comparison", folder, _home(first))
    return folder


def adversaries_folder(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Where attacks are kept that had to be found first; for all evaluations of a run the same.

    Args:
        run: Run directory, or the policy file in it.
        out: The folder of the results, if the user gave one; then they are kept in there.
    """
    return (_home(run) if out is None else Path(out)) / ADVERSARIES


def critics_folder(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Where critics are kept that were fitted to lead attacks; see `adversaries_folder`."""
    return (_home(run) if out is None else Path(out)) / CRITICS


def _home(run: str | Path) -> Path:
    """The folder of all evaluations of a run."""
    run = Path(run)
    return (run if run.is_dir() else run.parent) / FOLDER


def _another(what: str, folder: Path, home: Path) -> UsageError:
    return UsageError(
        f"{folder} holds the results of another {what}; give another --out, leave it out (then "
        f"they go to {home}, each in a folder of its own), or say --overwrite"
    )


def list_evaluations(run: str | Path) -> pd.DataFrame:
    """All evaluations of a run, one row for each and each of its budgets; the most recent last.

    Args:
        run: Run directory, or the policy file in it.

    Returns:
        Columns `folder`, `env`, `epsilon`, `epsilon_units`, `episodes`, `seed`, `cost_limit`,
        `natural_reward`, `natural_cost` (without attack), `worst_attack`, `worst_reward`,
        `worst_cost`, `worst_violations` (each episode under the attack that harms it most),
        `worst_violations_high` (its exact upper bound), and `differences` from the environment that
        the policy was trained for.
    """
    home = _home(run)
    # Before evaluations had folders of their own, the last one lay in the run itself.
    reports = [home.parent / REPORT_FILE, *home.glob(f"*/{REPORT_FILE}")]
    found = sorted((path for path in reports if path.is_file()), key=lambda p: p.stat().st_mtime)
    rows = [row for path in found for row in _rows(path)]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


_COLUMNS = (
    "folder", "env", "epsilon", "epsilon_units", "episodes", "seed", "cost_limit",
    "natural_reward", "natural_cost", "worst_attack", "worst_reward", "worst_cost",
    "worst_violations", "worst_violations_high", "differences",
)  # fmt: skip


def _rows(path: Path) -> list[dict[str, Any]]:
    document = _read(path)
    try:
        config = document["config"]
        if config.get("budgets"):
            worst_cases = document["worst_cases"]
        else:
            named = {"worst_attack": document["worst_attack"], "epsilon": config["epsilon"]}
            worst_cases = [named | document["worst_case"]]
        natural = {row["attack"]: row for row in document["summary"]}.get("natural", {})
        told = {name: config.get(name) for name in _COLUMNS if name in config}
        return [
            told
            | {
                "folder": str(path.parent),
                "epsilon": worst["epsilon"],
                "episodes": worst["episodes"],
                "natural_reward": natural.get("reward_mean", math.nan),
                "natural_cost": natural.get("cost_mean", math.nan),
                "worst_attack": worst["worst_attack"],
                "worst_reward": worst["reward_mean"],
                "worst_cost": worst["cost_mean"],
                "worst_violations": worst["violation_rate"],
                # Reports from before the bound do not tell it.
                "worst_violations_high": worst.get("violation_high", math.nan),
                "differences": document.get("differences", ""),
            }
            for worst in worst_cases
        ]
    except (KeyError, TypeError, AttributeError):
        return []  # not ours


def _config(path: Path) -> object:
    return _lasting(_read(path).get("config"))


def _comparable(plan: EvaluationPlan) -> object:
    """As a file tells it: after an update of a package it is the same evaluation still."""
    return _lasting(json.loads(json.dumps(as_standard_json(plan.to_json()))))


def _lasting(config: object) -> object:
    """What stays the same after an update of a package."""
    if isinstance(config, dict) and isinstance(config.get("environment"), dict):
        config["environment"].pop("versions", None)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
