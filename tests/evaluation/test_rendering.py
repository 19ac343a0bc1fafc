"""Tables, files and figure of a report whose numbers are made up; and the command around it."""

import dataclasses
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from safer_offline.cli.evaluate import evaluate_command
from safer_offline.context import BoxSpace, EnvironmentContext
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import UsageError
from safer_offline.evaluation import harness as evaluation
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.folders import list_evaluations, results_folder
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.reference import dsrl_range
from safer_offline.evaluation.rendering import plot_report, report_json, save_report
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.evaluation.tables import report_table
from safer_offline.policies import trained

COLUMNS = [
    "attack", "epsilon", "episodes", "reward_mean", "reward_std", "cost_mean", "cost_std",
    "violation_rate", "violation_low", "violation_high",
]  # fmt: skip
COSTS = {"natural": [0, 0, 0], "uniform": [2, 0, 0], "mc": [30, 0, 30], "mr": [0, 12, 3]}
CONTEXT = EnvironmentContext(
    env_id="SafetyCarCircle-v0",
    kwargs={},
    cost_key="cost",
    max_episode_steps=300,
    observation_space=BoxSpace(low=(-np.inf,) * 8, high=(np.inf,) * 8),
)


@pytest.fixture
def report():
    frames = [
        pd.DataFrame(
            {
                "attack": name,
                "episode": range(3),
                "seed": [11, 12, 13],
                "reward": [300.0, 310.0, 320.0 + len(name)],
                "cost": np.asarray(costs, float),
                "length": 300,
                "terminated": False,
                "budget_used": 0.0 if name == "natural" else 0.5,
            }
        )
        for name, costs in COSTS.items()
    ]
    return EvaluationReport(
        plan=EvaluationPlan(
            context=CONTEXT,
            epsilon=0.05,
            epsilon_units="raw",
            episodes=3,
            seed=4,
            cost_limit=10.0,
            attacks={name: {} for name in COSTS},
        ),
        carried=CONTEXT,
        reward_range=(0.0, 400.0),
        attacks={name: {} for name in COSTS},
        episodes=pd.concat(frames, ignore_index=True),
    )


@pytest.fixture
def bare(report):
    """Natural episodes of a policy that knows neither limit nor range."""
    return dataclasses.replace(
        report,
        plan=dataclasses.replace(report.plan, cost_limit=None, epsilon=(0.1, 0.2)),
        reward_range=None,
        attacks={"natural": {}},
        episodes=report.of_attack("natural"),
    )


def screen(report, *, colour=False):
    console = Console(width=80, record=True, force_terminal=colour, quiet=False)
    with console.capture() as capture:
        console.print(report_table(report))
    return capture.get()


def test_worst_attack_and_worst_case(report):
    assert report.worst_attack() == "mc"
    assert report.worst_case()["cost_mean"] == pytest.approx((30 + 12 + 30) / 3)
    assert report.worst_case()["violation_rate"] == 1


def test_table_shows_every_attack_and_the_worst_last(report):
    lines = [line for line in screen(report).splitlines() if "±" in line]
    assert [line.split()[0] for line in lines[:4]] == list(COSTS)
    assert lines[4].split()[:2] == ["worst:", "mc"]
    assert "20.0 ± 14.1" in lines[4]
    assert "67% ≤98%" in lines[4]
    assert lines[5].startswith(" worst per episode")
    assert "24.0 ± 8.5" in lines[5]
    assert "100%" in lines[5]


def test_table_says_what_no_violation_leaves_possible(report):
    many = pd.concat([report.of_attack("natural")] * 17)  # 51 episodes without cost
    many = dataclasses.replace(report, attacks={"natural": {}}, episodes=many)
    assert "0% ≤5.7%" in screen(many)
    once = dataclasses.replace(many, episodes=pd.concat([many.episodes] * 4))
    once.episodes["cost"] = [11.0] + [0.0] * 203
    assert "0.5% ≤2.3%" in screen(once)
    assert max(map(len, screen(report).splitlines())) <= 80
    assert "…" not in screen(report)


def test_costs_that_never_vary_have_no_interval(report):
    row = report.summary().iloc[0]
    assert row["cost_mean"] == 0
    assert np.isnan(row["cost_low"])
    assert np.isnan(row["cost_high"])
    assert row["violation_high"] == pytest.approx(1 - 0.05 ** (1 / 3))
    saved = json.loads(report_json(report))["summary"][0]
    assert saved["cost_high"] is None


def test_table_colours_safe_and_unsafe(report):
    coloured = screen(report, colour=True)
    assert "\x1b[32m0.0 ± 0.0\x1b[0m" in coloured
    assert "\x1b[31m20.0 ± 14.1\x1b[0m" in coloured


def test_table_of_one_attack_has_no_worst_and_unknown_is_a_dash(bare):
    text = screen(bare)
    assert "worst" not in text
    assert text.count("–") == 3


def test_saved_files(report, tmp_path):
    files = save_report(report, tmp_path / "new" / "folder")
    names = [
        "evaluation.csv", "episodes.csv", "evaluation.json", "evaluation.png", "evaluation.svg",
    ]  # fmt: skip
    assert [file.name for file in files] == names
    assert sorted(path.name for path in files[0].parent.iterdir()) == sorted(names)

    table = pd.read_csv(files[0])
    assert set(COLUMNS) <= set(table.columns)
    assert table["attack"].tolist() == list(COSTS)
    assert table["cost_mean"].tolist() == pytest.approx([0, 2 / 3, 20, 5])
    assert table["epsilon"].tolist() == [0, 0.05, 0.05, 0.05]
    assert len(pd.read_csv(files[1])) == 12
    assert files[3].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(files[4]).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in files[4].read_bytes()


def test_saving_again_replaces_and_repeats(report, tmp_path):
    first = [file.read_bytes() for file in save_report(report, tmp_path)]
    assert [file.read_bytes() for file in save_report(report, tmp_path)] == first


def test_json_holds_everything(report):
    document = json.loads(report_json(report))
    assert document["config"]["env"] == "SafetyCarCircle-v0"
    assert document["config"]["cost_limit"] == 10
    assert document["worst_attack"] == "mc"
    assert document["versions"]["safer-offline"]
    summary = report.summary()
    assert pd.DataFrame(document["summary"]).astype(summary.dtypes).equals(summary)
    assert [episode["cost"] for episode in document["episodes"][6:9]] == COSTS["mc"]


def test_printing_shows_the_table_of_the_command_line(report):
    text = str(report.summary())
    assert "worst per episode" in text
    assert "SafetyCarCircle-v0: 3 episodes, ε = 0.05 (raw), cost limit 10" in text
    assert str(report) == text


def test_returns_stand_on_both_scales_and_the_table_names_them(report, bare):
    """295.8 on Car-Circle is 0.55 by DSRL's own range, whatever it is by the dataset's."""
    both = dataclasses.replace(report, dsrl_range=dsrl_range(CONTEXT))
    row = both.summary().iloc[0]
    assert row["normalised_reward"] == pytest.approx(row["reward_mean"] / 400)
    low, high = both.dsrl_range
    assert (295.8 - low) / (high - low) == pytest.approx(0.55, abs=0.005)
    assert row["normalised_reward_dsrl"] == pytest.approx((row["reward_mean"] - low) / (high - low))
    assert "/DSRL" in screen(both)
    assert "/DSRL" not in screen(report)
    assert max(map(len, screen(both).splitlines())) <= 80
    other_limit = dataclasses.replace(CONTEXT, max_episode_steps=200)
    assert dsrl_range(other_limit) is dsrl_range(EnvironmentContext()) is None


def test_an_evaluation_elsewhere_says_so(report):
    elsewhere = dataclasses.replace(CONTEXT, kwargs={"radius": 0.6})
    other = dataclasses.replace(report, plan=dataclasses.replace(report.plan, context=elsewhere))
    assert "the arguments {'radius': 0.6} instead of {}" in " ".join(screen(other).split())
    assert "radius" in json.loads(report_json(other))["differences"]


# Where results lie


def test_each_evaluation_has_a_place_of_its_own(report, tmp_path):
    plans = [report.plan]
    changes = (
        {"epsilon": 0.1}, {"seed": 5}, {"episodes": 4}, {"cost_limit": 20.0}, {"policy": "ab"},
        {"attacks": {"mc": {"steps": 3}}}, {"epsilon_units": "std"},
        {"context": dataclasses.replace(CONTEXT, cost_key="collision")},
        {"context": dataclasses.replace(CONTEXT, max_episode_steps=200)},
    )  # fmt: skip
    plans += [dataclasses.replace(report.plan, **change) for change in changes]
    folders = [results_folder(tmp_path, plan) for plan in plans]
    assert len(set(folders)) == len(plans)
    assert all(folder.parent == tmp_path / "evaluations" for folder in folders)
    assert folders[0].name.startswith("car-circle-eps0.05-3episodes-seed4-")
    updated = dataclasses.replace(CONTEXT, versions={"numpy": "99"})
    assert results_folder(tmp_path, dataclasses.replace(report.plan, context=updated)) == folders[0]


def test_results_of_another_evaluation_are_not_replaced_unasked(report, tmp_path):
    out = results_folder("run", report.plan, out=tmp_path)
    assert out == tmp_path
    save_report(report, out)
    assert results_folder("run", report.plan, out=tmp_path) == tmp_path
    other = dataclasses.replace(report.plan, seed=9)
    with pytest.raises(UsageError, match="--overwrite"):
        results_folder("run", other, out=tmp_path)
    assert results_folder("run", other, out=tmp_path, overwrite=True) == tmp_path


def test_all_evaluations_of_a_run_are_listed(report, bare, tmp_path, command):
    assert list_evaluations(tmp_path).empty
    for one in (report, bare):
        save_report(one, results_folder(tmp_path, one.plan))
    (tmp_path / "evaluations" / "notes").mkdir()
    (tmp_path / "evaluations" / "notes" / "evaluation.json").write_text("[1]")
    table = list_evaluations(tmp_path)
    assert table["worst_attack"].tolist() == ["mc", "natural"]
    assert table["worst_cost"].tolist() == pytest.approx([24, 0])
    assert table["worst_violations"].iloc[0] == 1
    assert table["worst_violations_high"].iloc[0] == 1
    assert table["natural_cost"].tolist() == [0, 0]
    result, asked = command(tmp_path, "--list")
    assert result.exit_code == 0, result.output
    assert not asked
    assert report.plan.name in result.stdout
    assert "varies" in result.stdout


def test_json_has_null_for_unknown(bare):
    row = json.loads(report_json(bare))["summary"][0]
    assert row["violation_rate"] is None
    assert row["cost_limit"] is None
    assert row["epsilon"] == 0


def test_figure_draws_the_limit_only_if_there_is_one(report, bare):
    figure = plot_report(report)
    returns, costs = figure.axes
    assert [label.get_text() for label in returns.get_yticklabels()] == list(COSTS)
    assert [text.get_text() for text in costs.texts][-1] == "limit 10"
    low, high = costs.get_xlim()
    assert low < 0
    assert high > 30
    assert all("limit" not in text.get_text() for text in plot_report(bare).axes[1].texts)


# The command


@pytest.fixture
def command(monkeypatch, report):
    """Runs `evaluate` on a policy and an evaluation that do nothing but say what was asked."""
    asked = {}
    policy = SimpleNamespace(
        context=EnvironmentContext(), aims={}, info=SimpleNamespace(training={})
    )

    class Prepared:
        plan = report.plan
        trials = ()
        critic_sources = ()

        def run(self, **settings):
            asked.update(settings)
            return report

    def fake_prepare(policy, **settings):
        asked.update(settings)
        return Prepared()

    monkeypatch.setattr(trained, "load_policy", lambda path, actor: policy)
    monkeypatch.setattr(evaluation, "prepare", fake_prepare)
    app = typer.Typer()
    app.command()(evaluate_command)

    def invoke(*arguments, env_id=""):
        policy.context = EnvironmentContext(env_id=env_id)
        return CliRunner().invoke(app, [str(argument) for argument in arguments]), asked

    return invoke


def test_command_passes_on_what_it_was_told(command, tmp_path):
    result, asked = command(
        tmp_path, "--env", "car-circle", "--attacks", "mc,mr", "--attack-set", "mr.steps=2",
        "--epsilon", "0.1,0.2",
        "--epsilon-units", "std", "--episodes", 3, "--seed", 7, "--workers", 0,
        "--cost-limit", 5, "--certify", "--out", tmp_path / "out",
        "--critics", "own,rollouts", "--critic-set", "updates=7", "--critic-set", "seed=3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert callable(asked.pop("meanwhile"))
    assert asked == {
        "env": EnvironmentSource(name="car-circle"),
        "attacks": "mc,mr", "attack_set": ["mr.steps=2"],
        "epsilon": (0.1, 0.2), "epsilon_units": "std",
        "episodes": 3, "seed": 7, "workers": 0, "cost_limit": 5.0, "record": False, "film": False,
        "certify": True, "keep_in": tmp_path / "out",
        "adversaries_in": tmp_path / "out" / "adversaries",
        "critics_in": tmp_path / "out" / "critics",
        "critics": "own,rollouts", "data": None,
        "critic_settings": CriticSettings(updates=7, seed=3),
    }  # fmt: skip
    assert (tmp_path / "out" / "evaluation.csv").exists()
    assert "worst per episode" in result.stdout


def test_command_writes_beside_the_policy_and_knows_its_task(command, report, tmp_path):
    result, asked = command(tmp_path / "policy.safetensors", "--json", env_id="SafetyCarRun-v0")
    assert result.exit_code == 0, result.output
    assert asked["env"].env_id == "SafetyCarRun-v0"
    assert (tmp_path / "evaluations" / report.plan.name / "evaluation.png").exists()
    assert json.loads(result.stdout)["worst_attack"] == "mc"


def test_command_asks_for_the_task_if_nobody_knows_it(command, tmp_path):
    result, _ = command(tmp_path)
    assert "--env" in str(result.exception)
