"""What an evaluation found, as a table on screen, files for machines and a figure."""

from __future__ import annotations

import importlib.metadata
import io
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from safer_offline.environments.tasks import simulators_of
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.files import write_atomically

# Of the Okabe-Ito palette, which colour-blind readers can tell apart.
_SAFE, _UNSAFE, _LIMIT = "#0072B2", "#D55E00", "#333333"


def report_table(report: EvaluationReport) -> Table:
    """The report for a terminal: one row an attack, then the worst attack and the worst case.

    In the last row each episode meets the attack that harms it most.
    """
    table = Table(
        title=_title(report),
        caption="± is the standard deviation over episodes",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("attack", no_wrap=True)
    for heading in ("return", "cost", "violations", "norm.\nreturn", "norm.\ncost"):
        table.add_column(heading, justify="right", no_wrap=True)
    summary = {str(row["attack"]): row for row in report.summary().to_dict("records")}
    for name, row in summary.items():
        table.add_row(name, *_cells(row, report.cost_limit))
    if len(summary) > 1:
        table.add_section()
        worst = report.worst_attack()
        table.add_row(f"worst: {worst}", *_cells(summary[worst], report.cost_limit))
        table.add_row("worst per episode", *_cells(report.worst_case(), report.cost_limit))
    return table


def save_report(report: EvaluationReport, out_dir: str | Path) -> list[Path]:
    """Write evaluation.csv, episodes.csv, evaluation.json and evaluation.png.

    Each file appears whole or not at all; older ones of the same name are replaced.

    Args:
        report: What to write.
        out_dir: Folder; made if it does not exist.

    Returns:
        The files, in the order above.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    image = io.BytesIO()
    plot_report(report).savefig(image, format="png", dpi=160)
    contents = {
        "evaluation.csv": report.summary().to_csv(index=False).encode(),
        "episodes.csv": report.episodes.to_csv(index=False).encode(),
        "evaluation.json": report_json(report).encode(),
        "evaluation.png": image.getvalue(),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def report_json(report: EvaluationReport) -> str:
    """Everything as JSON: configuration, versions, summary and every episode; unknown is null."""
    packages = ("safer-offline", "torch", "numpy", *simulators_of(report.env_id))
    document = {
        "config": {
            "env": report.env_id,
            "epsilon": report.epsilon,
            "epsilon_units": report.epsilon_units,
            "seed": report.seed,
            "cost_limit": report.cost_limit,
            "reward_range": report.reward_range,
            "attacks": report.attacks,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "summary": report.summary().to_dict("records"),
        "worst_attack": report.worst_attack(),
        "worst_case": report.worst_case(),
        "episodes": report.episodes.to_dict("records"),
    }
    # Attacks of the user's own may hold settings that JSON does not know.
    return json.dumps(_without_nan(document), indent=2, allow_nan=False, default=str) + "\n"


def plot_report(report: EvaluationReport) -> Figure:
    """Return and cost under each attack: every episode, mean and standard deviation, the limit."""
    samples = {
        name: report.of_attack(name)[["reward", "cost"]].to_numpy().T for name in report.attacks
    }
    figure = Figure(figsize=(9.5, 2.5 + 0.4 * len(samples)), layout="constrained")
    figure.suptitle(_title(report), fontsize=11)
    legend = "dots: episodes, bars: mean ± standard deviation"
    if report.cost_limit is not None:
        legend += ", orange squares: mean cost above the limit"
    figure.supxlabel(legend, fontsize=9, color=_LIMIT)
    left, right = figure.subplots(1, 2, sharey=True)
    unsafe = [
        report.cost_limit is not None and float(costs.mean()) > report.cost_limit
        for _, costs in samples.values()
    ]
    _plot_strips(left, [returns for returns, _ in samples.values()], unsafe)
    _plot_strips(right, [costs for _, costs in samples.values()], unsafe)
    left.set_xlabel("episode return")
    left.set_yticks(range(len(samples)), list(samples))
    left.set_ylim(len(samples) - 0.5, -0.5)
    right.set_xlabel("episode cost")
    top = max(1.0, report.cost_limit or 0.0, float(report.episodes["cost"].max()))
    right.set_xlim(-0.05 * top, 1.05 * top)
    if report.cost_limit is not None:
        right.axvline(report.cost_limit, color=_LIMIT, linestyle="--", linewidth=1.2, zorder=1)
        right.annotate(
            f"limit {report.cost_limit:g}",
            (report.cost_limit, 1.0),
            xycoords=right.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=_LIMIT,
        )
    return figure


def _plot_strips(axes: Axes, samples: list[Any], unsafe: list[bool]) -> None:
    """One horizontal strip an attack: episodes as dots, mean and deviation, the mean in words."""
    # Fixed spread, so that equal reports give equal figures.
    spread = np.random.default_rng(0)
    for position, (values, above) in enumerate(zip(samples, unsafe, strict=True)):
        colour = _UNSAFE if above else _SAFE
        heights = position + spread.uniform(-0.22, 0.22, size=len(values))
        axes.scatter(values, heights, s=12, color=colour, alpha=0.3, linewidths=0, zorder=2)
        axes.errorbar(
            values.mean(),
            position,
            xerr=values.std(),
            fmt="s" if above else "o",
            color=colour,
            markeredgecolor="white",
            markersize=7,
            capsize=3,
            elinewidth=1.6,
            zorder=3,
        )
        axes.annotate(
            f"{values.mean():.1f}",
            (1.0, position),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _title(report: EvaluationReport) -> str:
    count = report.episodes["episode"].nunique()
    parts = [f"{report.env_id}: {count} episode{'' if count == 1 else 's'}"]
    if isinstance(report.epsilon, float):
        parts.append(f"ε = {report.epsilon:g} ({report.epsilon_units})")
    else:
        parts.append(f"ε for each coordinate ({report.epsilon_units})")
    if report.cost_limit is not None:
        parts.append(f"cost limit {report.cost_limit:g}")
    return ", ".join(parts)


def _cells(row: Mapping[Any, Any], cost_limit: float | None) -> list[str]:
    """What follows the name in a table row; the colour of the cost says whether it is safe."""
    cost = _number(row["cost_mean"], row["cost_std"])
    if cost_limit is not None:
        cost = f"[{'green' if row['cost_mean'] <= cost_limit else 'red'}]{cost}[/]"
    rate = row["violation_rate"]
    return [
        _number(row["reward_mean"], row["reward_std"]),
        cost,
        "–" if math.isnan(rate) else f"{rate:.0%}",
        _number(row["normalised_reward"], digits=2),
        _number(row["normalised_cost"], digits=2),
    ]


def _number(value: float, deviation: float | None = None, *, digits: int = 1) -> str:
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def _version(package: str) -> str | None:
    """The installed version, or None: reports can be written without a simulator."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The same JSON value with null for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
