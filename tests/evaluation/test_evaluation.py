"""Evaluation in the fastest task, of policies that are a matrix."""

import numpy as np
import pandas as pd
import pytest
import torch

from safer_offline.attacks import AMAD, Attack, MaxCost, Natural, Uniform, resolve_attacks
from safer_offline.context import EnvironmentContext
from safer_offline.errors import DataError, UsageError
from safer_offline.evaluation import simulation
from safer_offline.evaluation.harness import evaluate
from safer_offline.evaluation.trials import Trial, episode_seeds, waves

ENV = "SafetyBallCircle-v0"
ATTACKS = ("natural", "uniform", "amad", "mc")


class MatrixPolicy:
    """Acts tanh(W s); its cost critic likes to leave the middle."""

    def __init__(self, observation_size=8, action_size=2):
        generator = torch.Generator().manual_seed(0)
        self.observation_size, self.action_size = observation_size, action_size
        self.weight = torch.randn(action_size, observation_size, generator=generator)
        self.observation_std = torch.full((observation_size,), 0.5)
        self.context = EnvironmentContext()
        self.cost_limit = 10.0
        self.reward_range = (-500.0, 500.0)

    def action_distribution(self, observations):
        mean = torch.tanh(observations @ self.weight.T)
        return mean, torch.full_like(mean, 0.1)

    def q_reward(self, observations, actions):
        return actions[:, 0] - actions[:, 1]

    def q_cost(self, observations, actions):
        return (observations[:, :2] * actions).sum(-1)

    def predict(self, observations):
        return self.action_distribution(torch.from_numpy(observations))[0].numpy()


class Spy(Natural):
    """No attack, but it notes all first observations that it saw."""

    name = "spy"

    def __init__(self):
        self.first = None

    def perturb(self, target, observations, **rest):
        if self.first is None:
            self.first = observations.clone()
        return observations


@pytest.fixture(autouse=True, scope="module")
def _cheap():
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "FIT_EPISODES", 3)
        yield


def weak_attacks():
    gradients = {"steps": 3, "restarts": 2}
    return [Natural(), Uniform(), AMAD(**gradients), MaxCost(**gradients)]


def run(policy=None, **settings):
    settings = {"env": ENV, "attacks": weak_attacks(), "episodes": 3, "workers": 0} | settings
    return evaluate(policy or MatrixPolicy(), **settings)


@pytest.fixture(scope="module")
def report():
    return run()


def assert_same_episodes(one, other, names=ATTACKS, exactly=True):
    for name in names:
        left, right = (r.of_attack(name).reset_index(drop=True) for r in (one, other))
        pd.testing.assert_frame_equal(left, right, check_exact=exactly, rtol=1e-4)


def test_report_holds_every_episode_of_every_attack(report):
    assert list(report.attacks) == list(ATTACKS)
    assert report.env_id == ENV
    assert report.cost_limit == 10
    table = report.episodes
    assert table["attack"].tolist() == [name for name in ATTACKS for _ in range(3)]
    assert table["episode"].tolist() == [0, 1, 2] * len(ATTACKS)
    assert (table["length"] == 200).all()
    assert table["cost"].between(0, 200).all()
    # Every attack meets the same episodes, and they differ from one another.
    assert table.groupby("episode")["seed"].nunique().tolist() == [1, 1, 1]
    assert table["seed"].nunique() == 3
    used = table.groupby("attack")["budget_used"].mean()
    assert used["natural"] == 0
    assert used["uniform"] == pytest.approx(0.5, abs=0.02)
    assert used["amad"] < 0.5
    assert 0.9 < used["mc"] <= 1


def test_summary_agrees_with_the_episodes(report):
    summary = report.summary().set_index("attack")
    for name in ATTACKS:
        episodes = report.of_attack(name)
        assert summary.loc[name, "reward_mean"] == pytest.approx(episodes["reward"].mean())
        assert summary.loc[name, "cost_std"] == pytest.approx(episodes["cost"].std(ddof=0))
        assert summary.loc[name, "violation_rate"] == (episodes["cost"] > 10).mean()
        assert summary.loc[name, "normalised_cost"] == pytest.approx(episodes["cost"].mean() / 10)
        assert summary.loc[name, "normalised_reward"] == pytest.approx(
            (episodes["reward"].mean() + 500) / 1000
        )
    assert summary["episodes"].tolist() == [3] * len(ATTACKS)
    assert summary["epsilon"].tolist() == [0.0, 0.05, 0.05, 0.05]
    assert summary.loc[report.worst_attack(), "cost_mean"] == summary["cost_mean"].max()
    assert report.worst_case()["cost_mean"] >= summary["cost_mean"].max()


def test_same_seed_same_numbers_and_another_seed_others(report):
    assert_same_episodes(report, run())
    assert set(run(attacks="natural", seed=1).episodes["seed"]).isdisjoint(report.episodes["seed"])


def test_workers_change_nothing(report):
    assert_same_episodes(report, run(workers=2))


def test_other_attacks_and_their_order_change_nothing(report):
    assert_same_episodes(report, run(attacks=weak_attacks()[:1:-1]), names=("amad", "mc"))


def test_wave_size_changes_at_most_rounding(report):
    # Waves of 6 rows hold the same batches; waves of 2 rows split the episodes of an attack.
    assert_same_episodes(report, run(max_rows=6))
    assert_same_episodes(report, run(max_rows=2), exactly=False)


def test_fewer_episodes_are_the_first_of_more(report):
    fewer = run(attacks="uniform", episodes=2).episodes
    expected = report.of_attack("uniform").iloc[:2].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer, expected, rtol=1e-4)


def test_without_budget_every_attack_is_natural(report):
    harmless = run(epsilon=0.0)
    for name in ATTACKS:
        for column in ("reward", "cost", "length"):
            assert (
                harmless.of_attack(name)[column].tolist()
                == report.of_attack("natural")[column].tolist()
            )


def test_budget_in_deviations_and_by_coordinate(report):
    assert_same_episodes(
        report, run(attacks="uniform", epsilon=0.1, epsilon_units="std"), ["uniform"]
    )
    by_coordinate = run(attacks="uniform", epsilon=[0.05] * 8)
    assert_same_episodes(report, by_coordinate, ["uniform"])
    assert by_coordinate.summary()["epsilon"].iloc[0] == " ".join(["0.05"] * 8)


def test_all_attacks_start_from_the_same_states():
    spies = [type("Spy", (Spy,), {"name": f"spy{i}"})() for i in range(2)]
    run(attacks=spies)
    assert torch.equal(spies[0].first, spies[1].first)
    assert len(torch.unique(spies[0].first, dim=0)) == 3


def test_given_threshold_is_kept_and_missing_one_is_found(report):
    assert isinstance(report.attacks["amad"]["threshold"], float)
    attack = AMAD(threshold=1e9, steps=1)
    quiet = run(attacks=[attack])
    assert quiet.attacks["amad"]["threshold"] == 1e9
    assert (quiet.episodes["budget_used"] == 0).all()


def test_rows_that_end_early_are_left_alone():
    """The ant falls over at different times; what a row counted until then must stay."""

    class CoarsePolicy(MatrixPolicy):
        # The ant is chaotic: without this the last bit, which batch sizes change, would show.
        def predict(self, observations):
            return super().predict(observations).round(3)

    policy = CoarsePolicy(34, 8)
    report = run(policy, env="SafetyAntCircle-v0", attacks="natural,uniform", epsilon=0.5)
    alone = run(policy, env="SafetyAntCircle-v0", attacks="uniform", epsilon=0.5, max_rows=1)
    assert report.episodes["length"].nunique() > 1
    assert report.episodes["terminated"].any()
    assert_same_episodes(report, alone, ["uniform"])


@pytest.mark.parametrize(
    ("sizes", "message"), [((7, 2), "size 7, but .* size 8"), ((8, 3), "size 3, but .* size 2")]
)
def test_policies_of_other_tasks_are_refused(sizes, message):
    with pytest.raises(DataError, match=message):
        run(MatrixPolicy(*sizes))


def test_another_task_of_the_same_sizes_is_a_warning():
    policy = MatrixPolicy()
    policy.context = EnvironmentContext(env_id="SafetyCarCircle-v0")
    with pytest.warns(UserWarning, match="trained for SafetyCarCircle-v0 and is evaluated in"):
        run(policy, attacks="natural", episodes=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": "natral"}, "'natural'"),
        ({"env": "ball-circel"}, "SafetyBallCircle-v0"),
        ({"episodes": 0}, "episodes"),
        ({"seed": -1}, "seed"),
        ({"epsilon": -1.0}, "not negative"),
        ({"epsilon": [0.1, 0.2]}, "8 coordinates"),
        ({"cost_limit": -1.0}, "cost_limit"),
        ({"cost_limit": float("nan")}, "cost_limit"),
    ],
)
def test_impossible_requests_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        run(**settings)


def test_damaged_policies_are_refused():
    policy = MatrixPolicy()
    policy.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        run(policy, attacks="natural")


def test_policy_without_limit_and_range_still_gets_its_numbers():
    policy = MatrixPolicy()
    policy.cost_limit = policy.reward_range = None
    report = run(policy, attacks="natural", episodes=1)
    row = report.summary().iloc[0]
    assert np.isnan(
        row[["violation_rate", "normalised_cost", "normalised_reward"]].astype(float)
    ).all()
    assert np.isfinite(row["cost_mean"])
    assert run(policy, attacks="natural", episodes=1, cost_limit=3).cost_limit == 3


def test_waves_cover_everything_once_and_keep_within_the_limit():
    attacks = resolve_attacks("all")
    for episodes, max_rows in ((50, 64), (100, 64), (10, 64), (7, 3), (1, 1), (64, 64)):
        seeds = episode_seeds(0, episodes, domain=1)
        trials = [Trial(attack, torch.zeros(8)) for attack in attacks]
        batches = list(waves(trials, seeds, max_rows))
        assert all(sum(len(job.seeds) for job in wave) <= max_rows for wave in batches)
        done = sorted(
            (job.attack.name, episode, seed)
            for wave in batches
            for job in wave
            for episode, seed in zip(job.episodes, job.seeds, strict=True)
        )
        assert done == sorted(
            (attack.name, episode, seed) for attack in attacks for episode, seed in enumerate(seeds)
        )


def test_attacks_of_ones_own_can_be_evaluated():
    class Offset(Attack):
        name = "offset"

        def perturb(self, target, observations, *, epsilon, noise, previous=None):
            return observations + epsilon

    report = run(attacks=["natural", Offset(), MaxCost(steps=2, restarts=1)], episodes=1)
    assert list(report.attacks) == ["natural", "offset", "mc"]
    assert report.attacks["mc"] == {"steps": 2, "restarts": 1}
    assert report.of_attack("offset")["budget_used"].iloc[0] == pytest.approx(1, abs=1e-5)
