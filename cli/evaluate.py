"""`safer-offline evaluate`: how safe a policy stays under attack."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from safer_offline.cli.environments import CostKey, Kwargs, MaxEpisodeSteps, parse_kwargs
from safer_offline.cli.options import (
    Epsilon,
    EpsilonUnits,
    budget_options,
    parse_budgets,
    parse_epsilon,
    parse_targets,
)
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from safer_offline.evaluation.budgets import BudgetEvaluation
    from safer_offline.evaluation.outputs import Found
    from safer_offline.evaluation.simulation import Evaluation


DEFAULT_BUDGET = "0.05"
_ATTACKS, _RESULTS = "Attacks", "What to find out, and where to put it"


def evaluate_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run directory or policy.safetensors; or, with --env, a policy of others: an "
            "archive of Stable-Baselines3 (.zip), TorchScript (.pt), torch.export (.pt2), ONNX "
            "(.onnx), or module:function, called "
            "with an observation. Several are compared: those that differ only in the training "
            "seed are one method.",
            show_default=False,
        ),
    ],
    env: Annotated[
        str | None,
        typer.Option(
            help="Task: car-circle, a Gymnasium id, module:Id-v0 or module:function "
            "(default: that of the dataset, as it was there)."
        ),
    ] = None,
    cost_key: CostKey = None,
    kwargs: Kwargs = None,
    max_episode_steps: MaxEpisodeSteps = None,
    attacks: Annotated[
        str,
        typer.Option(
            help="'all' (natural, uniform, gaussian, mad, amad, mc, mr); 'strong', which adds "
            "minr, mix, lure, coupled, and bias and learned, searched for in minutes; or names, "
            "also timed, drift, and search, which needs no gradients. An attack of your own is "
            "module:Class; LABEL=NAME meets one attack with several settings.",
            rich_help_panel=_ATTACKS,
        ),
    ] = "all",
    attack_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ATTACK.NAME=VALUE",
            help="Settings of an attack: mad.steps=50,restarts=10; give it several times for more.",
            rich_help_panel=_ATTACKS,
        ),
    ] = None,
    critics: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCES",
            help="Whose critics lead mc, mr, amad, minr and coupled: the policy's 'own'; or those "
            "that are fitted, in half a minute, to 'data' (--data) or to 'rollouts' of the policy. "
            "With several, own,rollouts, each is met with each; mc@rollouts is mc led by the last "
            "(default: own, and data if there are any; of policies without critics, strong attacks "
            "take rollouts).",
            show_default=False,
            rich_help_panel=_ATTACKS,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|ID",
            help="Dataset of the task, a file or an id of Minari, to fit critics to that the "
            "policy did not bring along.",
            show_default=False,
            rich_help_panel=_ATTACKS,
        ),
    ] = None,
    critic_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="How to fit them: updates=10000, episodes=96 (of rollouts), transitions=200000 "
            "(of data, at most), discount, batch_size, hidden_sizes, members, learning_rate, "
            "polyak, warm_up, seed; may be repeated.",
            show_default=False,
            rich_help_panel=_ATTACKS,
        ),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            help="module:Class of the policy's network, where it is code of your own.",
            show_default=False,
        ),
    ] = None,
    aim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="What a policy shall aim at that can be told so, such as target_return=300 for "
            "cdt. --cost-limit and --epsilon tell by themselves whoever can be told (caps, cdt, "
            "bc-multi-task: the limit; safer-conditioned: both) unless target_cost= or "
            "budget_share= stands here. target_cost is then the limit, too, if --cost-limit says "
            "no other.",
            show_default=False,
        ),
    ] = None,
    epsilon: Epsilon = DEFAULT_BUDGET,
    epsilon_units: EpsilonUnits = EpsilonUnits.raw,
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="MULTIPLES",
            help="Several budgets, as multiples of --epsilon: 0,0.5,1,1.5,2 gives cost against "
            "budget, the area under it, and up to where the limit is kept. With --epsilon 1 they "
            "are the budgets themselves. bias and learned are searched for with each.",
            show_default=False,
            rich_help_panel=_ATTACKS,
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes under each attack.")] = 50,
    seed: Annotated[int, typer.Option(help="Determines episodes and attacks.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Simulation processes (default: the cores).")
    ] = None,
    cost_limit: Annotated[
        float | None, typer.Option(help="Largest allowed episode cost (default: as trained).")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Also keep each step of the worst and the median episode under the worst attack, "
            "true and as the policy saw it, and draw where they went (paths.npz, .png, .svg).",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    film: Annotated[
        bool,
        typer.Option(
            "--film",
            help="As --record, and also film the worst episode, without attack beside attacked "
            "(clip.gif, 20 seconds), where the environment draws itself.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify",
            help="Also prove, at 1,000 states visited without attack, how far any attack within "
            "the budget can move the action, and at how many of them the policy's critic expects "
            "the limit to be kept all the same. Takes seconds, for policies of dense layers: "
            "Gaussian ones of ours, networks of PyTorch. Nothing is proven of whole episodes.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the results (default: RUN/evaluations/, then a name for what is "
            "evaluated, so that none replaces another). Of several runs it holds the comparison.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace another evaluation's results in --out.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the whole report as JSON instead of the table.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    list_all: Annotated[
        bool,
        typer.Option(
            "--list", help="Show all evaluations of this run and stop.", rich_help_panel=_RESULTS
        ),
    ] = False,
) -> None:
    """Attack trained policies in the simulator and report return, cost and violations."""
    # Here, so that `--help` need not wait for torch.
    import torch

    from safer_offline.context import EnvironmentContext
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.evaluation.budgets import BudgetEvaluation
    from safer_offline.evaluation.critics.settings import CriticSettings
    from safer_offline.evaluation.folders import list_evaluations
    from safer_offline.evaluation.foreign import foreign_policy
    from safer_offline.evaluation.foreign_files import load_foreign
    from safer_offline.evaluation.harness import budget_of, prepare
    from safer_offline.evaluation.task import environment_of
    from safer_offline.policies.aiming import tell
    from safer_offline.policies.trained import load_policy
    from safer_offline.settings import parse_values, settings_of

    if list_all:
        for run in runs:
            _print_list(list_evaluations(run), run)
        return
    # A second thread slows networks and batches of this size down.
    torch.set_num_threads(1)
    multiples = None if budgets is None else parse_budgets(budgets)
    if (record or film) and multiples is not None:
        raise UsageError("--record and --film show episodes of one budget: leave out --budgets")
    targets = parse_targets(aim or [])
    asked, size = cost_limit, parse_epsilon(epsilon)
    if cost_limit is None:
        cost_limit = targets.get("target_cost")
    critic_settings = CriticSettings(
        **parse_values(settings_of(CriticSettings), critic_set or [], option="--critic-set")
    )
    dataset = None if data is None else load_dataset(data, max_memory="auto")
    evaluations: dict[str, Evaluation | BudgetEvaluation] = {}
    for run in runs:
        foreign = load_foreign(str(run))
        if foreign is not None and targets:
            raise UsageError(f"--aim: {run} is a policy of others, which cannot be told anything")
        ours = load_policy(run, actor=actor) if foreign is None else None
        usual = (epsilon, epsilon_units.value) == (DEFAULT_BUDGET, "raw")
        if ours is not None and usual and attacks != "natural":
            _tell_budget(run, budget_options(ours.info.training.get("config", {})))
        if ours is not None and (targets or ours.aims):
            budget = budget_of(ours, size, units=epsilon_units.value)
            ours = tell(ours, targets, cost_limit=asked, budget=budget)
        source = environment_of(
            EnvironmentContext() if ours is None else ours.context,
            env=env,
            cost_key=cost_key,
            kwargs=parse_kwargs(kwargs or []),
            max_episode_steps=max_episode_steps,
        )
        prepared = prepare(
            ours if foreign is None else foreign_policy(foreign[0], source, fingerprint=foreign[1]),
            env=source,
            attacks=attacks,
            attack_set=attack_set or [],
            epsilon=size,
            epsilon_units=epsilon_units.value,
            episodes=episodes,
            seed=seed,
            cost_limit=cost_limit,
            record=record,
            film=film,
            certify=certify,
            critics=critics,
            data=dataset,
            critic_settings=critic_settings,
        )
        several = None if multiples is None else BudgetEvaluation.of(prepared, multiples)
        evaluations[str(run)] = several or prepared
    told = _Told(workers=workers, out=out, overwrite=overwrite, as_json=as_json)
    if len(runs) == 1:
        _evaluate_one(runs[0], evaluations[str(runs[0])], told)
    else:
        _compare(evaluations, told)


def _tell_budget(run: Path, own: list[str]) -> None:
    """Say so where a policy was trained to withstand another budget than the default."""
    if own:
        typer.echo(
            f"{run} was trained to withstand another budget than {DEFAULT_BUDGET}, with which it "
            f"is attacked here: {' '.join(own)} attacks it with its own.",
            err=True,
        )


class _Told(NamedTuple):
    """What the user said of how to run and where to write."""

    workers: int | None
    out: Path | None
    overwrite: bool
    as_json: bool


def _foretell(
    evaluations: Collection[Evaluation | BudgetEvaluation], told: _Told
) -> Callable[[Found], None]:
    """Say how long it takes if something must first be found; gives what shows the rest before."""
    from rich.console import Console

    from safer_offline.evaluation import outputs
    from safer_offline.evaluation.durations import CRITICS, expected_seconds, in_words

    # The whole table follows, so this is not for other programs.
    screen = Console(stderr=True)
    late = [trial for one in evaluations for trial in one.trials if trial.needs_rehearsal]
    searched = list(dict.fromkeys(trial.attack.name for trial in late))
    critics = [CRITICS] if any(one.critic_sources for one in evaluations) else []
    if searched or critics:
        each = [expected_seconds(one, workers=told.workers) for one in evaluations]
        names = dict.fromkeys(name for seconds in each for name in seconds)
        total = {name: sum(seconds.get(name, 0.0) for seconds in each) for name in names}
        screen.print(f"This takes {in_words(total, searched=[*critics, *searched])}.")

    def show(found: Found) -> None:
        screen.print(outputs.on_screen(found))
        screen.print(f"Next: {' and '.join(searched)}, which must first be found.")

    return show


def _evaluate_one(run: Path, evaluation: Evaluation | BudgetEvaluation, told: _Told) -> None:
    from rich.console import Console

    from safer_offline.evaluation import outputs
    from safer_offline.evaluation.folders import (
        adversaries_folder,
        critics_folder,
        results_folder,
    )
    from safer_offline.evaluation.unfinished import forget_unfinished
    from safer_offline.locking import sole_writer

    # Before the first episode: a refusal should not cost the user an evaluation.
    folder = results_folder(run, evaluation.plan, out=told.out, overwrite=told.overwrite)
    show = _foretell([evaluation], told)
    with sole_writer(folder):
        found = evaluation.run(
            workers=told.workers,
            keep_in=folder,
            adversaries_in=adversaries_folder(run, out=told.out),
            critics_in=critics_folder(run, out=told.out),
            meanwhile=show,
        )
        # The table first: what took minutes must be seen even if it cannot be written.
        if told.as_json:
            typer.echo(outputs.as_json(found), nl=False)
        else:
            Console().print(outputs.on_screen(found))
        files = outputs.save(found, folder)
        forget_unfinished(folder)
    if not told.as_json:
        typer.echo(f"Wrote {folder}: {', '.join(file.name for file in files)}.")


def _compare(evaluations: dict[str, Evaluation | BudgetEvaluation], told: _Told) -> None:
    """Evaluate run after run, each with its own results, and show them beside each other."""
    from rich.console import Console

    from safer_offline.evaluation.folders import comparison_folder
    from safer_offline.evaluation.running import run_each
    from safer_offline.evaluation.side_by_side import (
        comparison_json,
        comparison_screen,
        save_comparison,
    )
    from safer_offline.evaluation.unfinished import forget_unfinished
    from safer_offline.locking import sole_writer

    plans = {run: evaluation.plan for run, evaluation in evaluations.items()}
    folder = comparison_folder(plans, out=told.out, overwrite=told.overwrite)
    show = _foretell(evaluations.values(), told)

    def so_far(run: str, found: Found) -> None:
        typer.echo(f"{run}, so far:", err=True)
        show(found)

    with sole_writer(folder):
        say = (lambda line: None) if told.as_json else typer.echo
        comparison, runs = run_each(evaluations, workers=told.workers, say=say, meanwhile=so_far)
        if told.as_json:
            typer.echo(comparison_json(comparison, runs), nl=False)
        else:
            Console().print(comparison_screen(comparison))
        files = save_comparison(comparison, runs, folder)
        for run in runs.values():
            forget_unfinished(run.results)
    if not told.as_json:
        typer.echo(f"Wrote {folder}: {', '.join(file.name for file in files)}.")


def _print_list(evaluations: pd.DataFrame, run: Path) -> None:
    """All evaluations of a run: what was evaluated, and how it went at worst."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from safer_offline.evaluation.tables import format_violations

    if evaluations.empty:
        typer.echo(f"{run} has not been evaluated yet.")
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="worst: each episode under the attack that harms it most; ≤: exact bound, 95 %",
        padding=(0, 0),
    )
    columns = (
        "", "ε", "episodes", "seed", "limit", "natural\nreturn", "natural\ncost",
        "worst\nreturn", "worst\ncost", "worst\nviolations",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    rows = evaluations.to_dict("records")
    for number, row in enumerate(rows, start=1):
        epsilon = row["epsilon"]
        table.add_row(
            f"{number}",
            (f"{epsilon:g}" if isinstance(epsilon, float) else "varies")
            + (" std" if row["epsilon_units"] == "std" else ""),
            f"{row['episodes']:.0f}",
            f"{row['seed']:.0f}",
            *(_number(row[name]) for name in ("cost_limit", "natural_reward", "natural_cost")),
            *(_number(row[name]) for name in ("worst_reward", "worst_cost")),
            format_violations(row["worst_violations"], row["worst_violations_high"]),
        )
    Console().print(table)
    for number, row in enumerate(rows, start=1):
        note = f" ({row['differences']})" if row["differences"] else ""
        typer.echo(f"{number}  {row['env']}{note}: {row['folder']}")


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.1f}"  # noqa: PLR0124 - NaN
