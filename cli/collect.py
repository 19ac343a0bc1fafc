"""`safer-offline collect`: build a dataset of benign rollouts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safer_offline.cli.environments import (
    CostKey,
    Kwargs,
    MaxEpisodeSteps,
    environment_source,
)
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from safer_offline.datasets.collection.recipe import Recipe
    from safer_offline.environments.source import EnvironmentSource


class Format(str, Enum):
    """What to write."""

    hdf5 = "hdf5"
    minari = "minari"


def _list_recipes(wanted: bool) -> None:
    if not wanted:
        return
    from rich.console import Console
    from rich.table import Table

    from safer_offline.datasets.collection.recipe import FOLDER, load_recipe, recipe_names

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("recipe", "transitions", "who acts"):
        table.add_column(column, justify="right" if column == "transitions" else "left")
    for name in recipe_names():
        recipe = load_recipe(name)
        actors = zip(recipe.behaviors, recipe.shares, strict=True)
        who = ", ".join(f"{actor.name or actor.policy} {share:.0%}" for actor, share in actors)
        table.add_row(name, f"{recipe.transitions:,}", who)
    Console().print(table)
    typer.echo(f"\nThey lie in {FOLDER}; copy one to change it, and collect from your copy.")
    raise typer.Exit


def collect_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A recipe (car-circle-mixed), a task (car-circle: its mixed recipe), a recipe "
            "file (my_recipe.toml), or with --policy any environment: a Gymnasium id or "
            "module:factory.",
        ),
    ] = "car-circle",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write, or the id of the Minari dataset "
            "(default: car_circle.h5, or the recipe's name).",
        ),
    ] = None,
    transitions: Annotated[
        int | None,
        typer.Option(
            help="How many to collect at least; episodes are never cut short "
            "(default: the recipe's number)."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same content (default: the recipe's).")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Who acts, instead of the recipe's: a family of the task, checkpoint:FILE, or "
            "module:callable. Give it several times for equal shares."
        ),
    ] = None,
    cost_key: CostKey = None,
    kwargs: Kwargs = None,
    max_episode_steps: MaxEpisodeSteps = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; they change no content (default: the cores).")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Collect on a Ray cluster: its address (HOST:PORT, ray://HOST:PORT, auto), or "
            "local to start one here."
        ),
    ] = None,
    file_format: Annotated[
        Format, typer.Option("--format", help="An HDF5 file, or a local Minari dataset.")
    ] = Format.hdf5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the HDF5 file if it exists.")
    ] = False,
    list_recipes: Annotated[
        bool,
        typer.Option(
            "--list", help="Show all recipes and stop.", callback=_list_recipes, is_eager=True
        ),
    ] = False,
) -> None:
    """Let behaviour policies act in the simulator and log what happens.

    An interrupted collection goes on where it stopped when the same command is given again.
    """
    from safer_offline.datasets.collection.collector import collect, collect_to_minari
    from safer_offline.datasets.collection.recipe import load_recipe

    if policy:
        source = environment_source(
            what, cost_key=cost_key, kwargs=kwargs, max_episode_steps=max_episode_steps
        )
        recipe = _own_recipe(source, policy)
    else:
        _require_unused(
            {
                "--cost-key": cost_key,
                "--kwargs": kwargs,
                "--max-episode-steps": max_episode_steps,
            }
        )
        recipe = load_recipe(what)
    if file_format is Format.minari:
        dataset = collect_to_minari(
            recipe, out or "", transitions=transitions, seed=seed, workers=workers, ray=ray
        )
        where = f"Minari dataset {out or dataset.metadata.name}"
    else:
        dataset = collect(
            recipe,
            out or f"{_stem(what, recipe)}.h5",
            transitions=transitions,
            seed=seed,
            workers=workers,
            ray=ray,
            overwrite=overwrite,
        )
        where = str(dataset.path)
    costs = dataset.episodes["cost"]
    typer.echo(
        f"Wrote {where}: {dataset.num_transitions:,} transitions, {dataset.num_episodes:,} "
        f"episodes, {(costs == 0).mean():.0%} of them without cost."
    )


def _own_recipe(source: EnvironmentSource, policies: list[str]) -> Recipe:
    """A recipe made of the options alone; the first look at the environment comes with it."""
    from safer_offline.datasets.collection.recipe import Actor, Recipe
    from safer_offline.environments.checking.checks import require_sound
    from safer_offline.environments.tasks import ENVIRONMENT_IDS

    if source.env_id not in ENVIRONMENT_IDS:
        require_sound(source)
    return Recipe(environment=source, behaviors=tuple(Actor(policy=policy) for policy in policies))


def _require_unused(options: dict[str, object]) -> None:
    for name, used in options.items():
        if used:
            raise UsageError(
                f"{name} goes with --policy; a recipe says such things under [environment]"
            )


def _stem(what: str, recipe: Recipe) -> str:
    """A file name: `car_circle` for a task, else the name of the recipe, file or environment."""
    from safer_offline.datasets.collection.recipe import recipe_names
    from safer_offline.environments.tasks import ENVIRONMENT_IDS, short_name

    name = Path(what).stem if what.endswith(".toml") else what.rpartition(":")[2]
    if name not in recipe_names() and recipe.environment.env_id in ENVIRONMENT_IDS:
        name = short_name(recipe.environment.env_id)
    return name.replace("-", "_").replace("/", "_")
