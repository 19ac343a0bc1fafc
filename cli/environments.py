"""Options that say which environment is meant, shared by the commands that simulate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from safer_offline.environments.source import EnvironmentSource

CostKey = Annotated[
    str | None,
    typer.Option(
        help="Where the environment's info holds the cost of a step (default: cost; for a run, "
        "as in its dataset).",
        show_default=False,
    ),
]
Kwargs = Annotated[
    list[str] | None,
    typer.Option(
        help="Argument of an environment of your own, name=value; give it several times for more.",
        metavar="NAME=VALUE",
    ),
]
MaxEpisodeSteps = Annotated[
    int | None, typer.Option(help="Step limit of an episode (default: the environment's own).")
]


def environment_source(
    name: str, *, cost_key: str | None, kwargs: list[str] | None, max_episode_steps: int | None
) -> EnvironmentSource:
    """The environment that the options name.

    Raises:
        UsageError: If an option is impossible.
    """
    from safer_offline.environments.source import EnvironmentSource

    return EnvironmentSource(
        name=name,
        kwargs=parse_kwargs(kwargs or []),
        cost_key=cost_key or "cost",
        max_episode_steps=max_episode_steps,
    )


def parse_kwargs(pairs: list[str]) -> dict[str, Any]:
    """`["speed=0.5", "map=small"]` -> `{"speed": 0.5, "map": "small"}`: JSON, else text.

    Raises:
        UsageError: If something is no pair.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.isidentifier()):
            raise UsageError(f"--kwargs: '{pair}' is no pair name=value")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed
