"""Attacks that are searched for in whole episodes, against a policy with one weak spot."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from safer_offline.attacks import Attack, Bias, Learned, Natural, Uniform
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import UsageError
from safer_offline.evaluation import outputs
from safer_offline.evaluation.adversaries import bias as searching
from safer_offline.evaluation.adversaries import learned as learning
from safer_offline.evaluation.adversaries.rehearsal import rehearsal_seeds
from safer_offline.evaluation.adversaries.rehearse import rehearse
from safer_offline.evaluation.budgets import BudgetEvaluation
from safer_offline.evaluation.foreign import foreign_policy
from safer_offline.evaluation.harness import prepare
from safer_offline.evaluation.remarks import unfinished_learning, weaker_than_others
from safer_offline.evaluation.trials import EVALUATE, FIT, episode_seeds
from safer_offline.evaluation.unfinished import forget_unfinished
from safer_offline.interruption import Interrupted

SOURCE = EnvironmentSource(name="toy_environments:Point")
"""30 steps; every one that ends right of 0.3 costs 1."""


def near_the_border(observation):
    """Keeps to x = 0.26: noise is not enough, but whoever makes x look small is heard."""
    return [8 * (0.26 - float(observation[0])), -float(observation[1])]


class Network(nn.Module):
    """The same for a batch, and differentiable."""

    def forward(self, observations):
        return torch.stack([8 * (0.26 - observations[:, 0]), -observations[:, 1]], dim=1)


SMALL_SEARCH = {"population": 8, "generations": 2, "episodes": 2}


def run(policy, attacks, episodes=10, **settings):
    evaluation = prepare(policy, env=SOURCE, attacks=attacks, episodes=episodes, cost_limit=10)
    return evaluation.run(workers=0, progress=False, **settings)


def costs(report):
    return report.episodes.groupby("attack")["cost"].mean()


@pytest.fixture(scope="module")
def report():
    attacks = [Learned(steps=1_000), Natural(), Bias(**SMALL_SEARCH), Uniform()]
    return run(Network(), attacks)


def test_searches_find_the_weak_spot_and_noise_does_not(report):
    found = costs(report)
    assert found["uniform"] < found["natural"] + 2
    assert found["bias"] > found["natural"] + 10
    assert found["learned"] > found["natural"] + 10
    assert report.attacks["bias"]["offset"][0] < -0.7, "x shall look small"
    assert list(report.attacks) == ["learned", "natural", "bias", "uniform"], "as asked for"
    assert (report.episodes["budget_used"] <= 1 + 1e-6).all()


def test_what_was_learned_goes_to_other_policies_and_into_the_report(report):
    settings = report.attacks["learned"]
    curve = settings["curve"]
    assert [point["steps"] for point in curve] == sorted(point["steps"] for point in curve)
    assert curve[-1]["steps"] == 1_000
    assert max(point["cost"] for point in curve) > curve[0]["cost"]
    attack = Learned().having_learned(settings["network"])
    assert not attack.needs_rehearsal
    transferred = costs(run(near_the_border, [attack]))
    assert transferred["learned"] == pytest.approx(costs(report)["learned"], abs=0.5)


def test_policies_that_are_functions_are_searched_without_gradients():
    found = costs(run(near_the_border, [Natural(), Bias(**SMALL_SEARCH), Learned(steps=300)], 4))
    assert found["bias"] > found["natural"] + 10


def test_same_seed_same_attack_and_another_seed_another():
    def offset_and_network(seed, workers=0):
        attacks = [Bias(population=4, generations=1, episodes=1, seed=seed)]
        attacks += [Learned(steps=160, seed=seed)]
        evaluation = prepare(near_the_border, env=SOURCE, attacks=attacks, episodes=1)
        found = evaluation.run(workers=workers, progress=False).attacks
        return found["bias"]["offset"], str(found["learned"]["network"])

    first = offset_and_network(0)
    assert offset_and_network(0) == first
    other = offset_and_network(1)
    assert other[1] != first[1]


def test_training_leaves_the_global_generators_alone():
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draws()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    run(near_the_border, [Learned(steps=32)], 1)
    assert draws() == expected


def test_rehearsals_never_see_the_episodes_that_judge():
    judged = {seed for d in (EVALUATE, FIT) for seed in episode_seeds(0, 1000, domain=d)}
    parts = [*range(10), learning._OBSERVE, learning._JUDGE, learning._LEARN]
    rehearsed = [set(rehearsal_seeds(0, 1000, part=part)) for part in parts]
    assert judged.isdisjoint(set.union(*rehearsed))
    assert len(set.union(*rehearsed)) == 1000 * len(parts)


def test_other_results_are_told_before_the_search_and_are_the_same_afterwards():
    told = []
    attacks = [Bias(population=4, generations=0, episodes=1), Natural()]
    report = run(near_the_border, attacks, 3, meanwhile=told.append)
    (before,) = told
    assert list(before.attacks) == ["natural"]
    assert before.searched == ()
    assert report.searched == ("bias",)
    pd.testing.assert_frame_equal(
        before.of_attack("natural").reset_index(drop=True),
        report.of_attack("natural").reset_index(drop=True),
    )


class Stray(Attack):
    """Goes too far, by so much."""

    name = "stray"

    def __init__(self, by):
        self.by = by

    def perturb(self, target, observations, *, epsilon, **rest):
        return observations - epsilon + torch.tensor([0.0, self.by])


@pytest.mark.parametrize("by", [-1e-4, 0.2, float("nan")])
def test_no_attack_may_leave_its_budget(by):
    with pytest.raises(UsageError, match="'stray' leaves its budget: it moved coordinate 1 by"):
        run(near_the_border, [Stray(by)], 1)
    run(near_the_border, [Stray(0.0)], 1)  # rounding alone is no fault


class Unknown(Attack):
    name = "unknown"
    needs_rehearsal = True

    def perturb(self, target, observations, **rest):
        return observations


def test_an_attack_that_nobody_can_search_is_refused():
    with pytest.raises(UsageError, match="nobody says how"):
        run(near_the_border, [Unknown()], 1)


def test_one_of_your_own_is_searched_as_you_say():
    class Mine(Unknown):
        name = "mine"

    @rehearse.register
    def found(attack: Mine, rehearsal):
        assert rehearsal.horizon == 30
        return Bias(offset=(-1.0, 0.0))

    report = run(near_the_border, [Mine()], 2)
    assert report.episodes["attack"].tolist() == ["mine", "mine"]
    assert report.attacks["mine"]["attack"] == "bias"
    assert (costs(report) > 10).all()


# Kept and found again


def named(policy):
    return foreign_policy(policy, SOURCE, fingerprint="a name")


ATTACKS = "natural,bias,learned"
SHORT = ["bias.population=4,generations=1,episodes=1", "learned.steps=64,restarts=2"]


def never(*_):
    pytest.fail("searched once more")


def searched_in(folder, policy=near_the_border, attack_set=SHORT, epsilon=0.05):
    evaluation = prepare(
        named(policy), env=SOURCE, attacks=ATTACKS, attack_set=attack_set, epsilon=epsilon,
        episodes=2,
    )  # fmt: skip
    return evaluation.run(workers=0, progress=False, adversaries_in=folder)


def test_what_was_found_is_found_once(tmp_path, monkeypatch):
    report = searched_in(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert [name.partition("-")[0] for name in kept] == ["bias", "learned", "learned"]

    with monkeypatch.context() as patch:
        patch.setattr(searching, "_search", never)
        patch.setattr(learning, "_train", never)
        again = searched_in(tmp_path)
    pd.testing.assert_frame_equal(again.episodes, report.episodes)
    assert str(again.attacks["learned"]["network"]) == str(report.attacks["learned"]["network"])

    # With another budget something else harms most; a damaged file is as good as none.
    searched_in(tmp_path, epsilon=0.1)
    assert len(list(tmp_path.iterdir())) == 6
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    pd.testing.assert_frame_equal(searched_in(tmp_path).episodes, report.episodes)


def test_more_restarts_go_on_from_those_that_were_kept(tmp_path):
    one = searched_in(tmp_path, attack_set=[SHORT[0], "learned.steps=64"])
    two = searched_in(tmp_path)
    assert len(list(tmp_path.glob("learned-*"))) == 2
    best = [max(point["cost"] for point in r.attacks["learned"]["curve"]) for r in (one, two)]
    assert best[1] >= best[0]


def test_an_interrupted_search_goes_on_after_what_was_evaluated(tmp_path, monkeypatch):
    def evaluated():
        attacks = [Uniform(), Learned(steps=64)]
        evaluation = prepare(named(near_the_border), env=SOURCE, attacks=attacks, episodes=2)
        return evaluation.run(workers=0, progress=False, keep_in=tmp_path, adversaries_in=tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learning, "_train", interrupted)
        with pytest.raises(Interrupted, match="1 of 2 batches of episodes are kept"):
            evaluated()
    with monkeypatch.context() as patch:
        patch.setattr(Uniform, "perturb", lambda *_, **__: pytest.fail("run once more"))
        resumed = evaluated()
    forget_unfinished(tmp_path)
    pd.testing.assert_frame_equal(resumed.episodes, evaluated().episodes)


# Several budgets


BUDGETS = (0, 0.5, 1)


def prepared(epsilon=0.1):
    return prepare(
        named(near_the_border), env=SOURCE, attacks="bias,uniform,learned", attack_set=SHORT,
        epsilon=epsilon, episodes=2, cost_limit=10,
    )  # fmt: skip


def test_each_budget_has_a_search_of_its_own_after_all_other_attacks(tmp_path, monkeypatch):
    told, settings = [], {"workers": 0, "progress": False, "adversaries_in": tmp_path}
    report = BudgetEvaluation.of(prepared(), BUDGETS).run(meanwhile=told.append, **settings)
    (before,) = told
    assert [list(before.reports[m].attacks) for m in (0.5, 1)] == [["natural", "uniform"]] * 2
    assert len(list(tmp_path.iterdir())) == 2 * 3, "for a budget of zero there is no search"
    assert [one.searched for one in report.reports.values()] == [(), *[("bias", "learned")] * 2]
    assert report.gate_failures() == []
    assert report.reports[0].attacks["bias"] == report.plan.attacks["bias"]

    monkeypatch.setattr(searching, "_search", never)
    monkeypatch.setattr(learning, "_train", never)
    for multiple, epsilon in zip(BUDGETS, (0.0, 0.05, 0.1), strict=True):
        alone, at = prepared(epsilon).run(**settings), report.reports[multiple]
        asked = at.episodes[at.episodes["attack"] != "natural"].reset_index(drop=True)
        pd.testing.assert_frame_equal(asked, alone.episodes, check_exact=True)
        assert str(at.attacks["learned"]) == str(alone.attacks["learned"])
        assert at.attacks["bias"] == alone.attacks["bias"]
    again = BudgetEvaluation.of(prepared(), BUDGETS).run(**settings)
    pd.testing.assert_frame_equal(again.episodes(), report.episodes())


def test_remarks_say_at_which_budget():
    attacks = [Uniform(), Bias(population=4, generations=0, episodes=1)]
    evaluation = prepare(near_the_border, env=SOURCE, attacks=attacks, episodes=6, cost_limit=10)
    report = BudgetEvaluation.of(evaluation, (1, 2)).run(workers=0, progress=False)
    table = report.reports[2].episodes
    table.loc[table["attack"] == "uniform", "cost"] += 40
    (told,) = report.remarks()
    assert told.startswith("At ε = 0.1, bias costs")
    assert "less than uniform" in told
    assert json.loads(outputs.as_json(report))["remarks"] == [told]


def test_a_search_interrupted_between_budgets_goes_on_there(tmp_path, monkeypatch):
    def evaluated():
        settings = {"attacks": "uniform,bias", "attack_set": SHORT[:1], "episodes": 2}
        evaluation = prepare(named(near_the_border), env=SOURCE, **settings)
        return BudgetEvaluation.of(evaluation, (1, 2)).run(
            workers=0, progress=False, keep_in=tmp_path, adversaries_in=tmp_path
        )

    search, left = searching._search, [1]

    def interrupted(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return search(*arguments)

    monkeypatch.setattr(searching, "_search", interrupted)
    with pytest.raises(Interrupted, match="2 of 3 batches of episodes are kept"):
        evaluated()
    left[0] = 1
    with monkeypatch.context() as patch:
        patch.setattr(Uniform, "perturb", lambda *_, **__: pytest.fail("run once more"))
        resumed = evaluated()
    forget_unfinished(tmp_path)
    pd.testing.assert_frame_equal(resumed.episodes(), evaluated().episodes())


# Rows that begin anew


def test_rows_begin_anew_without_disturbing_the_others():
    def rest_of(workers):
        with VectorEnvironment(SOURCE, num_envs=3, workers=workers) as batch:
            batch.reset([1, 2, 3])
            for _ in range(5):
                before = batch.step(np.ones((3, 2))).observations
            observations = batch.restart(np.array([False, True, False]), [7])
            assert np.array_equal(observations[[0, 2]], before[[0, 2]])
            last = [batch.step(np.ones((3, 2))) for _ in range(30)]
            with VectorEnvironment(SOURCE, num_envs=1, workers=0) as alone:
                assert np.array_equal(observations[1], alone.reset([7])[0])
                for steps in last:
                    expected = alone.step(np.ones((1, 2)))
                    assert np.array_equal(steps.observations[1], expected.observations[0])
                    assert steps.truncated[1] == expected.truncated[0]
            assert batch.done.all()
            return observations.tolist()

    assert rest_of(0) == rest_of(2)


# Remarks


def table(**by_attack):
    return pd.concat(
        pd.DataFrame({"attack": name, "episode": range(len(cost)), "cost": cost})
        for name, cost in by_attack.items()
    )


def test_a_search_that_finds_less_than_others_is_called_too_short():
    few, many = np.arange(20.0), np.arange(20.0) + 3
    (told,) = weaker_than_others(table(mc=many, mad=few, learned=few), ["learned"])
    assert told.startswith("learned costs 9.5, less than mc (12.5): ")
    assert weaker_than_others(table(mc=few, learned=many), ["learned"]) == []
    assert weaker_than_others(table(mc=few, learned=few), ["learned"]) == []
    assert weaker_than_others(table(learned=few), ["learned"]) == []
    # A difference that chance explains is none, and that searches differ is no fault.
    lucky = few + np.where(np.arange(20) == 3, 5.0, 0.0)
    assert weaker_than_others(table(mc=lucky, learned=few), ["learned"]) == []
    assert weaker_than_others(table(bias=many, learned=few), ["bias", "learned"]) == []


@pytest.mark.parametrize(
    ("costs", "told"),
    [
        ([0, 0, 1, 2, 4, 8, 9, 12], "still getting stronger"),
        ([0, 0, 6, 9, 9, 9, 9, 9], ""),
        ([0, 0, 0, 0], "caused no cost"),
        ([], ""),
    ],
)
def test_a_training_that_is_not_at_its_end_is_told(costs, told):
    curve = [{"steps": 10.0 * place, "cost": cost} for place, cost in enumerate(costs)]
    sentence = unfinished_learning("learned", curve)
    assert (told in sentence) if told else (sentence == "")


def test_the_report_tells_its_remarks():
    report = run(Network(), [Uniform(), Learned(steps=16)], 6)
    costly = report.episodes["attack"] == "uniform"
    report.episodes.loc[costly, "cost"] += 20
    (told, *_) = report.remarks()
    assert "less than uniform" in told
    assert told[:60] in str(report)


# The command line


def command(*arguments, cwd):
    code = "from safer_offline.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip


def test_the_command_line_tells_how_long_and_shows_the_others_first(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def drive(observation):\n    return [8 * (0.26 - observation[0]), -observation[1]]\n"
    )
    arguments = (
        "evaluate", "mine:drive", "--env", "toy_environments:Point", "--attacks", "strong",
        "--attack-set", SHORT[0], "--attack-set", "learned.steps=32", "--episodes", "2",
        "--workers", "0", "--cost-limit", "10",
    )  # fmt: skip
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, _, _ = done.stderr.partition("Next: bias and learned")
    assert "This takes about" in before
    assert "search" in before
    assert "learned " not in before.partition("attack  ")[2]
    assert done.stdout.count("natural") == 1, "the table stands there once, whole"
    assert "learned" in done.stdout
    (path,) = tmp_path.glob("evaluations/*/evaluation.json")
    document = json.loads(path.read_text())
    assert document["attacks"]["learned"]["network"].startswith("sha256 ")
    assert document["attacks"]["learned"]["curve"]
    assert len(list((tmp_path / "evaluations" / "adversaries").iterdir())) == 2
