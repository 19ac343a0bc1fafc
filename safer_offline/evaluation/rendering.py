"""What an evaluation found, as files for machines and a figure, as pixels and as a drawing."""

from __future__ import annotations

import io
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safer_offline.environments.tasks import deciding_packages
from safer_offline.evaluation.colours import LIMIT_COLOUR, SAFE_COLOUR, UNSAFE_COLOUR
from safer_offline.evaluation.path_figures import plot_paths
from safer_offline.evaluation.paths import as_npz
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.plane import plane_of
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.evaluation.tables import title_of
from safer_offline.files import make_folder, write_atomically
from safer_offline.machine import installed_versions


def save_report(report: EvaluationReport, out_dir: str | Path) -> list[Path]:
    """Write evaluation.csv, episodes.csv, evaluation.json, evaluation.png and evaluation.svg.

    With recorded episodes, also paths.npz, paths.png and paths.svg, and clip.gif of a film. Each
    file appears whole or not at all; older ones of the same name are replaced.

    Args:
        report: What to write.
        out_dir: Folder; made if it does not exist.

    Returns:
        The files, in the order above.
    """
    contents = {
        "evaluation.csv": report.summary().to_csv(index=False).encode(),
        "episodes.csv": report.episodes.to_csv(index=False).encode(),
        "evaluation.json": report_json(report).encode(),
        **figure_files("evaluation", plot_report(report)),
    }
    if report.paths:
        figure = plot_paths(report.paths, plane_of(report.env_id), title=title_of(report))
        contents |= {"paths.npz": as_npz(report.paths), **figure_files("paths", figure)}
    if report.clip:
        contents["clip.gif"] = report.clip
    return write_all(contents, out_dir)


def figure_files(name: str, figure: Figure) -> dict[str, bytes]:
    """A figure as the contents of two files, NAME.png and NAME.svg; equal figures, equal bytes."""
    return {
        f"{name}.png": _saved(figure, format="png", dpi=160),
        f"{name}.svg": as_svg(figure, salt=name),
    }


def as_svg(figure: Figure, *, salt: str, transparent: bool = False) -> bytes:
    """A figure as a drawing that is the same whenever it is made.

    Args:
        figure: What to draw.
        salt: What the ids within the drawing are made from.
        transparent: Whether whatever is behind it shows.
    """
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        return _saved(figure, format="svg", metadata={"Date": None}, transparent=transparent)


def _saved(figure: Figure, **settings: Any) -> bytes:  # noqa: ANN401 - of `Figure.savefig`
    image = io.BytesIO()
    figure.savefig(image, **settings)
    return image.getvalue()


def write_all(contents: Mapping[str, bytes], out_dir: str | Path) -> list[Path]:
    """Write files by their names, each whole or not at all, into a folder that may be new."""
    folder = make_folder(out_dir)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def report_json(report: EvaluationReport) -> str:
    """Everything as JSON: configuration, versions, summary and every episode; unknown is null."""
    document = {
        **provenance(report, report.plan),
        "summary": report.rows(),
        "worst_attack": report.worst_attack(),
        "worst_case": report.worst_case(),
        "gate_failures": report.gate_failures(),
        "remarks": report.remarks(),
        "certificate": None if report.certificate is None else report.certificate.to_json(),
        "episodes": report.episodes.to_dict("records"),
    }
    return as_text(document)


def provenance(report: EvaluationReport, plan: EvaluationPlan) -> dict[str, Any]:
    """What a document of results begins with: what was evaluated, with which versions."""
    packages = ("safer-offline", "torch", *deciding_packages(report.env_id))
    return {
        "config": plan.to_json(),
        "attacks": report.attacks,
        **({"critics": report.critics} if report.critics else {}),
        "trained_for": report.carried.to_json(),
        "differences": report.differences,
        "reward_range": report.reward_range,
        "dsrl_range": report.dsrl_range,
        "versions": {"python": platform.python_version(), **installed_versions(packages)},
    }


def as_text(document: Mapping[str, Any]) -> str:
    """A document as standard JSON."""
    # Attacks of the user's own may hold settings that JSON does not know.
    return json.dumps(as_standard_json(document), indent=2, allow_nan=False, default=str) + "\n"


def plot_report(report: EvaluationReport) -> Figure:
    """Return and cost under each attack: every episode, mean and standard deviation, the limit."""
    samples = {
        name: report.of_attack(name)[["reward", "cost"]].to_numpy().T for name in report.attacks
    }
    figure = Figure(figsize=(9.5, 2.5 + 0.4 * len(samples)), layout="constrained")
    figure.suptitle(title_of(report), fontsize=11)
    legend = "dots: episodes, bars: mean ± standard deviation"
    if report.cost_limit is not None:
        legend += ", orange squares: mean cost above the limit"
    figure.supxlabel(legend, fontsize=9, color=LIMIT_COLOUR)
    left, right = figure.subplots(1, 2, sharey=True)
    unsafe = [
        report.cost_limit is not None and float(costs.mean()) > report.cost_limit
        for _, costs in samples.values()
    ]
    plot_strips(left, [returns for returns, _ in samples.values()], unsafe)
    plot_strips(right, [costs for _, costs in samples.values()], unsafe)
    left.set_xlabel("episode return")
    left.set_yticks(range(len(samples)), list(samples))
    left.set_ylim(len(samples) - 0.5, -0.5)
    right.set_xlabel("episode cost")
    top = max(1.0, report.cost_limit or 0.0, float(report.episodes["cost"].max()))
    right.set_xlim(-0.05 * top, 1.05 * top)
    if report.cost_limit is not None:
        draw_limit(right, report.cost_limit)
    return figure


def draw_limit(axes: Axes, limit: float) -> None:
    """The cost limit as an upright line, and its number above it."""
    axes.axvline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2, zorder=1)
    axes.annotate(
        f"limit {limit:g}",
        (limit, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=LIMIT_COLOUR,
    )


def plot_strips(axes: Axes, samples: list[Any], unsafe: list[bool]) -> None:
    """One horizontal strip a sample: episodes as dots, mean and deviation, the mean in words."""
    # Fixed spread, so that equal reports give equal figures.
    spread = np.random.default_rng(0)
    for position, (values, above) in enumerate(zip(samples, unsafe, strict=True)):
        colour = UNSAFE_COLOUR if above else SAFE_COLOUR
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


def as_standard_json(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The same JSON value without what JSON does not have: null for NaN, words for infinity."""
    if isinstance(value, Mapping):
        return {key: as_standard_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_standard_json(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)
