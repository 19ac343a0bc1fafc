"""Foresight on run directories, and as users meet it."""

import json
from functools import partial

import pytest
from typer.testing import CliRunner

from safer_offline import train
from safer_offline.cli import train as train_module
from safer_offline.cli.main import app
from safer_offline.datasets import load_dataset, save_dataset
from safer_offline.errors import DataError, UsageError
from safer_offline.foresight import DynamicsConfig, choice, fit_dynamics, foresee, runs
from safer_offline.foresight.runs import foresee_run, foresee_runs
from safer_offline.learners import CDTConfig

SMALL = DynamicsConfig(steps=10, hidden_sizes=(8,))

pytestmark = pytest.mark.filterwarnings("ignore:few episodes stay within")


@pytest.fixture(autouse=True)
def _small_models(monkeypatch):
    for module in (runs, choice):
        monkeypatch.setattr(module, "DynamicsConfig", partial(DynamicsConfig, **vars(SMALL)))
    monkeypatch.setattr(train_module, "FEW_STEPS", 4)


@pytest.fixture
def data(tmp_path, points):
    save_dataset(tmp_path / "points.h5", points)
    return tmp_path / "points.h5"


@pytest.fixture
def run(data, tmp_path, small_config):
    return train(small_config, data, out=tmp_path / "run", steps=4, progress=False).directory


def cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_remembers_its_data_and_its_budget(run, points, small_config):
    ((where, found),) = foresee_runs([run])
    kept = json.loads((run / "foresight.json").read_text())
    assert where == run
    assert kept["epsilon"] == small_config.epsilon
    assert kept["cost_limit"] == small_config.cost_limit
    assert [one["attack"] for one in kept["estimates"]] == [
        "natural", "uniform", "mc", "mr", "bias",
    ]  # fmt: skip
    assert kept["estimates"][0]["reward"] == found.estimates[0].reward
    ((_, wider),) = foresee_runs([run], epsilon=0.5)
    assert wider.estimates[0] == found.estimates[0]
    assert wider.estimates[1] != found.estimates[1]


def test_several_runs_share_a_model_and_get_what_each_gets_alone(data, run, tmp_path, small_config):
    other = train(small_config, data, out=tmp_path / "two", steps=4, seed=1, progress=False)
    both = dict(foresee_runs([run, other.directory]))
    for one in (run, other.directory):
        assert both[one] == dict(foresee_runs([one], data))[one]


def test_data_that_moved_are_asked_for(run, data, tmp_path):
    moved = tmp_path / "elsewhere.h5"
    data.rename(moved)
    with pytest.raises(DataError, match=r"points\.h5, is not there(.|\n)*--data"):
        list(foresee_runs([run]))
    assert list(foresee_runs([run], moved))


def test_other_data_are_warned_of(run, make_points, tmp_path):
    save_dataset(tmp_path / "other.h5", make_points(seed=7))
    with pytest.warns(UserWarning, match="learned from another dataset"):
        list(foresee_runs([run], tmp_path / "other.h5"))


def test_what_is_no_run_is_said_before_the_work(run, tmp_path):
    with pytest.raises(UsageError, match="nowhere is no run directory"):
        list(foresee_runs([run, tmp_path / "nowhere"]))
    assert not (run / "foresight.json").exists()


def test_a_model_of_data_on_disk_is_that_of_memory(data):
    memory, disk = (load_dataset(data, max_memory=size) for size in ("1GiB", "10kB"))
    assert type(memory) is not type(disk)
    one, other = (fit_dynamics(each, SMALL, seed=0).state_dict() for each in (memory, disk))
    assert all(one[name].equal(other[name]) for name in one)


def test_a_policy_that_remembers_is_foreseen_in_its_episodes(points, tmp_path):
    config = CDTConfig(
        sequence_length=4, embedding_size=8, layers=1, heads=1, batch_size=8, cost_limit=2.0
    )
    done = train(config, points, out=tmp_path / "cdt", steps=2, progress=False)
    model = fit_dynamics(points, SMALL, seed=0)
    told = [
        foresee(policy, points, model=model).estimates[0]
        for policy in (done.policy, done.policy.aimed_at(target_cost=50.0))
    ]
    assert told[0].reward != told[1].reward
    assert foresee_run(done.directory, done.policy, points, model=model).estimates[0] == told[0]


def test_training_ends_with_it_unless_told_otherwise(data, tmp_path):
    tiny = "hidden_sizes=16", "batch_size=16", "recovery_states=50", "candidates=3"
    settings = [part for setting in tiny for part in ("--set", setting)]
    given = ("train", data, "--steps", 4, "--cost-limit", 2, *settings)
    done = cli(*given, "--no-choose", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "without a simulator" in done.output
    assert "natural" in done.output
    assert done.output.index("natural") < done.output.index("Next: safer-offline evaluate")
    again = cli("foresee", tmp_path / "a")
    assert again.exit_code == 0, again.output
    lines = [line for line in again.output.splitlines() if line.startswith("  ")]
    assert len(lines) == 5
    assert all(line in done.output for line in lines)
    silent = cli(*given, "--no-foresee", "--out", tmp_path / "b")
    assert "without a simulator" not in silent.output
    assert not (tmp_path / "b" / "foresight.json").exists()
    assert silent.output.endswith(f"Next: safer-offline evaluate {tmp_path / 'b'}\n")
    # Else `evaluate` would attack with another budget than what was trained for.
    budget = ("--epsilon", "0.1,0.2", "--epsilon-units", "std")
    other = cli(*given, *budget, "--no-foresee", "--out", tmp_path / "c")
    words = " ".join(budget)
    assert other.output.endswith(f"Next: safer-offline evaluate {tmp_path / 'c'} {words}\n")
