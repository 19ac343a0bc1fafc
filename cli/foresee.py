"""`safer-offline foresee`: what policies would do, going by their dataset alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safer_offline.cli.options import parse_epsilon


def foresee_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run directories that learned from the same dataset.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="The dataset (default: the one that the first RUN learned from).",
            show_default=False,
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            help="Budget of the attacks in raw units: one number, or one an observation "
            "coordinate (default: what each RUN learned to withstand).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of models and noise: same seed, same answer.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the numerical work.")] = 1,
) -> None:
    """Estimate return and cost of policies without a simulator, natural and attacked.

    Models of the world are fitted to the dataset (half a minute), and whole episodes are run in
    them: that is how to choose among settings where no simulator is to be had. `train` ends with
    it. What is found is kept in RUN/foresight.json.
    """
    import torch

    from safer_offline.foresight.runs import foresee_runs

    torch.set_num_threads(threads)
    budget = None if epsilon is None else parse_epsilon(epsilon)
    for run, foresight in foresee_runs(runs, data, epsilon=budget, seed=seed):
        typer.echo("\n".join([f"{run}:", *foresight.lines()]))
