"""`safer-offline evaluate`: how safe a policy stays under attack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safer_offline.cli.environments import CostKey, Kwargs, MaxEpisodeSteps, environment_source
from safer_offline.cli.options import Epsilon, EpsilonUnits, parse_epsilon


def evaluate_command(
    run: Annotated[
        Path, typer.Argument(help="Run directory, or a policy.safetensors.", show_default=False)
    ],
    env: Annotated[
        str | None,
        typer.Option(
            help="Task: car-circle, a Gymnasium id, module:Id-v0 or module:function "
            "(default: as trained)."
        ),
    ] = None,
    cost_key: CostKey = "cost",
    kwargs: Kwargs = None,
    max_episode_steps: MaxEpisodeSteps = None,
    attacks: Annotated[
        str, typer.Option(help="'all', or names: natural,uniform,gaussian,mad,amad,mc,mr.")
    ] = "all",
    epsilon: Epsilon = "0.05",
    epsilon_units: EpsilonUnits = EpsilonUnits.raw,
    episodes: Annotated[int, typer.Option(help="Episodes under each attack.")] = 50,
    seed: Annotated[int, typer.Option(help="Determines episodes and attacks.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Simulation processes (default: the cores).")
    ] = None,
    cost_limit: Annotated[
        float | None, typer.Option(help="Largest allowed episode cost (default: as trained).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results (default: the run directory).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole report as JSON instead of the table.")
    ] = False,
) -> None:
    """Attack a trained policy in the simulator and report return, cost and violations."""
    # Here, so that `--help` need not wait for torch.
    import torch
    from rich.console import Console

    from safer_offline.errors import UsageError
    from safer_offline.evaluation.harness import evaluate
    from safer_offline.evaluation.rendering import report_json, report_table, save_report
    from safer_offline.policies.trained import load_policy

    # A second thread slows networks and batches of this size down.
    torch.set_num_threads(1)
    policy = load_policy(run)
    name = env or policy.env_id
    if name is None:
        raise UsageError(f"{run} does not say what task it was trained for: give it with --env")
    report = evaluate(
        policy,
        env=environment_source(
            name, cost_key=cost_key, kwargs=kwargs, max_episode_steps=max_episode_steps
        ),
        attacks=attacks,
        epsilon=parse_epsilon(epsilon),
        epsilon_units=epsilon_units.value,
        episodes=episodes,
        seed=seed,
        workers=workers,
        cost_limit=cost_limit,
    )
    files = save_report(report, out or (run if run.is_dir() else run.parent))
    if as_json:
        typer.echo(report_json(report), nl=False)
        return
    typer.echo("Wrote " + ", ".join(str(file) for file in files))
    Console().print(report_table(report))
