"""Every fault of `toy_environments` is found, and nothing is found in what has none."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import toy_environments

from safer_offline.environments.checking import checks as environment_checks
from safer_offline.environments.checking.checks import check_environment, require_sound
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import SaferOfflineError, UsageError


@pytest.fixture(autouse=True)
def _no_other_process(request, monkeypatch):
    """A process takes a second to start; only tests that ask for it start one."""
    if "other_process" not in request.fixturenames:
        monkeypatch.setattr(
            environment_checks, "_elsewhere", lambda play, *arguments: play(*arguments)
        )


@pytest.fixture
def other_process():
    """Lets the check start a process of its own."""


def check(name, **settings):
    return check_environment(EnvironmentSource(name=f"toy_environments:{name}", **settings))


def test_nothing_is_found_in_a_good_environment(other_process):
    report = check("Point")
    assert report.findings == []
    assert report.usable
    summary = report.summary
    assert summary.lengths == (30, 30, 30)
    assert summary.max_episode_steps == 30
    assert summary.cost_range == (0, 1)
    assert all(0 <= cost <= 30 for cost in summary.costs)
    assert 0 < summary.million_transitions < 24 * 3600


@pytest.mark.parametrize(
    ("name", "severity", "problem", "remedy"),
    [
        ("OldStep", "error", "step returned 4 values", "old package gym"),
        ("SixValues", "error", "step returned 6 values", "SafetyGymnasium2Gymnasium"),
        ("OldReset", "error", "reset returned ndarray", "(observation, {})"),
        ("ResetWithoutSeed", "error", "reset raised TypeError", "seed=None, options=None"),
        ("Crash", "error", "step raised RuntimeError: the arm is stuck", "mend"),
        ("InfoIsNone", "error", "info, is a NoneType", "return (observation,"),
        ("NotAnEnvironment", "error", "is no gymnasium.Env", "mended"),
        ("an_instance", "error", "each process makes its own", "mended"),
        ("a_number", "error", "is a int, not a function", "mended"),
        ("returns_nothing", "error", "lack a return", "mended"),
        ("cannot_be_made", "error", "RuntimeError: no licence found", "mended"),
        ("DictObservations", "error", "observation space must be a Box", "FlattenObservation"),
        ("ImageObservations", "error", "of one dimension", "FlattenObservation"),
        ("DiscreteActions", "error", "action space must be a Box", "ActionWrapper"),
        ("UnboundedActions", "error", "finite bounds", "bounds"),
        ("WrongShape", "error", "an array of shape (3,)", "reset and step"),
        ("WrongType", "warning", "of type int64", "float32"),
        ("NanObservation", "error", "after step 4 (seed 0) is not finite at position 1", "zero"),
        ("OutsideSpace", "warning", "outside the observation space", "widen"),
        ("NanReward", "error", "the reward after step 1 (seed 0) is nan", "finite number"),
        ("OtherKey", "error", "'constraint_cost', 't'", "--cost-key constraint_cost,"),
        ("NoCost", "error", "it holds 't'", "info['cost']"),
        ("CostSometimes", "error", "missing in 60 of 90 steps, first after step 1", "zero where"),
        ("CostIsText", "error", "is high, no finite number", "number"),
        ("CostIsArray", "error", "is [0. 1.], no finite number", "sum"),
        ("NegativeCost", "error", "costs are negative", "sign"),
        ("NanCost", "error", "is nan, no finite number", "number"),
        ("ZeroCost", "warning", "no cost in 90 steps", "info['cost']"),
        ("CumulativeCost", "warning", "sum so far", "alone"),
        ("Endless", "error", "did not end within 200 steps", "--max-episode-steps"),
        ("SilentLimit", "error", "ended after 30 steps", "TimeLimit"),
        ("TerminatesToo", "warning", "3 of 90 steps both terminated and truncated", "truncated"),
        ("OneStep", "warning", "after one step", "whether to go on"),
        ("IgnoresSeed", "warning", "after other episodes give another episode, from the first", ""),
        ("GlobalNoise", "warning", "give another episode, from step 1 on", "self.np_random"),
        ("Remembers", "warning", "in the same environment, after other episodes", "anew"),
        ("CountsInstances", "warning", "in a new environment of the same process", "anew"),
        (
            "Prints",
            "warning",
            "prints to the standard output (120 lines, first: 'step 0')",
            "print",
        ),
        ("OpensWindow", "warning", "opens a window", "render_mode"),
    ],
)
def test_each_fault_is_found_and_nothing_else(name, severity, problem, remedy, monkeypatch):
    monkeypatch.setattr(environment_checks, "MOST_STEPS", 200)
    report = check(name)
    assert [finding.severity for finding in report.findings] == [severity]
    assert problem in report.findings[0].problem
    assert remedy in report.findings[0].remedy
    assert report.usable == (severity == "warning")


@pytest.mark.parametrize(
    ("name", "severity", "problem"),
    [
        ("DependsOnProcess", "warning", "in a new process give another episode, from step 1 on"),
        ("OnlyInOneProcess", "error", "cannot be made in a new process"),
    ],
)
def test_faults_that_only_other_processes_have(name, severity, problem, other_process, monkeypatch):
    monkeypatch.setenv("TOY_OWNER", "")
    monkeypatch.delenv("TOY_OWNER")
    report = check(name)
    assert [finding.severity for finding in report.findings] == [severity]
    assert problem in report.findings[0].problem


def test_several_faults_are_told_at_once_and_errors_first(monkeypatch):
    report = check("Prints", cost_key="constraint_cost")
    assert [finding.severity for finding in report.findings] == ["error", "warning"]


def test_a_cost_that_stays_is_no_sum():
    # Right of the border for good: one rise, then ones.
    report = check("Point", kwargs={"speed": 0.0, "border": -0.2})
    assert report.findings == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("OtherKey", {"cost_key": "constraint_cost"}),
        ("SilentLimit", {"max_episode_steps": 10}),
        ("Endless", {"max_episode_steps": 10}),
    ],
)
def test_what_the_remedies_say_helps(name, settings):
    assert check(name, **settings).usable


def test_a_check_takes_no_longer_than_it_may(monkeypatch):
    report = check_environment("toy_environments:Point", episodes=10_000, seconds=0.05)
    assert report.usable
    assert 1 <= len(report.summary.lengths) < 1000


def test_bullet_tasks_pass():
    report = check_environment("ball-circle", episodes=2)
    assert report.usable
    assert report.env_id == "SafetyBallCircle-v0"


def test_unknown_environments_are_no_finding():
    with pytest.raises(UsageError, match="'Point'"):
        check("Pointt")


def test_a_first_look_raises_errors_and_shows_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert require_sound("toy_environments:Point").usable
    with pytest.warns(UserWarning, match="prints to the standard output"):
        require_sound("toy_environments:Prints")
    with pytest.raises(SaferOfflineError, match=r"(?s)cannot be used.*'t'.*Remedy: put the cost"):
        require_sound("toy_environments:NoCost")


def run(*arguments, cwd):
    program = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "from safer_offline.cli.main import main; main()",
    ]
    return subprocess.run(
        [*program, "check", *map(str, arguments)],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_command_finds_environments_in_the_current_folder(tmp_path):
    source = Path(toy_environments.__file__).read_text()
    (tmp_path / "mine.py").write_text(source.replace("toy_environments:", "mine:"))
    good = run("mine:make_point", "--kwargs", "speed=0.2", "--json", cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    said = json.loads(good.stdout)
    assert said["usable"]
    assert said["findings"] == []
    assert said["summary"]["lengths"] == [20, 20, 20]

    bad = run("mine:OtherKey", cwd=tmp_path)
    assert bad.returncode == 1
    for text in ("error: info has no 'cost'", "Remedy: say --cost-key constraint_cost", "steps/s"):
        assert text in bad.stdout

    assert run("mine:Pont", cwd=tmp_path).returncode == 2

    unhappy = run("mine:NanReward", "--json", "--episodes", "1", cwd=tmp_path)
    assert "NaN" not in unhappy.stdout.replace("nan", "")  # which JSON does not know
    assert not json.loads(unhappy.stdout)["usable"]
