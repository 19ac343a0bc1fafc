"""`safer-offline behaviors`: list those who can act, and train new ones."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safer_offline.cli.environments import CostKey, Kwargs, MaxEpisodeSteps, environment_source

if TYPE_CHECKING:
    from safer_offline.datasets.behaviors.learned.actor_files import ActorInfo

app = typer.Typer(
    help="Behaviour policies: list those who can act, and train new ones.", no_args_is_help=True
)


@app.command("list")
def list_command(
    env: Annotated[
        str | None, typer.Argument(help="Task, such as car-circle (default: all).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show who can act where, and the actor files that come with the package."""
    from safer_offline.datasets.behaviors import BEHAVIORS, behaviors_for
    from safer_offline.datasets.behaviors.learned.families import packaged_actors, packaged_names
    from safer_offline.environments.tasks import resolve_environment

    env_ids = list(BEHAVIORS) if env is None else [resolve_environment(env)]
    families = {env_id: behaviors_for(env_id) for env_id in env_ids}
    files = {name: packaged_actors(name) for name in packaged_names()}
    files = {name: file for name, file in files.items() if file.info.env_id in env_ids}
    if as_json:
        found: dict[str, Any] = {
            "families": {
                env_id: [
                    {
                        "name": family.name,
                        "description": family.description,
                        "checkpoint_sha256": family.checkpoint_sha256,
                    }
                    for family in members
                ]
                for env_id, members in families.items()
            },
            "packaged": {
                name: {**dataclasses.asdict(file.info), "sha256": file.sha256}
                for name, file in files.items()
            },
        }
        typer.echo(json.dumps(found, indent=2))
        return
    for env_id, members in families.items():
        typer.echo(env_id)
        for family in members:
            learned = " (learned)" if family.checkpoint_sha256 else ""
            typer.echo(f"  {family.name:<10} {family.description}{learned}")
    for name, file in files.items():
        typer.echo(f"packaged:{name}, for {file.info.env_id}")
        typer.echo(_score_table(file.info))


@app.command("train")
def train_command(
    env: Annotated[
        str,
        typer.Argument(
            help="Environment: ant-run, a Gymnasium id, module:Id-v0 or module:function.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Actor file to write (default: ant_run.safetensors)."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Environment steps in all.")] = 500_000,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same file.")] = 0,
    penalties: Annotated[
        str,
        typer.Option(
            help="What a unit of cost may take from the reward; each episode draws one of these."
        ),
    ] = "0,1,2,4",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of the training, such as reward_scale=5; may be repeated.",
        ),
    ] = None,
    cost_key: CostKey = None,
    kwargs: Kwargs = None,
    max_episode_steps: MaxEpisodeSteps = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
) -> None:
    """Train one actor for all trade-offs between return and cost, with SAC in the simulator.

    Needs the extra "behaviors". An interrupted training starts anew: Stable-Baselines3 cannot go on
    exactly where it stopped. The snapshots until then stay in FILE.partial.
    """
    from safer_offline.datasets.behavior_training import BehaviorTrainingConfig, train_behavior
    from safer_offline.environments.tasks import short_name

    source = environment_source(
        env, cost_key=cost_key, kwargs=kwargs, max_episode_steps=max_episode_steps
    )
    config = BehaviorTrainingConfig().with_settings(
        [f"steps={steps}", f"penalties={penalties}", *(settings or [])]
    )
    name = short_name(source.env_id) or source.env_id.rpartition(":")[2]
    path = out or Path(f"{name.replace('-', '_')}.safetensors")
    file = train_behavior(source, path, config=config, seed=seed, overwrite=overwrite)
    typer.echo(
        f"{_score_table(file.info)}\nWrote {path} and the log {path.with_suffix('.csv')}.\n"
        f"Next: {shlex.join(['safer-offline', 'collect', env, '--policy', f'checkpoint:{path}'])}"
    )


def _score_table(info: ActorInfo) -> str:
    """Return/cost of each snapshot under each penalty."""
    lines = ["  steps     " + "".join(f"{f'k={k:g}':>14}" for k in info.penalties)]
    lines += [
        f"  {snapshot.steps:<10}"
        + "".join(
            f"{f'{score.mean_return:.0f} / {score.mean_cost:.0f}':>14}" for score in snapshot.scores
        )
        for snapshot in info.snapshots
    ]
    return "\n".join([*lines, "  (return / cost of an episode under penalty k)"])
