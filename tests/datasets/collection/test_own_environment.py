"""A user's own environment and policies, from the checker to a dataset that trains."""

import numpy as np
import pytest

from safer_offline.datasets import load_dataset
from safer_offline.datasets.collection.collector import collect
from safer_offline.datasets.collection.recipe import load_recipe

MODULE = """
import gymnasium
import numpy as np


class Lane(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 3, (1,), np.float32)

    def __init__(self, limit=1.0):
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1), 0.0
        return self.observe(), {}

    def observe(self):
        return np.array([self.x, self.v], np.float32)

    def step(self, action):
        self.v = 0.9 * self.v + 0.1 * float(action[0])
        self.x += self.v
        info = {"danger": float(self.v > self.limit)}
        return self.observe(), self.v, bool(self.x > 20), False, info


def make_lane(limit=1.0):
    return gymnasium.wrappers.TimeLimit(Lane(limit), 30)


def push(observation):
    return [4.0]  # beyond the bounds: it is clipped


class Wander:
    def __init__(self, generator, scale=1.0):
        self.generator, self.scale = generator, scale

    def __call__(self, observation):
        return [self.scale * self.generator.normal()]
"""

RECIPE = """
name = "lab/lane/mixed-v0"
transitions = 200

[environment]
id = "my_lane:make_lane"
cost_key = "danger"
kwargs = { limit = 0.5 }

[[behaviors]]
policy = "my_lane:push"
share = 0.3

[[behaviors]]
policy = "my_lane:Wander"
name = "wanderer"
share = 0.7
parameters = { scale = 0.5 }
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_lane.py").write_text(MODULE)
    (tmp_path / "my_recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_recipe_of_the_users_own_makes_a_dataset(here):
    made = collect("my_recipe.toml", "lane.h5", workers=2, progress=False)
    again = collect("my_recipe.toml", "again.h5", workers=1, progress=False)
    assert again.metadata.content_sha256 == made.metadata.content_sha256
    dataset = load_dataset("lane.h5")
    assert dataset.metadata.env_id == "my_lane:make_lane"
    assert dataset.metadata.env_kwargs == {"limit": 0.5}
    assert dataset.metadata.max_episode_steps == 30
    assert dataset.metadata.action_space.high == (3.0,)
    episodes = dataset.episodes
    assert set(episodes["behavior"]) == {"push", "wanderer"}
    pushed = (dataset.infos["policy_id"] == 0)[:, None]
    assert (dataset.actions.numpy()[pushed] == 3.0).all()
    # The speed is the second coordinate of the observation that follows.
    speed = dataset.next_observations[:, 1].numpy()
    assert np.array_equal(dataset.costs.numpy(), (speed > 0.5).astype(np.float32))
    assert load_recipe("my_recipe.toml").to_toml() == dataset.metadata.recipe


def test_the_command_checks_first_and_then_collects(here):
    from typer.testing import CliRunner

    from safer_offline.cli.main import app

    def run(*arguments):
        return CliRunner().invoke(app, ["collect", "my_lane:make_lane", *arguments])

    without = run("--policy", "my_lane:push", "--transitions", "60")
    assert without.exit_code != 0
    assert "danger" in str(without.exception)
    assert "--cost-key" in str(without.exception)
    options = ("--cost-key", "danger", "--transitions", "60", "--kwargs", "limit=0.2")
    done = run("--policy", "my_lane:push", "--policy", "my_lane:Wander", *options)
    assert done.exit_code == 0, done.output
    dataset = load_dataset("make_lane.h5")
    assert dataset.num_transitions == 60
    assert dataset.metadata.env_kwargs == {"limit": 0.2}
    assert [policy.name for policy in dataset.metadata.behavior_policies] == ["push", "Wander"]


def test_options_of_an_environment_need_somebody_who_acts(here):
    from typer.testing import CliRunner

    from safer_offline.cli.main import app

    done = CliRunner().invoke(app, ["collect", "car-circle", "--cost-key", "danger"])
    assert "--cost-key goes with --policy" in str(done.exception)
