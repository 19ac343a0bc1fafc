"""`safer-offline check`: what is wrong with an environment of one's own."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from safer_offline.cli.environments import CostKey, Kwargs, MaxEpisodeSteps, environment_source

if TYPE_CHECKING:
    from safer_offline.environments.checking.checks import EnvironmentReport


def check_command(
    env: Annotated[
        str,
        typer.Argument(
            help="Environment: car-circle, a Gymnasium id, module:Id-v0 or module:function.",
            show_default=False,
        ),
    ],
    cost_key: CostKey = None,
    kwargs: Kwargs = None,
    max_episode_steps: MaxEpisodeSteps = None,
    episodes: Annotated[int, typer.Option(help="Episodes to drive at random.")] = 3,
    seed: Annotated[int, typer.Option(help="Of starts and actions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find what is wrong with an environment before spending an hour on it.

    Exit code 1 if it cannot be used. It takes a few seconds, at most about a minute.
    """
    from rich.console import Console

    from safer_offline.environments.checking.checks import check_environment
    from safer_offline.errors import UsageError

    if episodes < 1 or seed < 0:
        raise UsageError("--episodes must be at least 1, and --seed must not be negative")
    source = environment_source(
        env, cost_key=cost_key, kwargs=kwargs, max_episode_steps=max_episode_steps
    )
    with Console(stderr=True).status(f"driving {env} at random"):
        report = check_environment(source, episodes=episodes, seed=seed)
    typer.echo(_as_json(report) if as_json else _as_text(report))
    raise typer.Exit(0 if report.usable else 1)


def _as_json(report: EnvironmentReport) -> str:
    return json.dumps({**dataclasses.asdict(report), "usable": report.usable}, indent=2)


def _as_text(report: EnvironmentReport) -> str:
    lines = []
    for finding in report.findings:
        lines += [f"{finding.severity}: {finding.problem}", f"  Remedy: {finding.remedy}"]
    if (summary := report.summary) is not None:
        limit = summary.max_episode_steps
        lines += [
            "",
            f"observations  {summary.observation_space}",
            f"actions       {summary.action_space}",
            f"step limit    {'unknown' if limit is None else f'{limit:,}'}",
            f"episodes      {_list(summary.lengths)} steps, "
            f"return {_list(summary.returns)}, cost {_list(summary.costs)}",
        ]
        if summary.cost_range is not None:
            least, most = summary.cost_range
            lines.append(f"cost          {least:g} to {most:g} in a step")
        lines.append(
            f"speed         {summary.steps_per_second:,.0f} steps/s in one process: a million "
            f"transitions take {_duration(summary.million_transitions)}"
        )
    errors = sum(finding.severity == "error" for finding in report.findings)
    verdict = "can be used" if report.usable else "cannot be used"
    lines.append(
        f"{report.env_id} {verdict}: {errors} errors, {len(report.findings) - errors} warnings"
    )
    return "\n".join(lines).lstrip("\n")


def _list(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} seconds"
