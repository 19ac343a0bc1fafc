"""Critics that the evaluator fits: what they are worth, which attacks they lead, what is kept."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toy_environments import Point

from safer_offline.attacks import AMAD, GeneratorNoise, MaxCost, Natural, WithCritics
from safer_offline.context import EnvironmentContext
from safer_offline.datasets import BoxSpace, Metadata, OfflineDataset
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, UsageError
from safer_offline.evaluation.adversaries.rehearsal import rehearsal_seeds
from safer_offline.evaluation.budgets import BudgetEvaluation
from safer_offline.evaluation.critics import finding
from safer_offline.evaluation.critics.experience import (
    JUDGED,
    critic_seeds,
    rollouts_to_judge_by,
    rollouts_to_learn_from,
    some_of,
)
from safer_offline.evaluation.critics.fitted_q import fit_critics
from safer_offline.evaluation.critics.quality import spearman, what_to_know
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.durations import expected_seconds
from safer_offline.evaluation.foreign import foreign_policy
from safer_offline.evaluation.harness import prepare
from safer_offline.evaluation.trials import EVALUATE, FIT, episode_seeds
from safer_offline.interruption import Interrupted
from safer_offline.progress import progress_bar

SOURCE = EnvironmentSource(name="toy_environments:Point")
"""30 steps; every one that ends right of 0.3 costs 1."""

QUICK = CriticSettings(updates=20, batch_size=16, hidden_sizes=(8,), episodes=4)

SHORT = ["mc.steps=2,restarts=1", "amad.steps=2,restarts=1"]


class Network(nn.Module):
    """Keeps to x = 0.26."""

    def forward(self, observations):
        return torch.stack([8 * (0.26 - observations[:, 0]), -observations[:, 1]], dim=1)


class WithOwn:
    """The same with critics of its own, which lead astray: they like the left."""

    critics = ("reward", "cost")
    observation_size = action_size = 2
    observation_std = torch.ones(2)
    cost_limit = 10.0
    reward_range = None
    fingerprint = "with own"
    context = EnvironmentContext(
        env_id="toy_environments:Point",
        kwargs={},
        cost_key="cost",
        max_episode_steps=30,
        observation_space=BoxSpace.from_gymnasium(Point.observation_space),
        action_space=BoxSpace.from_gymnasium(Point.action_space),
    )

    def action_distribution(self, observations):
        mean = Network()(observations).clamp(-2, 2)
        return mean, torch.full_like(mean, 0.1)

    def predict(self, observations):
        return self.action_distribution(torch.from_numpy(observations))[0].numpy()

    def q_reward(self, observations, actions):
        return actions[:, 1]

    def q_cost(self, observations, actions):
        return -actions[:, 0]


def ready(policy, attacks="natural,amad,mc", episodes=3, settings=QUICK, **more):
    short = [text for text in SHORT if text.partition(".")[0] in attacks]
    given = {"env": SOURCE, "attack_set": short, "cost_limit": 10} | more
    return prepare(
        policy, attacks=attacks, episodes=episodes, critic_settings=settings, **given
    )  # fmt: skip


def run(*arguments, folder=None, **more):
    return ready(*arguments, **more).run(workers=0, progress=False, critics_in=folder)


def fitted(policy, transitions, settings=QUICK):
    with progress_bar("fit", total=0, enabled=False) as bar:
        return fit_critics(policy, transitions, settings, bar=bar, what="test")


def made(how, workers=0, settings=QUICK):
    policy = foreign_policy(Network(), SOURCE)
    with progress_bar("make", total=0, enabled=False) as bar:
        return how(policy, SOURCE, settings, workers=workers, bar=bar)


def points_here(dataset):
    """The point dataset of `conftest`, as if it came from this task."""
    return OfflineDataset.from_arrays(
        dataset.to_arrays(),
        metadata=Metadata(
            env_id="toy_environments:Point",
            action_space=BoxSpace.from_gymnasium(Point.action_space),
        ),
    )


# What they are worth


FOLLOWING = np.array([[3, 1], [0, 2], [1, 3], [2, 0]])
"""Of four states on a ring and two actions."""
ENDS = np.array([[0, 0], [0, 0], [0, 1], [0, 0]], bool)
REWARDS = np.array([[0, 1], [2, 0], [0, 0.5], [1, -1]])
COSTS = np.array([[0, 0], [0, 1], [0, 5], [0, 0]])
CHOSEN = np.array([1, 1, 0, 0])
"""What the evaluated policy does; the data are of one that acts at random."""
DISCOUNT = 0.95
LIMIT = 6


class RingPolicy:
    def predict(self, observations):
        return np.float32(2 * CHOSEN[observations.argmax(axis=1)] - 1)[:, None]


def exact(signal):
    """The value of each state and action, (4, 2), by solving for it."""
    matrix = np.eye(8)
    for state, action in np.ndindex(4, 2):
        after = FOLLOWING[state, action]
        if not ENDS[state, action]:
            matrix[2 * state + action, 2 * after + CHOSEN[after]] -= DISCOUNT
    return np.linalg.solve(matrix, signal.ravel()).reshape(4, 2)


def ring_data(episodes=500):
    rng, rows = np.random.default_rng(0), []
    for _ in range(episodes):
        state = rng.integers(4)
        for step in range(LIMIT):
            action = rng.integers(2)
            end = ENDS[state, action]
            rows.append(
                (state, action, FOLLOWING[state, action], end, step == LIMIT - 1 and not end)
            )
            state = FOLLOWING[state, action]
            if end:
                break
    before, action, after, terminal, timeout = map(np.array, zip(*rows, strict=True))
    one_hot = np.eye(4, dtype=np.float32)
    return OfflineDataset(
        observations=one_hot[before],
        next_observations=one_hot[after],
        actions=np.float32(2 * action - 1)[:, None],
        rewards=np.float32(REWARDS[before, action]),
        costs=np.float32(COSTS[before, action]),
        terminals=terminal.astype(bool),
        timeouts=timeout.astype(bool),
    )


def test_values_are_those_of_the_evaluated_policy_beyond_time_limits_and_not_beyond_ends():
    settings = CriticSettings(
        updates=2500, batch_size=64, hidden_sizes=(32,), discount=DISCOUNT, learning_rate=3e-3,
        polyak=0.1,
    )  # fmt: skip
    critics = fitted(RingPolicy(), ring_data(), settings)
    states = torch.eye(4)
    for ask, signal in ((critics.q_reward, REWARDS), (critics.q_cost, COSTS)):
        values = torch.stack([ask(states, torch.full((4, 1), sign)) for sign in (-1.0, 1.0)], 1)
        np.testing.assert_allclose(values.numpy(), exact(signal), atol=0.3)
    # The policy goes round for ever, and its cost with it; no episode in the data could cost that.
    assert exact(COSTS)[1, 1] > 10
    assert exact(COSTS)[2, 1] == 5, "where it ends, nothing follows"


def test_same_seed_same_critics_and_nothing_else_changes():
    data = made(rollouts_to_learn_from)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again = (fitted(foreign_policy(Network(), SOURCE), data) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    other = fitted(foreign_policy(Network(), SOURCE), data, CriticSettings(updates=20, seed=1))
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    asked = data.observations[:5], data.actions[:5]
    assert not torch.equal(first.q_cost(*asked), other.q_cost(*asked))


def test_what_never_varied_is_not_read_and_no_cost_is_no_cost():
    data = made(rollouts_to_learn_from)
    still = data.observations.clone()
    still[:, 1] = 7.0
    data = OfflineDataset(
        **{**data.to_arrays(), "observations": still, "costs": torch.zeros(len(data))}
    )
    critics = fitted(foreign_policy(Network(), SOURCE), data)
    seen, acted = still[:9], data.actions[:9]
    moved = seen + torch.tensor([0.0, 5.0])
    assert torch.equal(critics.q_reward(seen, acted), critics.q_reward(moved, acted))
    assert critics.q_cost(seen, acted).abs().max() < 0.01


def test_they_lead_attacks_to_harm():
    settings = CriticSettings(updates=600, batch_size=64, hidden_sizes=(32,), episodes=48)
    report = run(Network(), "natural,coupled", 6, settings, critics="rollouts")
    cost = report.episodes.groupby("attack")["cost"].mean()
    assert cost["coupled@rollouts"] > cost["natural"] + 8
    assert report.critics["rollouts"]["rank_correlation"]["reward"] > 0.7


# What they are fitted to


def test_rollouts_are_of_the_policy_half_of_them_with_noise_within_bounds():
    policy, data = foreign_policy(Network(), SOURCE), made(rollouts_to_learn_from)
    own = policy.predict(data.observations.numpy())
    differs = np.abs(own - data.actions.numpy()).max(axis=1) > 1e-5
    by_episode = [differs[start : start + 30].mean() for start in data.episodes["start"]]
    assert by_episode[0] == by_episode[2] == 0
    assert min(by_episode[1], by_episode[3]) > 0.5
    assert data.actions.abs().max() <= 2
    assert data.timeouts.sum() == 4
    assert data.terminals.sum() == 0
    # Each step leads on to the next.
    after = data.next_observations[~data.timeouts]
    assert torch.equal(after, data.observations[1:][~data.timeouts[:-1]])
    # The reward is the height that a step arrives at.
    assert torch.equal(data.rewards, data.next_observations[:, 1])


def test_workers_and_more_episodes_change_no_episode():
    here, there = made(rollouts_to_learn_from), made(rollouts_to_learn_from, workers=2)
    for name, values in here.to_arrays().items():
        np.testing.assert_array_equal(values, there.to_arrays()[name])


def test_critics_are_judged_by_the_policy_alone_also_where_noise_has_led_it():
    policy, judged = foreign_policy(Network(), SOURCE), made(rollouts_to_judge_by)
    np.testing.assert_allclose(
        policy.predict(judged.observations.numpy()), judged.actions.numpy(), atol=1e-5
    )
    assert judged.episodes["length"].tolist() == [30, 22] * (JUDGED // 2)
    starts = judged.observations[torch.tensor(judged.episodes["start"].to_numpy())]
    settled = judged.observations[8:240:52]
    away = [(ones[:, 0] - 0.26).abs().max() for ones in (starts[1::2], settled)]
    assert away[0] > 10 * away[1], "the policy alone would not be there"


def test_episodes_for_critics_are_nobody_elses():
    others = [set(episode_seeds(0, 1000, domain=domain)) for domain in (EVALUATE, FIT)]
    others += [set(rehearsal_seeds(0, 1000, part=part)) for part in (0, 1, 1001, 1002, 1003)]
    mine = [set(critic_seeds(0, 1000, part=part)) for part in (0, 1)]
    assert mine[0].isdisjoint(mine[1])
    assert all(one.isdisjoint(other) for one in mine for other in others)


def test_of_a_large_dataset_some_whole_episodes_are_taken(points):
    some = some_of(points, 110, seed=0)
    assert some.episodes["length"].tolist() == [20] * 5
    assert not some.episodes["terminated"].any()
    known = {tuple(row) for row in points.observations[::20].tolist()}
    assert {tuple(row) for row in some.observations[::20].tolist()} <= known
    assert len(some_of(points, 1, seed=0)) == 20, "at least one"
    whole = some_of(points, 10_000, seed=5).to_arrays()
    assert all(np.array_equal(whole[name], values) for name, values in points.to_arrays().items()
               if name in whole)  # fmt: skip


# Which attacks they lead


def test_each_source_has_rows_of_its_own_and_those_of_the_policy_do_not_change(points):
    alone = run(WithOwn())
    assert "critics" not in alone.plan.to_json()
    report = run(WithOwn(), critics="own,data,rollouts", data=points_here(points))
    assert list(report.attacks) == [
        "natural", "amad", "amad@data", "amad@rollouts", "mc", "mc@data", "mc@rollouts",
    ]  # fmt: skip
    for name in alone.attacks:
        pd.testing.assert_frame_equal(
            report.of_attack(name).reset_index(drop=True),
            alone.of_attack(name).reset_index(drop=True),
        )
    for name in ("mc@data", "mc@rollouts"):
        assert report.attacks[name] == {"attack": "mc", "steps": 2, "restarts": 1}
        assert not np.array_equal(
            report.of_attack(name)["reward"], report.of_attack("mc")["reward"]
        )
    thresholds = {report.attacks[name]["threshold"] for name in report.attacks if "amad" in name}
    assert len(thresholds) == 3
    assert report.critics["data"]["transitions"] == len(points)
    assert report.critics["rollouts"]["asked"] == ["cost"]
    assert "mc@rollouts" in str(report)


def test_data_lead_too_by_default_and_a_label_is_met_with_all():
    data = points_here(made(rollouts_to_learn_from))
    given = {"attack_set": ["quick.steps=1"], "data": data}
    evaluation = ready(WithOwn(), "mr,quick=mc", **given)
    assert [a.name for a in evaluation.attacks] == ["mr", "mr@data", "quick", "quick@data"]
    assert [a.steps for a in evaluation.attacks] == [20, 20, 1, 1]
    assert (
        evaluation.plan.name != ready(WithOwn(), "mr,quick=mc", **{**given, "data": None}).plan.name
    )


def test_a_policy_without_critics_meets_all_strong_attacks_by_rollouts(points):
    evaluation = ready(Network(), "strong")
    led = [f"{name}@rollouts" for name in ("amad", "mc", "mr", "minr", "mix", "lure", "coupled")]
    assert [a.name for a in evaluation.attacks] == [
        "natural", "uniform", "gaussian", "mad", *led, "bias", "learned",
    ]  # fmt: skip
    assert expected_seconds(evaluation, workers=0)["critics"] > 0
    with_data = ready(Network(), "strong", data=points_here(points))
    assert set(with_data.leaders.values()) == {"data"}
    with pytest.warns(
        UserWarning, match=r"left out: amad, mc, mr, .* \(--critics rollouts fits some"
    ):
        assert ready(Network(), "all").critic_sources == ()


def test_without_gradients_nothing_is_fitted():
    with pytest.warns(UserWarning, match="passes no gradients on"):
        evaluation = ready(lambda seen: [0.0, 0.0], "strong")
    assert evaluation.critic_sources == ()
    assert "critics" not in evaluation.plan.to_json()


class Plain(Natural):
    """Asks a critic, and needs no gradients."""

    name, critics = "plain", ("cost",)

    def perturb(self, target, observations, *, epsilon, **rest):
        acted, _ = target.action_distribution(observations)
        return observations + epsilon * target.q_cost(observations, acted)[:, None].sign()


def test_critics_lead_an_attack_on_a_function_too_if_it_needs_no_gradients():
    report = run(lambda seen: [-1.0, 0.0], [Plain()], critics="rollouts")
    assert list(report.attacks) == ["plain@rollouts"]
    assert report.episodes["budget_used"].min() > 0.9
    assert report.critics["rollouts"]["constant"] == {}


def test_where_no_attack_asks_nothing_is_fitted_and_it_is_said():
    with pytest.warns(UserWarning, match="no attack here asks critics"):
        assert ready(Network(), "natural,mad", critics="rollouts").critic_sources == ()


class Remembering(WithOwn):
    remembers, critics = True, ()


def test_nothing_can_be_fitted_to_a_policy_that_remembers():
    with pytest.warns(UserWarning, match="as it remembers its episode, none can be fitted"):
        names = [a.name for a in ready(Remembering(), "all").attacks]
    assert names == ["natural", "uniform", "gaussian", "mad"]
    with pytest.warns(UserWarning, match="left out: critics of rollouts"), pytest.raises(
        UsageError, match=r"'mc' asks the cost critic, .* none can be fitted"
    ):  # fmt: skip
        ready(Remembering(), "mc", critics="rollouts")


def test_some_rows_of_a_victim_are_judged_by_the_same_critics():
    critics = fitted(foreign_policy(Network(), SOURCE), made(rollouts_to_learn_from))
    victim = WithCritics(WithOwn(), critics)
    seen, noise = 0.2 * torch.randn(12, 2), GeneratorNoise(torch.Generator().manual_seed(0))
    amad = AMAD(steps=1).fit(victim, seen)
    shown = amad.perturb(victim, seen, epsilon=torch.full((2,), 0.1), noise=noise)
    assert 0 < (shown != seen).any(dim=1).sum() < 12
    part = victim.rows(torch.arange(12) < 3)
    acted = part.action_distribution(seen[:3])[0]
    assert torch.equal(part.q_cost(seen[:3], acted), critics.q_cost(seen[:3], acted))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"critics": "rollout"}, "no critics of 'rollout'; the nearest known one is 'rollouts'"),
        ({"critics": ""}, "say whose, of own, data, rollouts"),
        ({"critics": "data"}, "need a dataset to be fitted to: --data FILE"),
        ({"critics": "own", "data": "points"}, "do not ask it"),
        ({"attacks": "mc@rollouts"}, "--attacks mc --critics rollouts"),
        ({"attacks": [MaxCost(), Natural()], "critics": "own"}, "asks the cost critic"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_remedy(given, told, points):
    if "data" in given:
        given = {**given, "data": points}
    with pytest.raises(UsageError, match=told):
        ready(Network(), **{"attacks": "mc", **given})


@pytest.mark.parametrize(
    "settings",
    [{"updates": 0}, {"discount": 1.0}, {"episodes": 1}, {"hidden_sizes": ()}, {"seed": -1}],
)  # fmt: skip
def test_impossible_settings_are_named(settings):
    with pytest.raises(UsageError, match=f"critics: {next(iter(settings))} must"):
        CriticSettings(**settings)


def test_data_of_another_size_are_refused_before_anything_runs(points):
    source = EnvironmentSource(name="ball-run")
    with pytest.raises(DataError, match=r"size 2 and actions of size 2, but .* has 7 and 2"):
        prepare(lambda seen: [0, 0], env=source, attacks=[Plain()], data=points)


# What is kept


def named(name="a name"):
    return foreign_policy(Network(), SOURCE, fingerprint=name)


def never(*_, **__):
    pytest.fail("fitted once more")


def test_critics_are_fitted_once_for_a_policy_and_again_for_another(tmp_path, monkeypatch):
    given = {"critics": "rollouts", "folder": tmp_path}
    first = run(named(), **given)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(finding, "fit_critics", never)
        again = run(named(), **given)
        run(named(), seed=1, epsilon=0.1, **given)
    pd.testing.assert_frame_equal(again.episodes, first.episodes)
    assert again.critics == first.critics
    run(named("another"), **given)
    run(named(), settings=CriticSettings(updates=21, hidden_sizes=(8,), episodes=4), **given)
    assert len(list(tmp_path.iterdir())) == 3

    file.write_bytes(content[:-7])
    pd.testing.assert_frame_equal(run(named(), **given).episodes, first.episodes)
    assert file.read_bytes() == content
    run(Network(), **given)
    assert len(list(tmp_path.iterdir())) == 3, "what has no name cannot be found again"


def test_an_interrupted_fit_goes_on_behind_the_critics_that_are_kept(tmp_path, monkeypatch):
    data = points_here(made(rollouts_to_learn_from))
    given = {"critics": "data,rollouts", "data": data, "folder": tmp_path}

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finding, "rollouts_to_learn_from", interrupted)
        with pytest.raises(Interrupted, match="critics of data are kept in"):
            run(named(), **given)
    with monkeypatch.context() as patch:
        patch.setattr(finding, "some_of", never)
        resumed = run(named(), **given)
    pd.testing.assert_frame_equal(resumed.episodes, run(named(), **given).episodes)


def test_one_fit_serves_all_budgets_and_is_remarked_on_once(tmp_path):
    report = BudgetEvaluation.of(ready(named(), "mc", critics="rollouts"), (0, 1)).run(
        workers=0, progress=False, critics_in=tmp_path
    )
    alone = run(named(), "mc", critics="rollouts", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    at = report.reports[1].of_attack("mc@rollouts").reset_index(drop=True)
    pd.testing.assert_frame_equal(at, alone.episodes)
    assert report.gate_failures() == []
    about = [line for line in report.remarks() if "critic" in line]
    assert about == alone.remarks_on_critics()


# What is said of them


def test_rank_correlation_shares_ranks_and_knows_when_there_are_none():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, (2, 40))
    expected = pd.Series(one).rank().corr(pd.Series(other).rank())
    assert spearman(one, other) == pytest.approx(expected)
    assert spearman(one, np.exp(one)) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)
    assert spearman(one, np.zeros(40)) is None


@pytest.mark.parametrize(
    ("correlation", "constant", "told"),
    [
        (0.9, {}, []),
        (0.05, {}, ["the cost critic of 'data' does not rank held-out episodes (rank "
                    "correlation 0.05)"]),
        (None, {}, ["the cost was the same in all held-out episodes"]),
        (None, {"cost": 0.0}, ["no cost was ever seen in what critics of 'data' were fitted to"]),
        (0.9, {"cost": 1.0}, ["the cost never varied in what"]),
        (0.9, {"reward": 0.0}, []),
    ],
)  # fmt: skip
def test_critics_that_know_nothing_are_named(correlation, constant, told):
    known = {
        "asked": ["cost"],
        "constant": constant,
        "rank_correlation": {"reward": None, "cost": correlation},
    }
    said = what_to_know("data", known)
    assert len(said) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(said, told, strict=True))


def test_the_command_line_fits_and_keeps_critics(tmp_path):
    torch.jit.script(Network()).save(tmp_path / "net.pt")
    code = "from safer_offline.cli.main import main; main()"
    options = [
        "net.pt", "--env", "toy_environments:Point", "--attacks", "natural,mc", "--episodes", "2",
        "--workers", "0", "--critics", "rollouts", "--critic-set", "updates=30", "--critic-set",
        "episodes=4", "--attack-set", "mc.steps=1",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(critics" in done.stderr
    assert "mc@rollouts" in done.stdout
    assert len(list(tmp_path.glob("evaluations/critics/rollouts-*.safetensors"))) == 1
    (table,) = tmp_path.glob("evaluations/*/evaluation.csv")
    assert pd.read_csv(table)["attack"].tolist() == ["natural", "mc@rollouts"]
