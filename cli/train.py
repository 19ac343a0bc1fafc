"""`safer-offline train`: learn a policy from a dataset, without any simulator."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safer_offline.cli.options import Epsilon, EpsilonUnits, parse_epsilon
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from safer_offline.datasets.dataset.access import TransitionSource


class Solver(str, Enum):
    """Who solves the E-step."""

    newton = "newton"
    cvxpy = "cvxpy"


def train_command(
    data: Annotated[
        str,
        typer.Option(
            help="Dataset file (car_circle.h5), or a Minari id (bullet/car-circle/mixed-v0).",
            show_default=False,
        ),
    ],
    cost_limit: Annotated[
        float, typer.Option(help="Largest expected cost of an episode, undiscounted.")
    ] = 10.0,
    epsilon: Epsilon = "0.05",
    epsilon_units: EpsilonUnits = EpsilonUnits.raw,
    steps: Annotated[int, typer.Option(help="Gradient updates in all.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same policy.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run directory (default: runs/, then the dataset's name).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the run directory.")
    ] = False,
    estep_solver: Annotated[
        Solver, typer.Option(help="Newton on the dual, or the same problem in CVXPY (slow).")
    ] = Solver.newton,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of the algorithm, such as margin=0.8; may be repeated.",
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory the dataset may take, such as 4GiB or 500MB; a larger file is read from "
            "a cache on disk (default: half of what is free).",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for that cache (default: beside the file, FILE.cache)."),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, help="Threads of the numerical work; more rarely helps on small nets."),
    ] = 1,
) -> None:
    """Train SAFER on a fixed dataset: estimate, solve the E-step, fit the policy robustly."""
    import torch

    from safer_offline.datasets.formats import is_minari_id
    from safer_offline.datasets.larger_than_memory.cache import open_for_training
    from safer_offline.datasets.larger_than_memory.memory import parse_size
    from safer_offline.datasets.loading import default_run_name, open_dataset
    from safer_offline.learners import SAFERConfig
    from safer_offline.settings import parse_settings
    from safer_offline.training.loop import train

    torch.set_num_threads(threads)
    config = parse_settings(
        SAFERConfig(
            cost_limit=cost_limit,
            epsilon=parse_epsilon(epsilon),
            epsilon_units=epsilon_units.value,
            estep_solver=estep_solver.value,
        ),
        settings or [],
    )
    directory = out or Path("runs") / default_run_name(data)
    memory = parse_size(max_memory) if max_memory is not None else None
    dataset: TransitionSource
    if Path(data).is_file() or not is_minari_id(data):
        dataset = open_for_training(
            data,
            max_memory=memory,
            cache_dir=cache_dir,
            tell=lambda sentence: typer.echo(f"{sentence}.", err=True),
        )
    elif max_memory or cache_dir:
        raise UsageError(
            f"'{data}' is a dataset of Minari, which is always read into memory: leave out "
            "--max-memory and --cache-dir, or `safer-offline data convert` it to a file"
        )
    else:
        dataset = open_dataset(data)
    run = train(config, dataset, out=directory, steps=steps, seed=seed, resume=resume)
    estep = run.metrics.dropna(subset="episodes_eta").iloc[-1]
    typer.echo(
        f"E-step over episodes: eta {estep.episodes_eta:.3g}, lambda {estep.episodes_lambda:.3g} "
        f"at a limit of {estep.episodes_cost_limit:.3g}; about {estep.episodes_effective:.0f} "
        "episodes carry the weight.\n"
        f"Wrote {run.directory}: policy.safetensors, metrics.csv, checkpoint.pt, config.json.\n"
        f"Next: safer-offline evaluate {run.directory}"
    )
