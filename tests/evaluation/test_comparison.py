"""Several policies beside each other: points that steer to one side of a border at 0.3."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from safer_offline.attacks import Attack
from safer_offline.cli.main import _behind, app
from safer_offline.errors import UsageError
from safer_offline.evaluation import seeds, statistics
from safer_offline.evaluation.budgets import evaluate_budgets
from safer_offline.evaluation.comparison import WORST, WORST_CASE, Comparison
from safer_offline.evaluation.folders import comparison_folder, results_folder
from safer_offline.evaluation.harness import evaluate
from safer_offline.evaluation.rollouts import Rollouts
from safer_offline.evaluation.side_by_side import comparison_screen, plot_comparison
from safer_offline.evaluation.trainings import group_by_training
from safer_offline.interruption import Interrupted
from safer_offline.learners import BCConfig
from safer_offline.training.loop import train

ENV = "toy_environments:make_point"


def steer_to(goal):
    return lambda observation: np.array([8 * (goal - observation[0]), 0.5 * observation[1]])


careful, bold = steer_to(0.1), steer_to(0.25)


class Push(Attack):
    """The point shall believe that it is further left."""

    name = "push"

    def perturb(self, target, observations, *, epsilon, noise, previous=None):
        return observations - epsilon * torch.tensor([1.0, 0.0])


SETTINGS = {
    "env": ENV, "attacks": ["natural", "uniform", Push()], "epsilon": 0.1, "episodes": 6,
    "workers": 0, "cost_limit": 6.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def reports():
    goals = {"careful": (0.1, 0.12, -0.2), "bold": (0.25, 0.28)}
    return {
        name: [evaluate(steer_to(goal), **SETTINGS) for goal in several]
        for name, several in goals.items()
    }


@pytest.fixture(scope="module")
def comparison(reports):
    return Comparison.of(reports)


def screen(comparison):
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(comparison_screen(comparison))
    return capture.get()


def test_seeds_count_as_one_method(comparison, reports):
    summary = comparison.summary().set_index(["method", "row"])
    for name, several in reports.items():
        costs = np.stack([r.of_attack("push")["cost"].to_numpy() for r in several])
        row = summary.loc[(name, "push")]
        assert row["seeds"] == len(several)
        assert row["episodes"] == costs.size
        assert row["cost_mean"] == pytest.approx(costs.mean())
        assert row["cost_cvar"] == pytest.approx(
            statistics.conditional_value_at_risk(costs.ravel())
        )
        assert (row["violation_low"], row["violation_high"]) == seeds.violation_bounds(costs, 6.0)
    assert summary.loc[("bold", WORST), "attack"] == "push"
    worst = np.stack([r.worst_case()["cost_mean"] for r in reports["bold"]])
    assert summary.loc[("bold", WORST_CASE), "cost_mean"] == pytest.approx(worst.mean())


def test_policies_are_compared_on_the_same_starts(comparison, reports):
    (pair,) = comparison.pairs
    assert (pair["method"], pair["other"]) == ("careful", "bold")
    # The worst case of an episode has the largest of its costs.
    costs = [
        np.stack([report.of_attack(attack)["cost"] for attack in report.attacks]).max(axis=0)
        for several in reports.values()
        for report in several
    ]
    ours, theirs = np.stack(costs[:3]), np.stack(costs[3:])
    wins = [
        np.mean([0.5 + 0.5 * np.sign(b - a) for a in ours[:, j] for b in theirs[:, j]])
        for j in range(6)
    ]
    assert pair["lower_cost"] == pytest.approx(np.mean(wins))
    assert pair["lower_cost"] > 0.9
    # Start by start: a policy does as well as itself, however much starts differ.
    twice = Comparison.of({"one": reports["bold"][:1], "other": reports["bold"][:1]})
    assert twice.pairs[0]["lower_cost"] == twice.pairs[0]["higher_return"] == 0.5


def test_table_shows_each_method_and_the_first_beside_the_others(comparison):
    text = screen(comparison)
    assert "careful (3 seeds)" in text
    assert "bold (2 seeds)" in text
    assert text.count("worst: ") == 2
    assert "worst: push" in text
    assert "How probably careful does better" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    row = comparison.row(comparison.methods[1], 1.0, WORST)
    line = [one.split() for one in text.splitlines() if "worst: push" in one][-1]
    assert line[2:5] == [f"{row[name]:.1f}" for name in ("reward_mean", "reward_iqm", "cost_mean")]
    assert " ".join(line[5:8]) == f"{row['cost_mean_low']:.1f} to {row['cost_mean_high']:.1f}"
    assert plot_comparison(comparison).axes[1].texts[-1].get_text() == "limit 6"


def test_what_met_fewer_attacks_is_said():
    settings = [SETTINGS, SETTINGS | {"attacks": ["natural", "uniform"]}]
    comparison = Comparison.of(
        {name: [evaluate(bold, **one)] for name, one in zip("ab", settings, strict=True)}
    )
    assert comparison.unequal_attacks()[0].startswith("b did not meet push")
    assert "did not meet push" in screen(comparison)


def test_curves_of_several_methods():
    reports = {
        name: [evaluate_budgets(policy, budgets=(0, 1, 2), **SETTINGS)]
        for name, policy in (("careful", careful), ("bold", bold))
    }
    comparison = Comparison.of(reports)
    for name, (report,) in reports.items():
        rows = comparison.summary()
        worst = rows[(rows["method"] == name) & (rows["row"] == WORST)]
        assert worst["cost_mean"].tolist() == report.curve()["cost_mean"].tolist()
    text = screen(comparison)
    assert "ε 0.1: push" in text
    assert "ε 0.2: push" in text
    assert len(plot_comparison(comparison).axes[0].lines) == 3  # two methods and the limit
    assert [pair["multiple"] for pair in comparison.pairs] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 1}, "seed 0 and 1"), ({"episodes": 2}, "episodes 6 and 2"),
     ({"epsilon": 0.2}, "epsilon 0.1 and 0.2")],
)  # fmt: skip
def test_other_episodes_do_not_compare(reports, change, message):
    other = evaluate(bold, **SETTINGS | change)
    with pytest.raises(UsageError, match=message):
        Comparison.of({"a": reports["bold"], "b": [other]})


def test_other_tasks_stand_side_by_side_without_a_winner(reports):
    (report, _) = reports["bold"]
    elsewhere = dataclasses.replace(report.plan.context, kwargs={"border": 0.1})
    moved = dataclasses.replace(report, plan=dataclasses.replace(report.plan, context=elsewhere))
    assert Comparison.of({"here": [report], "there": [moved]}).pairs == []


# Which policies are trainings of one method


@pytest.fixture(scope="module")
def trained(make_points, tmp_path_factory):
    home, data = tmp_path_factory.mktemp("runs"), make_points()
    configs = {"bc": BCConfig(hidden_sizes=(8,)), "wide": BCConfig(hidden_sizes=(9,))}
    runs = {}
    for name, seed in (("bc", 0), ("bc", 1), ("wide", 0)):
        run = f"{name}-seed{seed}"
        train(configs[name], data, out=home / run, steps=3, seed=seed, progress=False)
        runs[run] = home / run
    return runs


def test_only_the_training_seed_may_differ(trained):
    from safer_offline import load_policy

    policies = {str(path): load_policy(path) for path in trained.values()}
    groups = group_by_training(policies | {"my:drive": bold, "your:drive": careful})
    assert {name: [Path(run).name for run in runs] for name, runs in groups.items()} == {
        "bc-seed*": ["bc-seed0", "bc-seed1"], "wide-seed0": ["wide-seed0"],
        "my:drive": ["my:drive"], "your:drive": ["your:drive"],
    }  # fmt: skip
    with pytest.raises(UsageError, match="same policy"):
        group_by_training(dict.fromkeys(["a", "b"], next(iter(policies.values()))))


# The command


def invoke(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


OPTIONS = (
    "--env", ENV, "--attacks", "natural,uniform,mad", "--attack-set", "mad.steps=2,restarts=1",
    "--epsilon", 0.1, "--episodes", 2, "--workers", 0, "--cost-limit", 6,
)  # fmt: skip


def test_command_compares_runs_and_each_keeps_its_own_results(trained, tmp_path):
    out = tmp_path / "out"
    result = invoke(*trained.values(), *OPTIONS, "--out", out)
    assert result.exit_code == 0, result.output
    assert "bc-seed* (2 seeds)" in result.stdout
    assert "wide-seed0" in result.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.csv", "comparison.json", "comparison.png", "comparison.svg", "improvements.csv",
        "profiles.csv", "profiles.png", "profiles.svg",
    ]  # fmt: skip
    document = json.loads((out / "comparison.json").read_text())
    assert [run["method"] for run in document["runs"]] == ["bc-seed*", "bc-seed*", "wide-seed0"]
    table = pd.read_csv(out / "comparison.csv").set_index(["method", "row"])
    profiles = pd.read_csv(out / "profiles.csv").set_index(["score", "method"])
    for method in ("bc-seed*", "wide-seed0"):
        rows = profiles.loc[("cost", method)]
        worst = table.loc[(method, "worst per episode")]
        assert (rows["share"].diff().dropna() <= 0).all()
        below = rows[rows["threshold"] < 6]["share"].min()  # the limit lies between two of them
        above = rows[rows["threshold"] >= 6]["share"].max() if (rows["threshold"] >= 6).any() else 0
        assert above <= worst["violation_rate"] <= below
    own = [pd.read_csv(Path(run["results"]) / "evaluation.csv") for run in document["runs"]]
    wanted = np.mean([one.set_index("attack").loc["mad", "cost_mean"] for one in own[:2]])
    assert table.loc[("bc-seed*", "mad"), "cost_mean"] == pytest.approx(wanted)
    assert not list(tmp_path.rglob("unfinished.json"))
    # The same once more is no other comparison; another one is.
    again = invoke(*trained.values(), *OPTIONS, "--out", out, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == document
    other = invoke(*list(trained.values())[:2], *OPTIONS, "--out", out)
    assert "another comparison" in str(other.exception)


def test_what_is_searched_is_searched_for_each_run_and_each_budget(trained):
    runs = list(trained.values())[1:]
    search = ("--attack-set", "bias.population=4,generations=0,episodes=1")
    options = (*OPTIONS, "--attacks", "uniform,bias", *search, "--budgets", "0,1,2", "--seed", 9)
    result = invoke(*runs, *options[:2], *options[6:])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("This takes about") == 1
    assert result.stderr.count("Next: bias, which must first be found.") == 2
    for run in runs:
        assert f"{run}, so far:" in result.stderr.replace("\n", "")
        assert len(list((run / "evaluations" / "adversaries").iterdir())) == 2
        (document,) = run.glob("evaluations/*3budgets*/evaluation.json")
        found = json.loads(document.read_text())["found"]
        assert [(one["multiple"], one["attack"]) for one in found] == [(1, "bias"), (2, "bias")]
        assert all(len(one["offset"]) == 2 for one in found)


def test_interrupted_comparison_goes_on(trained, monkeypatch, tmp_path):
    runs = list(trained.values())[:2]
    wanted, out = tmp_path / "wanted", tmp_path / "out"
    assert invoke(*runs, *OPTIONS, "--seed", 5, "--out", wanted).exit_code == 0
    run, done = Rollouts.run, []

    def noted(self, jobs):
        if jobs[0].attack.name != "fit":
            done.append(jobs)
        return run(self, jobs)

    def interrupted(self, jobs):
        if len(done) == 1:
            raise KeyboardInterrupt
        return noted(self, jobs)

    monkeypatch.setattr(Rollouts, "run", interrupted)
    result = invoke(*runs, *OPTIONS, "--seed", 5, "--out", out)
    cause = _behind(result.exception)
    assert isinstance(cause, Interrupted)
    assert cause.kept == "1 of 2 runs are kept"
    monkeypatch.setattr(Rollouts, "run", noted)
    assert invoke(*runs, *OPTIONS, "--seed", 5, "--out", out).exit_code == 0
    assert len(done) == 2  # a wave each: the first run was not repeated
    for name in ("comparison.csv", "comparison.json", "comparison.png", "comparison.svg"):
        assert (out / name).read_bytes() == (wanted / name).read_bytes()


def test_each_comparison_has_a_place_among_the_evaluations_of_the_first(reports, tmp_path):
    (tmp_path / "a").mkdir()
    first, second = (report.plan for report in reports["bold"])
    plans = {str(tmp_path / "a"): first, str(tmp_path / "b"): second}
    folder = comparison_folder(plans)
    assert folder.parent == tmp_path / "a" / "evaluations"
    assert "2runs" in folder.name
    assert folder != results_folder(tmp_path / "a", first)
    assert folder != comparison_folder({**plans, str(tmp_path / "c"): first})


def test_several_runs_are_listed(trained):
    runs = list(trained.values())[:2]
    result = invoke(*runs, "--list")
    assert result.exit_code == 0, result.output
    for run in runs:
        assert f"{run}/evaluations/" in result.stdout.replace("\n", "")
