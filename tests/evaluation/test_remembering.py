"""Victims with a memory: what the harness shows and tells them, row by row."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_evaluation import ENV, MatrixPolicy
from toy_environments import Point

from safer_offline.attacks import MAD, Attack
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal
from safer_offline.evaluation.durations import expected_seconds
from safer_offline.evaluation.harness import evaluate, prepare
from safer_offline.policies.actors import ActionBox
from safer_offline.policies.memory import RememberedEpisodes, RememberingActor
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy
from safer_offline.policies.transformer import SequencePolicy
from safer_offline.progress import progress_bar


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


# Attacks that are searched for in whole episodes


class Leaving(Point):
    """Episodes of different lengths."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.t >= self.length, truncated, info

    def reset(self, *, seed=None, options=None):
        found = super().reset(seed=seed)
        self.length = 15 + int(10 * abs(self.x[0]))
        return found


SOURCE = EnvironmentSource(name="test_remembering:Leaving")


class Tired(RememberingActor):
    """Keeps to a line left of the border, further away the longer it lasts and the more it cost."""

    def begin(self, rows):
        return {"steps": torch.zeros(rows), "costs": torch.zeros(rows)}

    def recall(self, memory):
        return 0.26 - 0.001 * memory["steps"] - 0.01 * memory["costs"].clamp(max=3)

    def respond(self, recalled, observations):
        goal = recalled.repeat(len(observations) // len(recalled))
        mean = torch.stack([8 * (goal - observations[:, 0]), -observations[:, 1]], dim=1)
        return self.box.clip(mean), torch.full_like(mean, 0.1)

    def remember(self, memory, observations, actions):
        return {**memory, "steps": memory["steps"] + 1}

    def earn(self, memory, rewards, costs):
        return {**memory, "costs": memory["costs"] + costs}


@pytest.fixture(scope="module")
def tired():
    info = PolicyInfo(algorithm="test", observation_size=2, action_size=2, cost_limit=10.0)
    actor = Tired(2, ActionBox(torch.full((2,), -2.0), torch.full((2,), 2.0)))
    return TrainedPolicy(info, actor=actor).requires_grad_(False)


def lived(policy, seed):
    """Observations and costs of one unattacked episode, alone."""
    episode, seen, costs = policy.begin(), [], []
    with VectorEnvironment(SOURCE, num_envs=1, workers=0) as alone:
        seen.append(alone.reset([seed])[0])
        while not alone.done.all():
            steps = alone.step(episode.predict(seen[-1])[None])
            episode.earn(steps.rewards, steps.costs)
            seen.append(steps.observations[0])
            costs.append(steps.costs[0])
    return np.array(seen), np.array(costs)


@pytest.fixture
def rehearsal(tired):
    with progress_bar("rehearse", total=1, enabled=False) as bar:
        budget = torch.full((2,), 0.1)
        yield Rehearsal(
            tired, source=SOURCE, budget=budget, workers=0, horizon=30, bar=bar, identity={}
        )


def test_a_rehearsal_tells_what_is_earned(rehearsal):
    seeds = range(5)
    with rehearsal.simulators(2) as simulators:
        totals = rehearsal.run(lambda seen, _: seen, seeds, simulators=simulators)
    wanted = [lived(rehearsal.victim, seed)[1].sum() for seed in seeds]
    assert totals.costs.tolist() == wanted
    assert max(wanted) > 1


def test_who_learns_meets_victims_that_begin_with_their_episodes(rehearsal):
    pytest.importorskip("stable_baselines3")
    from safer_offline.evaluation.adversaries.problem import StateAdversarialProblem

    zeros, ones = torch.zeros(2), torch.ones(2)
    with rehearsal.simulators(2) as simulators:
        problem = StateAdversarialProblem(
            rehearsal, simulators, seeds=iter(range(100)), mean=zeros, std=ones
        )
        for first in (0, 6):  # whoever measures in between begins anew
            begun, following = first + 2, problem.reset()
            paths, lengths = [[one] for one in following], []
            stories = [first, first + 1]
            while begun < first + 6:
                problem.step_async(np.zeros((2, 2), np.float32))
                following, _, done, infos = problem.step_wait()
                for row in range(2):
                    if not done[row]:
                        paths[row].append(following[row])
                        continue
                    paths[row].append(infos[row]["terminal_observation"])
                    seen, _ = lived(rehearsal.victim, stories[row])
                    np.testing.assert_array_equal(np.array(paths[row]), seen)
                    lengths.append(len(seen))
                    paths[row], stories[row] = [following[row]], begun
                    begun += 1
            assert len(set(lengths)) > 1


def test_offsets_and_learned_adversaries_are_found(tired):
    settings = ["bias.population=8,generations=1,episodes=2", "learned.steps=320"]
    evaluation = prepare(
        tired, env=SOURCE, attacks="natural,uniform,bias,learned", attack_set=settings, epsilon=0.1,
        episodes=4,
    )  # fmt: skip
    found = [evaluation.run(workers=0, progress=False) for _ in range(2)]
    pd.testing.assert_frame_equal(found[0].episodes, found[1].episodes)
    costs = found[0].episodes.groupby("attack")["cost"].mean()
    assert costs["bias"] > costs["natural"] + 5
    assert found[0].attacks["bias"]["offset"][0] < -0.5
    assert len(found[0].attacks["learned"]["curve"]) > 1
    assert all(seconds > 0 for seconds in expected_seconds(evaluation, workers=0).values())
