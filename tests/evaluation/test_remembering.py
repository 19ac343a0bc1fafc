"""Victims with a memory: what the harness shows and tells them, row by row."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_evaluation import ENV, MatrixPolicy

from safer_offline.attacks import MAD, Attack
from safer_offline.evaluation.harness import evaluate
from safer_offline.policies.actors import ActionBox
from safer_offline.policies.memory import RememberedEpisodes
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy
from safer_offline.policies.transformer import SequencePolicy


class Diary:
    """Some episodes, or some of their rows, of a policy that notes what happens to it."""

    def __init__(self, policy, pages):
        self.policy, self.pages = policy, pages

    def rows(self, rows):
        return Diary(self.policy, [self.pages[i] for i in np.flatnonzero(np.asarray(rows))])

    def action_distribution(self, observations):
        return self.policy.action_distribution(observations)

    def predict(self, observations):
        assert len(observations) == len(self.pages)
        for page, observation in zip(self.pages, observations, strict=True):
            page["seen"].append(observation)
        return self.policy.predict(observations).round(3)  # see CoarsePolicy

    def earn(self, rewards, costs):
        for page, reward, cost in zip(self.pages, rewards, costs, strict=True):
            page["reward"] += reward
            page["cost"] += cost


class Remembering(MatrixPolicy):
    remembers = True

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.diaries = []

    def begin(self, rows):
        pages = [{"seen": [], "reward": 0.0, "cost": 0.0} for _ in range(rows)]
        self.diaries.append(Diary(self, pages))
        return self.diaries[-1]


class Shift(Attack):
    """Moves everything by the whole budget; it meets victims that know their rows."""

    name = "shift"

    def __init__(self):
        self.shown = []

    def perturb(self, target, observations, *, epsilon, noise, previous=None):
        assert len(target.pages) == len(observations)
        self.shown.append(observations + epsilon)
        return self.shown[-1]


def test_each_row_remembers_what_it_was_shown_and_is_told_what_it_earned():
    policy, attack = Remembering(34, 8), Shift()
    report = evaluate(
        policy, env="SafetyAntCircle-v0", attacks=["natural", attack], episodes=3, workers=0
    )
    assert report.episodes["length"].nunique() > 1
    pages = [page for diary in policy.diaries for page in diary.pages]
    assert len(pages) == 6
    for page, row in zip(pages, report.episodes.itertuples(), strict=True):
        assert len(page["seen"]) == row.length
        assert page["reward"] == pytest.approx(row.reward)
        assert page["cost"] == pytest.approx(row.cost)
    # The attacked observations are remembered, not the true ones.
    seen = np.array([page["seen"][0] for page in policy.diaries[1].pages])
    np.testing.assert_array_equal(seen, attack.shown[0].numpy())


def sequence_policy():
    torch.manual_seed(0)
    box = ActionBox(-torch.ones(2), torch.ones(2))
    actor = SequencePolicy(
        8, box, embedding_size=8, layers=1, heads=2, sequence_length=3, episode_length=100,
        reward_scale=0.1, cost_origin=5.0, stochastic=True,
    )  # fmt: skip
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    info = PolicyInfo(algorithm="test", observation_size=8, action_size=2, cost_limit=10.0)
    policy = TrainedPolicy(info, actor=actor).requires_grad_(False)
    return policy.aimed_at(target_return=100.0)


def run(policy, **settings):
    attacks = ["natural", MAD(steps=2, restarts=2)]
    settings = {"attacks": attacks, "episodes": 2, "workers": 0, "progress": False} | settings
    return evaluate(policy, env=ENV, **settings)


def test_a_sequence_policy_is_attacked_and_runs_again_as_before():
    policy = sequence_policy()
    report = run(policy)
    pd.testing.assert_frame_equal(report.episodes, run(policy, workers=2).episodes)
    natural, attacked = (report.of_attack(name)["reward"] for name in ("natural", "mad"))
    assert (natural.to_numpy() != attacked.to_numpy()).all()


def test_an_episode_depends_on_no_other_and_what_is_aimed_at_counts(monkeypatch):
    predict = RememberedEpisodes.predict
    # Coarse, so that the last bit, which batch sizes change, does not show.
    monkeypatch.setattr(RememberedEpisodes, "predict", lambda *args: predict(*args).round(2))
    policy = sequence_policy()
    together, alone = (run(policy, attacks="natural", max_rows=rows).episodes for rows in (32, 1))
    pd.testing.assert_frame_equal(together, alone)
    other = run(policy.aimed_at(target_return=0.0), attacks="natural").episodes
    assert (other["reward"] != together["reward"]).all()
