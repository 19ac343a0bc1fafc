"""`safer-offline train`: learn a policy from a dataset, without any simulator."""

from __future__ import annotations

import inspect
import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safer_offline.cli.options import EpsilonUnits, budget_options, parse_epsilon
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from safer_offline.foresight import Alternative, Choice
    from safer_offline.training.loop import Run


FEW_STEPS = 1_000
"""Below this, nothing of use can have been learned."""


OPTIONS = {"adversarial_weight": "--robust"}
"""Options that are not called as the setting is."""


class Solver(str, Enum):
    """Who solves the E-step."""

    newton = "newton"
    cvxpy = "cvxpy"


def train_command(
    file: Annotated[
        str | None,
        typer.Argument(
            help="Dataset file (car_circle.h5), or a Minari id (bullet/car-circle/mixed-v1).",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The same, as an option.", show_default=False)
    ] = None,
    algorithm: Annotated[
        str,
        typer.Option(
            help="Who learns: a name (`--list-algorithms` shows them), or module:Class of your own."
        ),
    ] = "safer",
    cost_limit: Annotated[
        float | None,
        typer.Option(help="Largest expected cost of an episode, undiscounted (default: 10)."),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            help="Budget of the attacks to withstand: one number, or one an observation "
            "coordinate, 0.1,0.1,0,... (default: 0.05)."
        ),
    ] = None,
    epsilon_units: Annotated[
        EpsilonUnits | None,
        typer.Option(
            help="What epsilon counts: raw observation units, or the dataset's standard "
            "deviations (default: raw)."
        ),
    ] = None,
    robust: Annotated[
        bool | None,
        typer.Option(
            "--robust/--no-robust",
            help="Learn to withstand them, or not: adversarial_weight is 1, or 0; safer then also "
            "leaves out recovery and half of the margin (default: safer and safer-paper do, "
            "others do not).",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Gradient updates in all.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same policy.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Run directory (default: runs/, then the dataset's name, and the algorithm's if "
            "it is not safer).",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the run directory.")
    ] = False,
    estep_solver: Annotated[
        Solver | None,
        typer.Option(help="Newton on the dual, or the same problem in CVXPY (default: newton)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of the algorithm, such as margin=0.8; may be repeated.",
        ),
    ] = None,
    list_settings: Annotated[
        bool,
        typer.Option("--list-settings", help="Show the settings of the algorithm and stop."),
    ] = False,
    list_algorithms: Annotated[
        bool, typer.Option("--list-algorithms", help="Show all algorithms and stop.")
    ] = False,
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
    alternatives: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar='"NAME=VALUE ..."',
            help="Train with these settings, too, and keep what the models of the data foresee to "
            "be best: the largest return that keeps the limit under attack. May be repeated.",
        ),
    ] = None,
    choose: Annotated[
        bool,
        typer.Option(
            "--choose/--no-choose",
            help="Where the policy is foreseen to break the limit under attack, train again with "
            "other settings that the algorithm knows (safer does) and keep what is foreseen to be "
            "best; up to three times as long. What you set yourself stays as you set it.",
        ),
    ] = True,
    foresee: Annotated[
        bool,
        typer.Option(
            "--foresee/--no-foresee",
            help="End with an estimate of return and cost from models of the data, natural and "
            "attacked; half a minute.",
        ),
    ] = True,
    device: Annotated[
        str,
        typer.Option(
            help="Where the networks learn: cpu, or cuda (cuda:1) for a GPU. evaluate is always on "
            "the CPU, as simulators are."
        ),
    ] = "cpu",
    threads: Annotated[
        int,
        typer.Option(min=1, help="Threads of the numerical work; more rarely helps on small nets."),
    ] = 1,
) -> None:
    """Train on a fixed dataset: SAFER estimates, solves the E-step, fits the policy robustly."""
    from safer_offline.learners.registry import ALGORITHMS

    if list_algorithms:
        width = max(map(len, ALGORITHMS))
        for name in ALGORITHMS:
            kind = ALGORITHMS.get(name)
            typer.echo(f"{name:{width}}  {(kind.__doc__ or '').strip().splitlines()[0]}")
        return
    learner = ALGORITHMS.get(algorithm)
    if list_settings:
        _print_settings(learner.Config, algorithm)
        return

    import torch

    from safer_offline.datasets.loading import default_run_name, load_dataset
    from safer_offline.foresight.choice import alternatives_of, choose_where_needed
    from safer_offline.foresight.choice import choose as choose_among
    from safer_offline.settings import parse_values, settings_of
    from safer_offline.training.devices import device_named, placement
    from safer_offline.training.loop import train

    placement(learner, device_named(device))  # before the dataset, which may take its time
    torch.set_num_threads(threads)
    if steps < FEW_STEPS:
        typer.secho("Warning: ", fg="yellow", bold=True, err=True, nl=False)
        typer.echo(
            f"{steps} updates are a trial, no training: expect a policy that does nothing useful "
            "(the default is 12,000)",
            err=True,
        )
    source = _one_of(file, data)
    given = {
        "cost_limit": cost_limit,
        "epsilon": None if epsilon is None else parse_epsilon(epsilon),
        "epsilon_units": epsilon_units and epsilon_units.value,
        "estep_solver": estep_solver and estep_solver.value,
        "adversarial_weight": None if robust is None else float(robust),
    }
    if robust is False:
        given |= getattr(learner, "unattacked", {})
    own = _settings_given(learner.Config, algorithm, given, settings or [])
    config = learner.Config(**own)
    known = settings_of(learner.Config)
    others = [parse_values(known, text.split(), option="--try") for text in alternatives or []]
    name = default_run_name(source) + ("" if algorithm == "safer" else f"-{learner.name}")
    dataset = load_dataset(
        source,
        max_memory=max_memory or "auto",
        cache_dir=cache_dir,
        tell=lambda sentence: typer.echo(f"{sentence}.", err=True),
    )
    arguments: dict[str, Any] = {
        "out": out or Path("runs") / name,
        "algorithm": learner,
        "steps": steps,
        "seed": seed,
        "resume": resume,
        "device": device,
    }
    if others:
        run = _tell_choice(choose_among(config, dataset, others, **arguments))
    elif foresee and steps >= FEW_STEPS:
        choice = choose_where_needed(
            config,
            dataset,
            alternatives_of(learner, given=own) if choose else [],
            bolder=alternatives_of(learner, given=own, kind="bolder") if choose else [],
            tell=_tell_foreseen,
            **arguments,
        )
        run = choice.run
        if len(choice.alternatives) > 1:
            _tell_choice(choice)
    else:
        run = train(config, dataset, **arguments)
        _tell(run)
    _tell_next(run)


def _one_of(file: str | None, data: str | None) -> str:
    if (file is None) == (data is None):
        raise UsageError(
            "say what to learn from: `safer-offline train car_circle.h5`, or --data car_circle.h5"
            if file is None
            else f"both {file} and --data {data} are given; say one of them"
        )
    return file or data or ""


def _settings_given(
    kind: type[Any], algorithm: str, given: dict[str, Any], texts: list[str]
) -> dict[str, Any]:
    """The settings of an algorithm that were given; each option must be one of them."""
    from safer_offline.settings import REQUIRED, parse_values, settings_of

    known = settings_of(kind)
    values = {name: value for name, value in given.items() if value is not None}
    for name in values:
        if name not in known:
            option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"{option}: {algorithm} has no such setting; "
                f"`safer-offline train --algorithm {shlex.quote(algorithm)} --list-settings` "
                "shows those it has"
            )
    values |= parse_values(known, texts, option="--set")
    for name, setting in known.items():
        if setting.default is REQUIRED and name not in values:
            raise UsageError(f"{algorithm} must be told '{name}': --set {name}=...")
    return values


def _print_settings(kind: type[Any], algorithm: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from safer_offline.settings import REQUIRED, describe_type, settings_of, write_value

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("setting", "default", "what it is"):
        table.add_column(column)
    for setting in settings_of(kind).values():
        default = "(needed)"
        if setting.default is not REQUIRED:
            default = write_value(setting.default) or "(none)"
        words = setting.explanation or "–"
        table.add_row(setting.name, default, f"{words} [{describe_type(setting.annotation)}]")
    about = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[0].strip()
    if not about.startswith(f"{kind.__name__}("):  # what a dataclass says that has no docstring
        typer.echo(f"{about}\n")
    Console().print(table, markup=False)
    typer.echo(f"\nSet them with --set NAME=VALUE: train --algorithm {shlex.quote(algorithm)}.")


def _tell(run: Run) -> None:
    """What came out."""
    metrics = run.metrics
    if "episodes_eta" in metrics:
        estep = metrics.dropna(subset="episodes_eta").iloc[-1]
        typer.echo(
            f"E-step over episodes: eta {estep.episodes_eta:.3g}, lambda "
            f"{estep.episodes_lambda:.3g} at a limit of {estep.episodes_cost_limit:.3g}; about "
            f"{estep.episodes_effective:.0f} episodes carry the weight."
        )
        if estep.get("candidates_relaxed"):
            typer.echo(
                "E-step over actions: no choice of them keeps the limit at the states to recover "
                "from, so it takes the least cost there (usual where the data show unsafe states)."
            )
    typer.echo(
        f"Wrote {run.directory}: policy.safetensors, metrics.csv, checkpoint.pt, config.json."
    )


def _tell_foreseen(given: Alternative, *, needed: bool) -> None:
    """What comes of the settings given."""
    _tell(given.run)
    typer.echo(
        "Foreseen in models of the data, without a simulator (mean, and the range of the models):"
    )
    typer.echo("\n".join(given.foresight.lines()))
    if needed:
        why = "that may serve these data better" if given.doubtful else "of less care"
        typer.echo(f"Training again with settings {why} (--no-choose leaves it at this).")


def _tell_choice(choice: Choice) -> Run:
    """What was tried and kept; returns that."""
    typer.echo("Tried, and foreseen in models of the data:")
    typer.echo("\n".join(choice.lines()))
    if choice.chosen.settings:
        typer.echo("Foreseen of it:")
        typer.echo("\n".join(choice.chosen.foresight.lines()))
    _tell(choice.run)
    return choice.run


def _tell_next(run: Run) -> None:
    actor = run.policy.info.actor
    own = ["--actor", actor] if ":" in actor else []
    # What it was trained to withstand, where `evaluate` would take another budget.
    own += budget_options(run.policy.info.training.get("config", {}))
    command = shlex.join(["safer-offline", "evaluate", str(run.directory), *own])
    typer.echo(f"Next: {command}")
