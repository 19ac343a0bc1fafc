"""How the policy was trained, and on what."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd

from safer_offline.datasets.loading import load_dataset
from safer_offline.errors import SaferOfflineError
from safer_offline.evaluation.report.documents import RunFiles, as_mapping, as_number
from safer_offline.evaluation.report.figures import Dot, captioned, draw_dataset, draw_metric
from safer_offline.evaluation.report.markup import Html, join, tag
from safer_offline.evaluation.report.prose import bullets, command, folded, paragraph
from safer_offline.evaluation.report.reproduction import training_command
from safer_offline.evaluation.report.sentences import strongest_first
from safer_offline.evaluation.report.tables import Cell, facts_table, table
from safer_offline.files import find_moved
from safer_offline.settings import write_value

LARGEST_DATASET = 512 << 20
"""Bytes of a dataset file that is still read for its picture."""

_MULTIPLIERS = ("lambda", "eta", "alpha", "price", "multiplier", "ramp", "limit", "relaxed")
"""Words in the names of numbers that steer a training; the others are losses."""


def training_section(run: RunFiles) -> Html | None:
    """Settings, curves, and the command."""
    if not run.training and run.metrics.empty:
        return None
    return folded(
        tag("h3", "Training"),
        *_curves(run),
        *_settings(run),
    )


def _settings(run: RunFiles) -> list[Html | None]:
    if not run.training:
        return []
    told = run.training
    text, notes = training_command(run)
    facts = [
        ("algorithm", str(told.get("algorithm", "unknown"))),
        ("updates", _words(told.get("steps"))),
        ("seed", _words(told.get("seed"))),
        ("dataset", str(told.get("dataset") or "no file")),
        ("dataset (SHA-256)", str(told.get("dataset_sha256") or "unknown")),
        ("policy (SHA-256)", run.fingerprint or "unknown"),
        *((str(n), _words(v)) for n, v in as_mapping(told.get("config")).items()),
    ]
    return [
        tag("h4", "How to reproduce it"),
        command(text),
        bullets(notes),
        folded("All settings", facts_table(facts, caption="What the training was told")),
    ]


def _words(value: object) -> str:
    return "–" if value is None else write_value(value)


def _curves(run: RunFiles) -> list[Html | None]:
    """A drawing for each number that was logged often, and a table of those logged once."""
    steps = run.metrics["step"].to_numpy() if not run.metrics.empty else np.empty(0)
    groups: dict[str, list[Html]] = {"Losses": [], "Multipliers, limits and schedules": []}
    once = []
    for name in run.metrics.columns.drop("step", errors="ignore"):
        values = run.metrics[name].to_numpy()
        known = ~np.isnan(values)
        if known.sum() > 1:
            steers = any(word in str(name).split("_") for word in _MULTIPLIERS)
            group = "Multipliers, limits and schedules" if steers else "Losses"
            groups[group].append(draw_metric(steps[known], values[known], str(name)))
        elif known.any():
            (value,), (step,) = values[known], steps[known]
            number = Cell(text=f"{value:.4g}", value=float(value))
            once.append([Cell(text=str(name)), number, Cell(text=f"{step:,.0f}", value=step)])
    parts = [
        tag("div", tag("h4", title), captioned(_downsampling(run), *drawings), class_="small")
        for title, drawings in groups.items()
        if drawings
    ]
    if once:
        caption = "What was logged once, such as the solution of a convex problem"
        parts.append(table(("number", "value", "at update"), once, caption=caption))
    return [*parts]


def _downsampling(run: RunFiles) -> str:
    return f"Means over every line of metrics.csv ({len(run.metrics)} of them), by update."


def dataset_section(run: RunFiles) -> Html:
    """Return and cost of the episodes of its dataset, with the policy among them, or why not."""
    drawing, sentence = _dataset(run)
    return join(tag("h3", "Dataset"), paragraph(sentence), drawing)


def _dataset(run: RunFiles) -> tuple[Html | None, str]:
    name = str(run.training.get("dataset") or "")
    if not name:
        return None, "Which file the policy learned from is not known, so it cannot be drawn."
    path = find_moved(name, run.path)
    if path is None:
        return None, f"The dataset, {name}, is no longer where it was, so it cannot be drawn."
    if path.stat().st_size > LARGEST_DATASET:
        return None, (
            f"The dataset, {path}, is too large to be read for a picture: "
            f"`safer-offline data info {path} --plot scatter.png` draws it."
        )
    try:
        with warnings.catch_warnings():
            # What is odd but usable was said when it was trained on.
            warnings.simplefilter("ignore")
            dataset = load_dataset(path)
    except SaferOfflineError as error:
        return None, f"The dataset cannot be drawn: {str(error).splitlines()[0]}."
    wanted = str(run.training.get("dataset_sha256") or "")
    if wanted and dataset.fingerprint() != wanted:
        return None, (
            f"{path} does not hold what the policy learned from any more (another SHA-256), so it "
            "is not drawn."
        )
    return _drawn(run, dataset.episodes, str(path))


def _drawn(run: RunFiles, episodes: pd.DataFrame, name: str) -> tuple[Html, str]:
    limit = as_number(as_mapping(run.training.get("config")).get("cost_limit"))
    dots = []
    for one in strongest_first(run)[:1]:
        limit = one.limit if math.isnan(limit) else limit
        for label, row in (("without attack", one.natural()), ("worst", one.worst(one.nominal))):
            if row and not math.isnan(row["cost_mean"] + row["reward_mean"]):
                said = label if label == "without attack" else f"under {row['attack']}"
                dots.append(Dot(f"the policy {said}", row["cost_mean"], row["reward_mean"]))
    sentence = f"{name} holds {len(episodes):,} episodes, {int(episodes['length'].sum()):,} steps."
    if not math.isnan(limit):
        share = float((episodes["cost"] <= limit).mean())
        sentence += f" {share:.0%} of the episodes keep the limit of {limit:g}."
    title = f"{name}: cost and return of its episodes"
    drawing = draw_dataset(episodes, limit=limit, policy=dots, title=title)
    unsafe = "" if math.isnan(limit) else "; orange: above the limit"
    return captioned(f"Each dot is an episode of the dataset{unsafe}.", drawing), sentence
