"""Settings chosen by what is foreseen, never by what a simulator shows."""

import dataclasses
import json
from functools import partial

import pytest
from typer.testing import CliRunner

from safer_offline import load_policy, train
from safer_offline.cli.main import app
from safer_offline.datasets import save_dataset
from safer_offline.errors import UsageError
from safer_offline.foresight import DynamicsConfig, Estimate, Foresight, choice, choose
from safer_offline.interruption import Interrupted
from safer_offline.learners import BCConfig

pytestmark = pytest.mark.filterwarnings("ignore:few episodes stay within")

FILES = {"checkpoint.pt", "config.json", "metrics.csv", "foresight.json", "policy.safetensors"}


@pytest.fixture(autouse=True)
def _small_models(monkeypatch):
    small = partial(DynamicsConfig, steps=5, hidden_sizes=(8,))
    monkeypatch.setattr(choice, "DynamicsConfig", small)


@pytest.fixture
def foreseen(monkeypatch):
    """Tells, by the margin, what shall be foreseen: natural return, natural and attacked cost."""

    def say(told, *, trusted=True):
        def foresee(run, policy, dataset, **rest):
            reward, cost, attacked = told[policy.info.training["config"]["margin"]]
            (run / "foresight.json").write_text("{}")

            def estimate(name, cost):
                near = (cost, cost)
                return Estimate(name, reward, (reward, reward), cost, near, 1.0 if trusted else 9.0)

            return Foresight((estimate("natural", cost), estimate("mc", attacked)), cost_limit=2.0)

        monkeypatch.setattr(choice, "foresee_run", foresee)

    return say


def margins(config, points, out, *, tried=(1.0, 2.0), **rest):
    config = dataclasses.replace(config, margin=0.5)
    others = [{"margin": margin} for margin in tried]
    return choose(config, points, others, out=out, steps=4, progress=False, **rest)


@pytest.mark.parametrize(
    "case",
    [
        # Of those that keep the limit of 2 under attack, the one of the largest return.
        ({0.5: (9, 0, 8), 1.0: (7, 0, 1), 2.0: (5, 0, 0)}, 1.0, "Of the 2"),
        ({0.5: (9, 0, 2), 1.0: (7, 0, 1), 2.0: (5, 0, 0)}, 0.5, "Of the 3"),
        # None does: the least worst cost, whatever it returns.
        ({0.5: (9, 0, 8), 1.0: (7, 0, 6), 2.0: (1, 0, 7)}, 1.0, "None is foreseen"),
        # What costs without an attack counts as well.
        ({0.5: (9, 9, 0), 1.0: (7, 0, 1), 2.0: (5, 0, 0)}, 1.0, "Of the 2"),
    ],
)
def test_the_best_is_kept(small_config, points, tmp_path, foreseen, case):
    told, best, why = case
    foreseen(told)
    made = margins(small_config, points, tmp_path / "run")
    assert made.chosen.run.policy.info.training["config"]["margin"] == best
    assert made.reason.startswith(why)
    policy = load_policy(tmp_path / "run")
    assert policy.fingerprint == made.chosen.run.policy.fingerprint == made.run.policy.fingerprint
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES | {"choice.json", "tried"}
    written = json.loads((tmp_path / "run" / "choice.json").read_text())
    assert written["chosen"] == made.chosen.name
    assert [one["settings"] for one in written["alternatives"]] == [
        {}, {"margin": 1.0}, {"margin": 2.0},
    ]  # fmt: skip
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["margin"] == best


def test_what_is_not_trusted_keeps_no_limit(small_config, points, tmp_path, foreseen):
    foreseen({0.5: (9, 0, 1), 1.0: (7, 0, 0)}, trusted=False)
    made = margins(small_config, points, tmp_path / "run", tried=(1.0,))
    assert made.chosen.settings == {"margin": 1.0}
    assert made.reason.startswith("None is foreseen")


def test_each_is_trained_as_if_alone_and_an_interrupted_choice_goes_on(
    small_config, points, tmp_path, foreseen
):
    foreseen({0.5: (9, 0, 8), 1.0: (7, 0, 1)})
    alone = train(
        dataclasses.replace(small_config, margin=1.0),
        points,
        out=tmp_path / "alone",
        steps=4,
        progress=False,
    )
    made = margins(small_config, points, tmp_path / "run", tried=(1.0,))
    assert made.run.policy.fingerprint == alone.policy.fingerprint
    with pytest.raises(UsageError, match="holds a run already"):
        margins(small_config, points, tmp_path / "run", tried=(1.0,))
    (tmp_path / "run" / "policy.safetensors").unlink()
    again = margins(small_config, points, tmp_path / "run", tried=(1.0,), resume=True)
    assert again.lines() == made.lines()
    assert load_policy(tmp_path / "run").fingerprint == alone.policy.fingerprint


def test_who_stops_the_estimates_is_told_that_the_trainings_are_kept(
    small_config, points, tmp_path, monkeypatch
):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(choice, "foresee_run", stop)
    with pytest.raises(Interrupted, match=r"all trainings in .*tried are complete") as caught:
        margins(small_config, points, tmp_path / "run", tried=(1.0,))
    assert caught.value.resume == ("--resume",)
    assert caught.value.exit_code == 130


def test_what_cannot_be_chosen_is_said_before_the_work(small_config, points, tmp_path):
    for given, config, message in (
        ([{"margin": 1.0}, {"margin": 1.0}], small_config, "'margin=1.0' is to be tried twice"),
        ([{}], small_config, "'as given' is to be tried twice"),
        ([{"margin": -1.0}], small_config, "margin must be"),
        ([{"learning_rate": 1e-2}], BCConfig(), "does not have"),
    ):
        with pytest.raises(UsageError, match=message):
            choose(config, points, given, out=tmp_path / "run", steps=4)
        assert not (tmp_path / "run").exists()


def test_a_user_tries_settings_on_the_command_line(points, tmp_path, small_config):
    save_dataset(tmp_path / "points.h5", points)
    tiny = "hidden_sizes=16", "batch_size=16", "recovery_states=50", "candidates=3"
    given = ["train", tmp_path / "points.h5", "--steps", 4, "--cost-limit", 2]
    given += [part for setting in tiny for part in ("--set", setting)]
    given += ["--try", "margin=1 recovery_weight=2", "--out", tmp_path / "run"]

    def cli(*arguments):
        return CliRunner().invoke(app, [str(one) for one in arguments])

    done = cli(*given, "--try", "margin=0")
    assert done.exit_code == 0, done.output
    for line in ("  as given", "  margin=1.0 recovery_weight=2.0", "  margin=0.0", "Chosen: "):
        assert any(one.startswith(line) for one in done.output.splitlines()), line
    assert "Next: safer-offline evaluate" in done.output
    wrong = cli(*given, "--resume", "--try", "margn=1")
    assert wrong.exit_code != 0
    assert "the nearest is 'margin'" in str(wrong.exception)
