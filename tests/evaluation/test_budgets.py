"""Several budgets at once: a point that stays left of the border, and an attack that misleads it.

The point steers to x = 0.2; the border is at 0.3. Who makes it believe that it is further left by
more than 0.1 leads it across.
"""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from safer_offline.attacks import Attack
from safer_offline.cli.main import app
from safer_offline.errors import UsageError
from safer_offline.evaluation import outputs
from safer_offline.evaluation.budgets import BudgetEvaluation, evaluate_budgets
from safer_offline.evaluation.curves import conclusions, plot_curves
from safer_offline.evaluation.folders import list_evaluations, results_folder
from safer_offline.evaluation.harness import evaluate, prepare
from safer_offline.evaluation.rollouts import Rollouts
from safer_offline.interruption import Interrupted

ENV = "toy_environments:make_point"


def steer(observation):
    return np.array([8 * (0.2 - observation[0]), 0.5 * observation[1]])


class Push(Attack):
    """The point shall believe that it is further left."""

    name = "push"

    def perturb(self, target, observations, *, epsilon, noise, previous=None):
        return observations - epsilon * torch.tensor([1.0, 0.0])


class Breakout(Push):
    """Leaves its budget, by no more than rounding explains."""

    name = "breakout"

    def perturb(self, target, observations, *, epsilon, noise, previous=None):
        return observations * (1 + 5e-7)


SETTINGS = {
    "env": ENV, "attacks": ["natural", "uniform", Push()], "epsilon": 0.1, "episodes": 3,
    "workers": 0, "cost_limit": 6.0,
}  # fmt: skip
BUDGETS = (0, 0.5, 1.5, 2)


@pytest.fixture(scope="module")
def report():
    return evaluate_budgets(steer, budgets=BUDGETS, **SETTINGS)


def test_at_each_budget_the_numbers_are_those_of_an_evaluation_by_itself(report):
    for multiple, epsilon in zip(BUDGETS, (0.0, 0.05, 0.15, 0.2), strict=True):
        alone = evaluate(steer, **SETTINGS | {"epsilon": epsilon})
        at = report.reports[multiple]
        assert at.plan == alone.plan
        pd.testing.assert_frame_equal(
            at.episodes.reset_index(drop=True), alone.episodes, check_exact=True
        )
        assert at.worst_case() == alone.worst_case()


def test_the_worst_attack_follows_the_budget_and_the_limit_is_kept_until_it_breaks(report):
    curve = report.curve()
    assert curve["epsilon"].tolist() == [0.0, 0.05, 0.15, 0.2]
    assert curve["attack"].tolist()[2:] == ["push", "push"]
    costs = curve["cost_mean"].to_numpy()
    # Led across the border, the point stays there for the rest of its 20 steps.
    assert costs[1] < 6
    assert costs[2] > 10
    assert report.largest_safe() == 0.5
    area = 0.05 * (costs[0] + costs[1]) / 2 + 0.1 * (costs[1] + costs[2]) / 2
    area += 0.05 * (costs[2] + costs[3]) / 2
    assert report.area() == pytest.approx(area)
    assert report.mean_cost() == pytest.approx(area / 0.2)
    assert report.gate_failures() == []
    text = " ".join(conclusions(report))
    assert "keeps the limit of 6 up to ε = 0.05; at 0.15 push costs" in text
    assert f"{area:.3g}" in text


def test_natural_episodes_stand_once_and_every_other_attack_at_each_budget(report):
    summary, episodes = report.summary(), report.episodes()
    assert list(zip(summary["attack"], summary["multiple"], strict=True)) == [
        ("natural", 0), ("uniform", 0), ("push", 0), ("uniform", 0.5), ("push", 0.5),
        ("uniform", 1.5), ("push", 1.5), ("uniform", 2), ("push", 2),
    ]  # fmt: skip
    assert len(episodes) == 3 * len(summary)
    assert episodes.groupby("episode")["seed"].nunique().eq(1).all()


def test_natural_is_where_curves_begin_even_if_nobody_asked_for_it():
    asked = evaluate_budgets(steer, budgets=[1], **SETTINGS | {"attacks": [Push()]})
    assert list(asked.reports) == [0.0, 1.0]
    assert list(asked.reports[0.0].attacks) == ["natural"]
    assert asked.curve()["attack"].iloc[0] == "natural"
    assert list(asked.attacks) == ["natural", "push"]


def test_budgets_by_coordinate_scale_together(report):
    many = evaluate_budgets(steer, budgets=[2, 0.5], **SETTINGS | {"epsilon": [0.1, 0.0]})
    assert many.plan.budgets == (0.5, 2.0)
    assert many.reports[2.0].epsilon == (0.2, 0.0)
    pushed = [r.reports[2.0].of_attack("push")["cost"].tolist() for r in (many, report)]
    assert pushed[0] == pushed[1]
    # Over multiples, since there is no single ε.
    costs = many.curve()["cost_mean"].to_numpy()
    assert many.area() == pytest.approx(0.25 * (costs[0] + costs[1]) + 0.75 * (costs[1] + costs[2]))
    assert "0.5 times the budget" in " ".join(conclusions(many))
    assert plot_curves(many).axes[0].get_xlabel() == "multiple of ε"
    assert json.loads(outputs.as_json(many))["largest_safe_epsilon"] == [0.05, 0.0]


def test_an_attack_that_leaves_its_budget_is_caught():
    settings = SETTINGS | {"attacks": ["natural", Push(), Breakout()]}
    for found in (
        evaluate_budgets(steer, budgets=[0, 1], **settings),
        evaluate(steer, **settings | {"epsilon": 0.0}),
    ):
        assert len(found.gate_failures()) == 1
        assert "breakout changes 3 of 3 episodes" in found.gate_failures()[0]
        assert "GATE FAILED" in screen(found)


def test_a_policy_that_does_not_answer_the_same_twice_is_caught():
    generator = np.random.default_rng(0)
    found = evaluate_budgets(
        lambda observation: steer(observation) + generator.normal(size=2), budgets=[0], **SETTINGS
    )
    assert len(found.gate_failures()) == 2


def test_what_is_safe_everywhere_or_nowhere_is_said():
    for limit, words in ((20.0, "the largest tried"), (0.0, "broken without any attack")):
        found = evaluate_budgets(
            lambda observation: steer(observation) + 5,
            budgets=[1], **SETTINGS | {"cost_limit": limit},
        )  # fmt: skip
        assert words in conclusions(found)[0]
    assert np.isnan(found.largest_safe())
    assert json.loads(outputs.as_json(found))["largest_safe_epsilon"] is None


@pytest.mark.parametrize(
    ("budgets", "epsilon", "message"),
    [
        ([], 0.1, "one multiple"),
        ([1, -1], 0.1, "position 1 is -1"),
        ([float("nan")], 0.1, "position 0 is nan"),
        ([1], 0.0, "every multiple of it"),
    ],
)
def test_impossible_budgets_are_refused(budgets, epsilon, message):
    with pytest.raises(UsageError, match=message):
        evaluate_budgets(steer, budgets=budgets, **SETTINGS | {"epsilon": epsilon})


def test_a_list_of_the_wrong_length_is_told_of_budgets():
    with pytest.raises(UsageError, match=r"2 coordinates.*--epsilon 1 --budgets 0\.1,0\.2,0\.4"):
        evaluate(steer, **SETTINGS | {"epsilon": [0.1, 0.2, 0.4]})


@pytest.mark.parametrize("waves", [1, 3])
def test_interrupted_and_resumed_is_uninterrupted(report, tmp_path, monkeypatch, waves):
    left, run = [waves], Rollouts.run

    def interrupted(self, jobs):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return run(self, jobs)

    settings = {name: value for name, value in SETTINGS.items() if name != "workers"}
    evaluation = BudgetEvaluation.of(prepare(steer, **settings), BUDGETS)
    monkeypatch.setattr(Rollouts, "run", interrupted)
    with pytest.raises(Interrupted, match=f"{waves} of"):
        evaluation.run(workers=0, keep_in=tmp_path, max_rows=6)
    left[0] = 100
    resumed = evaluation.run(workers=0, keep_in=tmp_path, max_rows=6)
    assert left[0] == 100 - (5 - waves)
    pd.testing.assert_frame_equal(resumed.episodes(), report.episodes(), check_exact=True)


def screen(found, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(outputs.on_screen(found))
    return capture.get()


def test_table_has_a_column_for_each_budget(report):
    text = screen(report)
    assert "4 budgets ε (raw)" in " ".join(text.split())
    assert ["cost", "ε", "0", "ε", "0.05", "ε", "0.15", "ε", "0.2"] in [
        line.split() for line in text.splitlines()
    ]
    pushed = [line.split()[1:] for line in text.splitlines() if line.strip().startswith("push")]
    summary = report.summary()
    for cells, column in zip(pushed, ("cost_mean", "reward_mean"), strict=True):
        wanted = summary.loc[summary["attack"] == "push", column]
        assert cells == [f"{value:.1f}" for value in wanted]


def test_files_hold_the_curve_and_are_listed(report, tmp_path):
    folder = results_folder(tmp_path, report.plan)
    assert "eps0.1-4budgets" in folder.name
    files = outputs.save(report, folder)
    assert [file.name for file in files] == [
        "evaluation.csv", "curve.csv", "episodes.csv", "evaluation.json", "evaluation.png",
        "evaluation.svg",
    ]  # fmt: skip
    curve = pd.read_csv(files[1])
    assert curve["cost_mean"].tolist() == pytest.approx(report.curve()["cost_mean"].tolist())
    assert (curve["cost_cvar"] >= curve["cost_mean"]).all()
    document = json.loads(files[3].read_text())
    assert document["config"]["budgets"] == list(BUDGETS)
    assert document["largest_safe_epsilon"] == 0.05
    assert document["area_under_curve"] == pytest.approx(report.area())
    listed = list_evaluations(tmp_path)
    assert listed["epsilon"].tolist() == [0.0, 0.05, 0.15, 0.2]
    assert listed["worst_cost"].tolist() == pytest.approx(
        [report.reports[m].worst_case()["cost_mean"] for m in BUDGETS]
    )
    one = dataclasses.replace(report.plan, budgets=())
    assert results_folder(tmp_path, one) != folder
    assert "budgets" not in one.to_json()


def test_command_with_several_budgets(tmp_path):
    arguments = [
        "evaluate", "test_budgets:steer", "--env", ENV, "--attacks", "uniform,test_budgets:Push",
        "--epsilon", "1", "--budgets", "0.05,0.15", "--episodes", "2", "--workers", "0",
        "--cost-limit", "6", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "keeps the limit of 6 up to ε = 0.05" in result.stdout
    assert "curve.csv" in result.stdout
    assert not (tmp_path / "out" / "unfinished.json").exists()
    result = CliRunner().invoke(app, [*arguments[:9], "0.05;0.15"])
    assert "--budgets: '0.05;0.15' at position 0 is no number" in str(result.exception)
