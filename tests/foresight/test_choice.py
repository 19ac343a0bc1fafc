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
from safer_offline.foresight import (
    DynamicsConfig,
    Estimate,
    Foresight,
    choice,
    choose,
    choose_where_needed,
)
from safer_offline.foresight.choice import alternatives_of
from safer_offline.interruption import Interrupted
from safer_offline.learners import SAFER, BCConfig
from safer_offline.learners.cloning import BC

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
            reward, cost, attacked, *noisy = told[policy.info.training["config"]["margin"]]
            (run / "foresight.json").write_text("{}")

            def estimate(name, cost):
                near = (cost, cost)
                return Estimate(name, reward, (reward, reward), cost, near, 1.0 if trusted else 9.0)

            estimates = [estimate("natural", cost), estimate("mc", attacked)]
            if noisy:
                (reward,) = noisy
                estimates.append(estimate("uniform", cost))
            return Foresight(tuple(estimates), cost_limit=2.0)

        monkeypatch.setattr(choice, "foresee_run", foresee)

    return say


def margins(config, points, out, *, tried=(1.0, 2.0), **rest):
    config = dataclasses.replace(config, margin=0.5)
    others = [{"margin": margin} for margin in tried]
    return choose(config, points, others, out=out, steps=4, progress=False, **rest)


def by_itself(config, points, out, *, margin):
    """A training with that margin, with nothing to choose among."""
    config = dataclasses.replace(config, margin=margin)
    return train(config, points, out=out, steps=4, progress=False)


@pytest.mark.parametrize(
    "case",
    [
        # Of those that keep the limit of 2 under attack, the one of the largest return.
        ({0.5: (9, 0, 8), 1.0: (7, 0, 1), 2.0: (5, 0, 0)}, 1.0, "Of the 2"),
        ({0.5: (9, 0, 2), 1.0: (7, 0, 1), 2.0: (5, 0, 0)}, 0.5, "Of the 3"),
        # None does: the least worst cost, whatever it returns.
        ({0.5: (9, 0, 8), 1.0: (2, 0, 6), 2.0: (1, 0, 8)}, 1.0, "None is foreseen"),
        # But where it hardly differs, the return; a worst cost of 8 is a third more than one of 6.
        ({0.5: (9, 0, 8), 1.0: (2, 0, 6), 2.0: (5, 0, 7)}, 2.0, "None is foreseen"),
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


def test_the_worst_offset_does_not_choose(given, tmp_path, monkeypatch):
    def foresee(run, policy, dataset, **rest):
        (run / "foresight.json").write_text("{}")
        estimates = (
            Estimate(name, 1.0, (1.0, 1.0), cost, (cost, cost), 1.0)
            for name, cost in (("natural", 0.0), ("mc", 1.0), ("bias", 50.0))
        )
        return Foresight(tuple(estimates), cost_limit=2.0)

    monkeypatch.setattr(choice, "foresee_run", foresee)
    made = where_needed(*given, tmp_path / "run")
    assert len(made.alternatives) == 1
    assert made.chosen.worst.attack == "mc"


def test_what_is_not_trusted_keeps_no_limit(small_config, points, tmp_path, foreseen):
    foreseen({0.5: (9, 0, 1), 1.0: (7, 0, 0)}, trusted=False)
    made = margins(small_config, points, tmp_path / "run", tried=(1.0,))
    assert made.chosen.settings == {"margin": 1.0}
    assert made.reason.startswith("None is foreseen")


def test_each_is_trained_as_if_alone_and_an_interrupted_choice_goes_on(
    small_config, points, tmp_path, foreseen
):
    foreseen({0.5: (9, 0, 8), 1.0: (7, 0, 1)})
    alone = by_itself(small_config, points, tmp_path / "alone", margin=1.0)
    made = margins(small_config, points, tmp_path / "run", tried=(1.0,))
    assert made.run.policy.fingerprint == alone.policy.fingerprint
    with pytest.raises(UsageError, match="holds a run already"):
        margins(small_config, points, tmp_path / "run", tried=(1.0,))
    (tmp_path / "run" / "policy.safetensors").unlink()
    again = margins(small_config, points, tmp_path / "run", tried=(1.0,), resume=True)
    assert again.lines() == made.lines()
    assert load_policy(tmp_path / "run").fingerprint == alone.policy.fingerprint


@pytest.fixture
def given(small_config, points):
    """Settings and data."""
    return small_config, points


def where_needed(config, points, out, *, tried=(1.0, 2.0), **rest):
    config = dataclasses.replace(config, margin=0.5)
    others = [{"margin": margin} for margin in tried]
    return choose_where_needed(config, points, others, out=out, steps=4, progress=False, **rest)


def test_others_are_trained_only_where_the_limit_is_foreseen_to_break(
    small_config, points, tmp_path, foreseen
):
    told = []
    foreseen({0.5: (9, 0, 2), 1.0: (7, 0, 1), 2.0: (5, 0, 0)})
    alone = by_itself(small_config, points, tmp_path / "alone", margin=0.5)
    made = where_needed(
        small_config, points, tmp_path / "a", tell=lambda one, *, needed: told.append(needed)
    )
    assert told == [False]
    assert made.run.policy.fingerprint == alone.policy.fingerprint
    assert len(made.alternatives) == 1
    assert not (tmp_path / "a" / "tried").exists()
    with pytest.raises(UsageError, match="holds a run already"):
        where_needed(small_config, points, tmp_path / "a")

    for case, trusted in (({0.5: (9, 0, 8)}, True), ({0.5: (9, 0, 0)}, False)):
        foreseen({1.0: (8, 0, 1), 2.0: (5, 0, 0)} | case, trusted=trusted)
        out = tmp_path / f"b{trusted}"
        made = where_needed(
            small_config, points, out, tell=lambda one, *, needed: told.append(needed)
        )
        assert told.pop() is True
        # The rest is not trained once one holds.
        tried = (1.0,) if trusted else (1.0, 2.0)
        direct = margins(small_config, points, tmp_path / f"c{trusted}", tried=tried)
        assert made.lines()[:-1] == direct.lines()[:-1]
        assert made.run.policy.fingerprint == direct.run.policy.fingerprint
        assert {path.name for path in out.iterdir()} == FILES | {"choice.json", "tried"}
        assert any(out.glob("tried/0-*/events.out.tfevents.*"))


@pytest.mark.parametrize("moment", ["training", "foreseeing"])
def test_an_interrupted_search_goes_on(given, tmp_path, foreseen, monkeypatch, moment):
    foreseen({0.5: (9, 0, 8), 1.0: (8, 0, 1), 2.0: (5, 0, 0)})
    whole = where_needed(*given, tmp_path / "whole")
    name = {"training": "train", "foreseeing": "foresee_run"}[moment]
    calls, original = [], getattr(choice, name)

    def stop_second(*arguments, **settings):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(choice, name, stop_second)
        with pytest.raises(KeyboardInterrupt):
            where_needed(*given, tmp_path / "run")
    with pytest.raises(UsageError, match="holds a run already"):
        where_needed(*given, tmp_path / "run")
    made = where_needed(*given, tmp_path / "run", resume=True)
    assert made.lines() == whole.lines()
    assert load_policy(tmp_path / "run").fingerprint == whole.run.policy.fingerprint
    again = where_needed(*given, tmp_path / "run", resume=True)
    assert again.lines() == whole.lines()


def test_none_keeps_it_attacked_but_some_do_unattacked(small_config, points, tmp_path, foreseen):
    foreseen({0.5: (9, 5, 5), 1.0: (7, 0, 8), 2.0: (5, 1, 9)})
    made = margins(small_config, points, tmp_path / "run")
    assert made.chosen.settings == {"margin": 1.0}
    assert "of those that may keep it unattacked" in made.reason


@pytest.mark.parametrize(
    "case",
    [
        # What would give up too much of the return is not chosen, how safe it may be.
        ({0.5: (9, 0, 8), 1.0: (4, 0, 1)}, 0.5, "of those that return 80% of what"),
        # All models foresee the break, so more may be given up for what holds, and only for that.
        ({0.5: (9, 0, 8), 1.0: (7, 0, 1)}, 1.0, "Of the 1"),
        ({0.5: (9, 0, 8), 1.0: (7, 0, 3)}, 0.5, "of those that return 80% of what"),
        ({0.5: (9, 0, 8), 1.0: (7.3, 0, 1)}, 1.0, "Of the 1"),
        # Unless without it the limit breaks unattacked.
        ({0.5: (9, 5, 8), 1.0: (1, 0, 3)}, 1.0, "of those that may keep it unattacked"),
        # Noise is met by everybody.
        ({0.5: (9, 0, 8, 9), 1.0: (9, 0, 1, 4)}, 0.5, "of those that return 80%"),
        # Returns may be negative.
        ({0.5: (-10, 0, 8), 1.0: (-11, 0, 1)}, 1.0, "Of the 1"),
        ({0.5: (-10, 0, 8), 1.0: (-16, 0, 1)}, 0.5, "of those that return 80%"),
        # Where all break it unattacked, what lost most of the return was harmed, not careful.
        ({0.5: (1, 4, 4), 1.0: (9, 6, 9)}, 1.0, "of those that return 50% of what another does"),
        ({0.5: (5, 4, 4), 1.0: (9, 6, 9)}, 0.5, "it exceeds it least"),
    ],
)
def test_safety_that_nobody_asked_for_leaves_most_of_the_return(given, tmp_path, foreseen, case):
    told, best, why = case
    foreseen(told)
    made = where_needed(*given, tmp_path / "run", tried=(1.0,))
    assert made.run.policy.info.training["config"]["margin"] == best
    assert why in made.reason


def test_what_only_some_models_foresee_is_worth_less(given, tmp_path, monkeypatch):
    def foresee(run, policy, dataset, **rest):
        (run / "foresight.json").write_text("{}")
        careful = policy.info.training["config"]["margin"] > 0.5
        reward, cost, least = (7.0, 0.0, 0.0) if careful else (9.0, 8.0, 1.0)
        natural = Estimate("natural", reward, (reward, reward), 0.0, (0.0, 0.0), 1.0)
        attacked = dataclasses.replace(natural, attack="mc", cost=cost, cost_interval=(least, 20.0))
        return Foresight((natural, attacked), cost_limit=2.0)

    monkeypatch.setattr(choice, "foresee_run", foresee)
    made = where_needed(*given, tmp_path / "run", tried=(1.0,))
    assert made.chosen.settings == {}
    assert "of those that return 80% of what" in made.reason


def test_noise_is_withstood_first_where_no_attack_is(small_config, points, tmp_path, monkeypatch):
    def foresee(run, policy, dataset, **rest):
        (run / "foresight.json").write_text("{}")
        margin = policy.info.training["config"]["margin"]
        costs = {0.5: (0, 5, 6), 1.0: (0, 1, 9), 2.0: (0, 1, 30)}[margin]
        estimates = (
            Estimate(name, 9 - margin, (0.0, 9.0), cost, (cost, cost), 1.0)
            for name, cost in zip(("natural", "uniform", "mc"), costs, strict=True)
        )
        return Foresight(tuple(estimates), cost_limit=2.0)

    monkeypatch.setattr(choice, "foresee_run", foresee)
    made = margins(small_config, points, tmp_path / "run")
    assert made.chosen.settings == {"margin": 1.0}
    assert "of those that keep it unattacked and under noise, it exceeds" in made.reason


def test_a_break_unattacked_that_only_some_models_foresee_is_none_yet(given, tmp_path, monkeypatch):
    def foresee(run, policy, dataset, **rest):
        (run / "foresight.json").write_text("{}")
        careful = policy.info.training["config"]["margin"] > 0.5
        reward, cost = (3.0, 1.0) if careful else (9.0, 6.0)
        natural = Estimate("natural", reward, (reward, reward), cost, (0.0, 12.0), 1.0)
        return Foresight((natural, dataclasses.replace(natural, attack="mc")), cost_limit=2.0)

    monkeypatch.setattr(choice, "foresee_run", foresee)
    made = where_needed(*given, tmp_path / "run", tried=(1.0,))
    assert len(made.alternatives) == 2
    assert made.chosen.settings == {}


@pytest.mark.parametrize("trusted", [True, False])
def test_where_none_keeps_it_unattacked_no_model_excuses_what_lost_the_return(
    given, tmp_path, monkeypatch, trusted
):
    def foresee(run, policy, dataset, **rest):
        (run / "foresight.json").write_text("{}")
        careful = policy.info.training["config"]["margin"] > 0.5
        # One model lets what hardly moves keep the limit of 2, and none what flies.
        reward, cost, least = (9.0, 6.0, 3.0) if careful else (1.0, 2.1, 0.5)
        disagreement = 1.0 if trusted or not careful else 9.0
        natural = Estimate("natural", reward, (reward, reward), cost, (least, 12.0), disagreement)
        return Foresight((natural, dataclasses.replace(natural, attack="mc")), cost_limit=2.0)

    monkeypatch.setattr(choice, "foresee_run", foresee)
    made = where_needed(*given, tmp_path / "run", tried=(1.0,))
    assert made.chosen.settings == ({"margin": 1.0} if trusted else {})


@pytest.mark.parametrize(
    "case",
    [
        # The limit is 2: no model foresees more than a tenth of it, so less care is tried,
        ({0.5: (9, 0, 0.2), 0.25: (10, 0, 1)}, 2, 0.25, "this is foreseen to return more"),
        # but not taken where it may cost more than half of the limit, or is of no use.
        ({0.5: (9, 0, 0.2), 0.25: (10, 0, 1.1)}, 2, 0.5, "Less care is foreseen"),
        ({0.5: (9, 0, 0.2), 0.25: (9, 0, 0)}, 2, 0.5, "Less care is foreseen"),
        ({0.5: (9, 0, 0.2), 0.25: (9.4, 0, 0)}, 2, 0.5, "Less care is foreseen"),
        ({0.5: (-9, 0, 0.2), 0.25: (-8.4, 0, 0)}, 2, 0.25, "this is foreseen to return more"),
        # Who costs something is careful enough.
        ({0.5: (9, 0, 0.3), 0.25: (10, 0, 0)}, 1, 0.5, "Nothing else was tried"),
    ],
)
def test_less_care_is_tried_where_hardly_any_cost_is_foreseen(given, tmp_path, foreseen, case):
    told, trained, best, why = case
    foreseen(told)
    said = []
    made = where_needed(
        *given,
        tmp_path / "run",
        bolder=[{"margin": 0.25}],
        tell=lambda one, *, needed: said.append(needed),
    )
    assert made.run.policy.info.training["config"]["margin"] == best
    assert why in made.reason
    assert len(made.alternatives) == trained
    assert said == [trained == 2]
    again = where_needed(*given, tmp_path / "run", bolder=[{"margin": 0.25}], resume=True)
    assert again.lines() == made.lines()


@pytest.mark.parametrize("doubt", ["one model", "no trust"])
def test_less_care_needs_all_models(given, tmp_path, monkeypatch, doubt):
    def foresee(run, policy, dataset, **rest):
        (run / "foresight.json").write_text("{}")
        bold = policy.info.training["config"]["margin"] < 0.5
        natural = Estimate("natural", 10.0 if bold else 9.0, (9.0, 9.0), 0.0, (0.0, 0.0), 1.0)
        most, trust = {"one model": (2.1, 1.0), "no trust": (0.0, 9.0)}[doubt]
        attacked = dataclasses.replace(natural, attack="mc")
        if bold:
            attacked = dataclasses.replace(attacked, cost_interval=(0.0, most), disagreement=trust)
        return Foresight((natural, attacked), cost_limit=2.0)

    monkeypatch.setattr(choice, "foresee_run", foresee)
    made = where_needed(*given, tmp_path / "run", bolder=[{"margin": 0.25}])
    assert len(made.alternatives) == 2
    assert made.chosen.settings == {}


def test_what_somebody_has_set_is_not_tried_otherwise(small_config):
    known = alternatives_of(SAFER, given=("cost_limit", "epsilon"))
    assert known == list(SAFER.alternatives)
    assert known
    for one in known:  # possible values
        dataclasses.replace(small_config, **one)
    assert alternatives_of(SAFER, given=("margin",)) == []
    bolder = alternatives_of(SAFER, given=("cost_limit", "epsilon"), kind="bolder")
    assert bolder == list(SAFER.bolder)
    for one in bolder:
        dataclasses.replace(small_config, **one)
    assert alternatives_of(SAFER, given=("adversarial_weight",), kind="bolder") == []
    assert alternatives_of(SAFER, given=("adversarial_weight",)) == []  # --no-robust
    assert alternatives_of(BC, given=()) == []


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
    given += ["--out", tmp_path / "run"]

    def cli(*arguments):
        return CliRunner().invoke(app, [str(one) for one in arguments])

    tried = ["--try", "margin=1 recovery_weight=2"]
    done = cli(*given, *tried, "--try", "margin=0")
    assert done.exit_code == 0, done.output
    for line in ("  as given", "  margin=1.0 recovery_weight=2.0", "  margin=0.0", "Chosen: "):
        assert any(one.startswith(line) for one in done.output.splitlines()), line
    assert "Next: safer-offline evaluate" in done.output
    wrong = cli(*given, *tried, "--resume", "--try", "margn=1")
    assert wrong.exit_code != 0
    assert "the nearest is 'margin'" in str(wrong.exception)


def test_training_tries_others_by_itself(points, tmp_path, small_config, foreseen, monkeypatch):
    foreseen({0.5: (9, 0, 8), 0.75: (8, 0, 1), 2.0: (9, 0, 8)})
    monkeypatch.setattr("safer_offline.cli.train.FEW_STEPS", 1)
    save_dataset(tmp_path / "points.h5", points)
    tiny = "hidden_sizes=16", "batch_size=16", "recovery_states=50", "candidates=3"
    given = ["train", tmp_path / "points.h5", "--steps", 4, "--cost-limit", 2]
    given += [part for setting in tiny for part in ("--set", setting)]

    def cli(*arguments):
        return CliRunner().invoke(app, [str(one) for one in arguments])

    done = cli(*given, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    (reason,) = (line for line in lines if line.startswith("Training again"))
    assert lines.index("Under 'mc' it is expected to break the limit of 2.") < lines.index(reason)
    (chosen,) = (line for line in lines if line.startswith("Chosen: "))
    assert "margin=0.75" in chosen
    assert lines.index("Foreseen of it:") > lines.index(chosen)
    assert "In all of them the limit of 2 is kept." in lines
    assert load_policy(tmp_path / "run").info.training["config"]["limit_each_episode"] is True
    left = cli(*given, "--no-choose", "--out", tmp_path / "left")
    assert left.exit_code == 0, left.output
    assert "Training again" not in left.output
    assert load_policy(tmp_path / "left").info.training["config"]["margin"] == 0.5
