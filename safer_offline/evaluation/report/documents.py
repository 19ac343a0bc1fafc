"""What lies in the folder of a run, whole or damaged: nothing that is read here is trusted.

Whatever is missing, of another kind, or only half there becomes a sentence in `notes`. Numbers are
finite or NaN, so that nobody behind this need look again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.attacks import Natural
from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.evaluation.folders import COMPARISON_FILE, FOLDER, REPORT_FILE
from safer_offline.evaluation.unfinished import FILE as UNFINISHED_FILE
from safer_offline.policies.trained import POLICY_FILE, load_policy

CONFIG_FILE, METRICS_FILE, PATHS_FILE = "config.json", "metrics.csv", "paths.svg"
CHECKPOINT_FILE = "checkpoint.pt"  # of `training`, which nothing here may import
FORESIGHT_FILE, CHOICE_FILE = "foresight.json", "choice.json"  # of `foresight`, likewise
LARGEST_PICTURE = 8 << 20
"""Bytes of a picture of trajectories that is still taken into the page."""

_LARGEST_NUMBER = 1e15
_NUMBERS = (
    "multiple", "episodes", "seeds", "reward_mean", "reward_std", "reward_low", "reward_high",
    "reward_mean_low", "reward_mean_high", "reward_iqm", "reward_iqm_low", "reward_iqm_high",
    "cost_mean", "cost_std", "cost_low", "cost_high", "cost_mean_low", "cost_mean_high",
    "cost_cvar", "violation_rate", "violation_low", "violation_high", "normalised_reward",
    "normalised_reward_dsrl", "normalised_cost", "budget_used", "cost_limit", "higher_return",
    "higher_return_low", "higher_return_high", "lower_cost", "lower_cost_low", "lower_cost_high",
)  # fmt: skip

Row = dict[str, Any]
Samples = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True, kw_only=True)
class EvaluationFiles:
    """One evaluation, as its folder tells it.

    Attributes:
        folder: Where it lies.
        config: What was evaluated; see `EvaluationPlan.to_json`.
        attacks: Settings of each attack by its name.
        trained_for: The environment that the policy was trained for.
        versions: Of the packages that the numbers depend on.
        rows: One for each attack, and budget where there are several; see `_row`.
        points: The worst attack at each of several budgets.
        worst_cases: Each episode under the attack that harms it most, one for each budget.
        samples: For each multiple of epsilon, returns and costs of the episodes by attack.
        learning: Steps and costs, each (points,), of adversaries that learned, by what they are.
        remarks: Sentences about searched attacks.
        gate_failures: Sentences about what must hold and does not.
        differences: In what the environment is not that of the dataset.
        certificate: Whatever stands there under this name, or None.
        paths: A picture of trajectories, or empty.
        notes: What is missing or damaged.
        modified: When it was written, in seconds.
    """

    folder: Path
    config: dict[str, Any]
    attacks: dict[str, dict[str, Any]]
    trained_for: dict[str, Any]
    versions: dict[str, Any]
    rows: tuple[Row, ...]
    points: tuple[Row, ...]
    worst_cases: tuple[Row, ...]
    samples: dict[float, Samples] = field(repr=False)
    learning: dict[str, Samples] = field(repr=False)
    remarks: tuple[str, ...]
    gate_failures: tuple[str, ...]
    differences: str
    certificate: object
    paths: bytes = field(repr=False)
    notes: tuple[str, ...]
    modified: float

    @property
    def limit(self) -> float:
        """The largest allowed cost of an episode, or NaN."""
        return as_number(self.config.get("cost_limit"))

    @property
    def budgets(self) -> list[float]:
        """The multiples of epsilon that were met, ascending; one is the usual."""
        return sorted({row["multiple"] for row in self.rows if row["attack"] != Natural.name})

    @property
    def several(self) -> bool:
        """Whether several budgets were asked for."""
        return bool(self.config.get("budgets"))

    @property
    def nominal(self) -> float:
        """The multiple that stands for all: 1 if it was met, else the largest."""
        return 1.0 if not self.budgets or 1.0 in self.budgets else self.budgets[-1]

    def at(self, multiple: float) -> list[Row]:
        """The rows of one budget, natural episodes first."""
        return [row for row in self.rows if row["multiple"] in (0.0, multiple)]

    def worst(self, multiple: float) -> Row | None:
        """The row with the largest mean cost at a budget; among equals, the least return."""
        known = [row for row in self.at(multiple) if not math.isnan(row["cost_mean"])]
        return min(known, key=lambda r: (-r["cost_mean"], r["reward_mean"]), default=None)

    def natural(self) -> Row | None:
        """The row without attack."""
        return next((row for row in self.rows if row["attack"] == Natural.name), None)


@dataclass(frozen=True, kw_only=True)
class ComparisonFiles:
    """One comparison of runs, as its folder tells it.

    Attributes:
        folder: Where it lies.
        config: What each run was evaluated with, by its path.
        rows: See `Comparison.rows`.
        pairs: See `Comparison.pairs`.
        unequal_attacks: Sentences: which methods did not meet what others did.
        gate_failures: Sentences about what must hold and does not.
    """

    folder: Path
    config: dict[str, Any]
    rows: tuple[Row, ...]
    pairs: tuple[Row, ...]
    unequal_attacks: tuple[str, ...]
    gate_failures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """All that lies in the folder of a run.

    Attributes:
        path: As the user gave it, a folder.
        training: What config.json says, or empty.
        metrics: What metrics.csv says: a column `step` and others, all of numbers; maybe empty.
        fingerprint: Of the policy that lies there now; empty where there is none.
        foresight: What foresight.json says, or empty.
        choice: What choice.json says, or empty.
        evaluations: See there, in no order.
        comparisons: See there.
        notes: What is missing or damaged.
    """

    path: Path
    training: dict[str, Any]
    metrics: pd.DataFrame = field(repr=False)
    fingerprint: str
    foresight: dict[str, Any]
    choice: dict[str, Any]
    evaluations: tuple[EvaluationFiles, ...]
    comparisons: tuple[ComparisonFiles, ...]
    notes: tuple[str, ...]


def read_run(run: str | Path) -> RunFiles:
    """Read all that a run holds, as far as it can be read.

    Args:
        run: Run directory, the policy file in it, or a folder with results of `evaluate`.

    Raises:
        UsageError: If it is nothing of the kind.
    """
    path = Path(run)
    if not path.exists():
        raise UsageError(f"{run}: there is no such run; give the folder that `train` wrote")
    folder = path.parent if path.name == POLICY_FILE and path.is_file() else path
    known = (
        CONFIG_FILE, METRICS_FILE, POLICY_FILE, CHECKPOINT_FILE, FOLDER, REPORT_FILE,
        COMPARISON_FILE,
    )  # fmt: skip
    if not folder.is_dir() or not any((folder / name).exists() for name in known):
        raise UsageError(
            f"{run} is no run: a run is a folder with {CONFIG_FILE}, {METRICS_FILE}, {POLICY_FILE} "
            f"or {FOLDER}/, as `train` and `evaluate` write it"
        )
    notes: list[str] = []
    training = _read_training(folder, notes)
    metrics = _read_metrics(folder / METRICS_FILE, notes)
    fingerprint = _read_fingerprint(folder, notes)
    if training and not (folder / POLICY_FILE).exists():
        notes.append(_unfinished_training(training, metrics))
    # Where `evaluate` writes by itself, and where `--out` may have led it within the run.
    chosen = [place for place in _children(folder, notes) if (place / REPORT_FILE).exists()]
    places = [folder, *chosen, *_children(folder / FOLDER, notes)]
    evaluations, comparisons = [], []
    for place in places:
        if (place / UNFINISHED_FILE).exists():
            notes.append(
                f"An evaluation in {place} was interrupted; the same command once more goes on"
            )
        if half := sorted(path.name for path in place.glob("*.tmp-*")):
            notes.append(f"{', '.join(half)} in {place} was never finished, and may be deleted")
        if document := _read_document(place / REPORT_FILE, notes):
            evaluations.append(_evaluation(document, place))
        if document := _read_document(place / COMPARISON_FILE, notes):
            comparisons.append(_comparison(document, place))
    if not evaluations:
        notes.append(
            "No evaluation that could be read lies here: "
            f"`safer-offline evaluate {folder}` makes one"
        )
    return RunFiles(
        path=folder,
        training=training,
        metrics=metrics,
        fingerprint=fingerprint,
        foresight=_read_document(folder / FORESIGHT_FILE, notes),
        choice=_read_document(folder / CHOICE_FILE, notes),
        evaluations=tuple(evaluations),
        comparisons=tuple(comparisons),
        notes=tuple(notes),
    )


def as_number(value: object) -> float:
    """A finite number, or NaN for whatever else stands in its place."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < _LARGEST_NUMBER else math.nan


def as_mapping(value: object) -> dict[str, Any]:
    """A mapping, empty where something else stands in its place."""
    return value if isinstance(value, dict) else {}


def as_rows(value: object) -> list[dict[str, Any]]:
    """Those of a list that are mappings."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def _children(folder: Path, notes: list[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(place for place in folder.iterdir() if place.is_dir())
    except OSError as error:
        notes.append(f"{folder} cannot be read ({error.strerror})")
        return []


def _read_document(path: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object; empty, with a note, where there is a file that holds none."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        notes.append(f"{path} cannot be read and is left out ({reason})")
        return {}
    if not isinstance(document, dict) or not document:
        notes.append(f"{path} holds nothing that this version knows, and is left out")
        return {}
    return document


def _read_training(folder: Path, notes: list[str]) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.exists():
        notes.append(f"There is no {CONFIG_FILE}: how the policy was trained is not known")
    return _read_document(path, notes)


def _read_metrics(path: Path, notes: list[str]) -> pd.DataFrame:
    if not path.exists():
        notes.append(f"There is no {METRICS_FILE}, so there are no curves of the training")
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, encoding="utf-8")
    except (OSError, ValueError) as error:
        notes.append(f"{path} cannot be read and is left out ({str(error).splitlines()[0]})")
        return pd.DataFrame()
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(float)
    numbers = numbers.where(numbers.abs() < _LARGEST_NUMBER)
    if "step" not in numbers or numbers["step"].isna().all():
        notes.append(f"{path} has no column of steps, and is left out")
        return pd.DataFrame()
    whole = numbers.dropna(subset="step")
    if len(whole) < len(numbers):
        count = len(numbers) - len(whole)
        notes.append(f"{path}: {count} of {len(numbers)} lines are damaged and left out")
    lines: pd.DataFrame = whole.reset_index(drop=True)
    return lines


def _read_fingerprint(folder: Path, notes: list[str]) -> str:
    if not (folder / POLICY_FILE).exists():
        return ""
    try:
        return load_policy(folder).fingerprint
    except SaferOfflineError as error:
        problem = str(error).splitlines()[0]
        notes.append(f"The policy cannot be looked at, so nothing is checked against it: {problem}")
        return ""


def _unfinished_training(training: Mapping[str, Any], metrics: pd.DataFrame) -> str:
    wanted = as_number(training.get("steps"))
    done = 0.0 if metrics.empty else metrics["step"].max()
    if done >= wanted:
        return f"There is no {POLICY_FILE}, although {METRICS_FILE} reaches the last update"
    of = "" if math.isnan(wanted) else f" of {wanted:,.0f}"
    said = f", {METRICS_FILE} ends after update {done:,.0f}{of}" if done else ""
    return f"There is no {POLICY_FILE}: the training is not finished{said}; --resume goes on"


def _evaluation(document: Mapping[str, Any], folder: Path) -> EvaluationFiles:
    notes: list[str] = []
    config = as_mapping(document.get("config"))
    attacks = {
        str(name): as_mapping(settings)
        for name, settings in as_mapping(document.get("attacks") or config.get("attacks")).items()
    }
    rows = [row for one in as_rows(document.get("summary")) if (row := _row(one))]
    worst_cases = document.get("worst_cases")
    if not isinstance(worst_cases, list):
        worst_cases = [document.get("worst_case")]
    samples = _samples(document.get("episodes"))
    if not config:
        notes.append("It does not say what was evaluated")
    if not rows:
        notes.append("It holds no table of results")
    elif not samples:
        notes.append("It holds no episodes, so they cannot be drawn")
    if "gate_failures" not in document:
        notes.append("It is of an older version, which did not write down whether its gates held")
    return EvaluationFiles(
        folder=folder,
        config=config,
        attacks=attacks,
        trained_for=as_mapping(document.get("trained_for")),
        versions=as_mapping(document.get("versions")),
        rows=tuple(rows),
        points=tuple(row for one in as_rows(document.get("curve")) if (row := _row(one))),
        worst_cases=tuple(_numbers(one) for one in as_rows(worst_cases)),
        samples=samples,
        learning=_learning(attacks, document.get("found")),
        remarks=_texts(document.get("remarks")),
        gate_failures=_texts(document.get("gate_failures")),
        differences=str(document.get("differences") or ""),
        certificate=document.get("certificate"),
        paths=_read_picture(folder / PATHS_FILE, notes),
        notes=tuple(notes),
        modified=(folder / REPORT_FILE).stat().st_mtime,
    )


def _row(raw: Mapping[str, Any]) -> Row | None:
    """Numbers by the names of `_NUMBERS`, NaN where there is none; and in words what it is of."""
    attack = raw.get("attack")
    if not isinstance(attack, str):
        return None
    row = _numbers(raw) | {"attack": attack}
    if math.isnan(row["multiple"]):
        row["multiple"] = 0.0 if attack == Natural.name else 1.0
    return row


def _numbers(raw: Mapping[str, Any]) -> Row:
    epsilon = raw.get("epsilon")
    words = {name: str(raw.get(name) or "") for name in ("method", "other", "row", "env", "attack")}
    return {
        **{name: as_number(raw.get(name)) for name in _NUMBERS},
        **words,
        "epsilon": epsilon if isinstance(epsilon, str) else as_number(epsilon),
    }


def _samples(episodes: object) -> dict[float, Samples]:
    """Returns and costs of the episodes, by multiple and attack."""
    lists: dict[float, dict[str, list[tuple[float, float]]]] = {}
    for one in as_rows(episodes):
        attack = str(one.get("attack"))
        multiple = as_number(one.get("multiple", 0.0 if attack == Natural.name else 1.0))
        pair = as_number(one.get("reward")), as_number(one.get("cost"))
        if not any(map(math.isnan, (multiple, *pair))):
            lists.setdefault(multiple, {}).setdefault(attack, []).append(pair)
    arrays = {
        multiple: {name: np.array(pairs).T for name, pairs in by_attack.items()}
        for multiple, by_attack in lists.items()
    }
    return {
        multiple: {name: (both[0], both[1]) for name, both in by_attack.items()}
        for multiple, by_attack in arrays.items()
    }


def _learning(attacks: Mapping[str, Mapping[str, Any]], found: object) -> dict[str, Samples]:
    """The curves of adversaries that learned, by the budget in words, then by attack."""
    curves: dict[str, Samples] = {}
    searched = as_rows(found)
    named: list[tuple[str, str, Mapping[str, Any]]] = [
        (f"{as_number(one.get('multiple')):g} × ε", str(one.get("attack")), one) for one in searched
    ]
    named = named or [("", name, settings) for name, settings in attacks.items()]
    for budget, name, settings in named:
        points = [
            (as_number(point.get("steps")), as_number(point.get("cost")))
            for point in as_rows(settings.get("curve"))
        ]
        known = np.array([pair for pair in points if not any(map(math.isnan, pair))])
        if len(known):
            curves.setdefault(budget, {})[name] = known[:, 0], known[:, 1]
    return curves


def _read_picture(path: Path, notes: list[str]) -> bytes:
    """An SVG file, empty where there is none that could be shown."""
    if not path.is_file():
        return b""
    try:
        if path.stat().st_size > LARGEST_PICTURE:
            notes.append(f"{path.name} is larger than {LARGEST_PICTURE >> 20} MiB, and is left out")
            return b""
        content = path.read_bytes()
        root = ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        notes.append(f"{path.name} cannot be read and is left out ({error})")
        return b""
    if root.tag.rpartition("}")[2] != "svg":
        notes.append(f"{path.name} is no SVG, and is left out")
        return b""
    return content


def _comparison(document: Mapping[str, Any], folder: Path) -> ComparisonFiles:
    return ComparisonFiles(
        folder=folder,
        config=as_mapping(document.get("config")),
        rows=tuple(_numbers(row) for row in as_rows(document.get("summary")) if row.get("method")),
        pairs=tuple(_numbers(row) for row in as_rows(document.get("improvements"))),
        unequal_attacks=_texts(document.get("unequal_attacks")),
        gate_failures=_texts(document.get("gate_failures")),
    )
