"""Behaviours that were learned: their files, their arithmetic, their training, and who acts."""

import dataclasses
import json
import math

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from safer_offline.cli.main import app
from safer_offline.context import EnvironmentContext
from safer_offline.datasets.behavior_training import BehaviorTrainingConfig, train_behavior
from safer_offline.datasets.behavior_training.environment import PenalizedEnvironment
from safer_offline.datasets.behavior_training.training import actor_from_sac
from safer_offline.datasets.behaviors import BehaviorFamily
from safer_offline.datasets.behaviors.learned.actor_files import (
    ActorInfo,
    ConditionedActor,
    Snapshot,
    load_actors,
    save_actors,
)
from safer_offline.datasets.behaviors.learned.families import (
    CHECKPOINTS,
    ActorController,
    learned_family,
    packaged_actors,
    packaged_names,
)
from safer_offline.datasets.behaviors.learned.stable_baselines import ALGORITHMS
from safer_offline.datasets.behaviors.scripted import ant
from safer_offline.datasets.behaviors.sources import behavior_from_source
from safer_offline.environments.base import Step
from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import DataError, SaferOfflineError, UsageError
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy

LOW, HIGH = (-2.0, -1.0), (1.0, 3.0)
CAR = "SafetyCarCircle-v0"


class Lane(gymnasium.Env):
    """A point that is pushed along a line; being beyond 1 costs. Episodes have 10 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(np.array(LOW, np.float32), np.array(HIGH, np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.elapsed = self.np_random.uniform(-1, 1), 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.at, math.sin(self.at), self.elapsed / 10], np.float32)

    def step(self, action):
        self.at += 0.2 * float(action[0])
        self.elapsed += 1
        return self.seen(), self.at, False, self.elapsed >= 10, {"cost": float(self.at > 1)}


LANE_MODULE = """
from test_learned import Lane
def make():
    return Lane()
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The current folder, which the user's modules are imported from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def lane(workplace, request):
    module = f"lane_{abs(hash(request.node.nodeid))}"
    source = LANE_MODULE.replace("test_learned", __name__)
    (workplace / f"{module}.py").write_text(source)
    return EnvironmentSource(name=f"{module}:make", max_episode_steps=10)


def make_actor(seed=0, snapshots=(Snapshot(steps=10),), place=0, **changes):
    """An actor with random weights for the lane."""
    settings = {
        "env_id": CAR,
        "observation_size": 3,
        "action_low": LOW,
        "action_high": HIGH,
        "hidden_sizes": (8, 5),
        "penalties": (0.0, 0.5, 2.0),
        "snapshots": snapshots,
    }
    info = ActorInfo(**{**settings, **changes})
    rng = np.random.default_rng([seed, place])
    sizes = (info.observation_size + 1, *info.hidden_sizes)

    def layer(outputs, inputs):
        return tuple(
            rng.standard_normal(shape, np.float32) for shape in ((outputs, inputs), outputs)
        )

    return ConditionedActor(
        info=info,
        snapshot=info.snapshots[place],
        hidden=tuple(layer(sizes[n + 1], sizes[n]) for n in range(len(sizes) - 1)),
        mean=layer(info.action_size, sizes[-1]),
        log_std=layer(info.action_size, sizes[-1]),
    )


@pytest.fixture
def actor_file(tmp_path):
    snapshots = (Snapshot(steps=10), Snapshot(steps=20))
    actors = [make_actor(snapshots=snapshots, place=place) for place in (0, 1)]
    return save_actors(tmp_path / "actors.safetensors", actors)


def act(family, seed=0, steps=30, size=3):
    rng = np.random.default_rng(99)
    controller = family.draw(np.random.default_rng(seed))
    return np.array([controller(rng.standard_normal(size, np.float32)) for _ in range(steps)])


# Acting


class Ones:
    """A generator that draws nothing but ones."""

    def standard_normal(self, size, dtype):
        return np.ones(size, dtype)


@pytest.fixture(scope="module")
def sac():
    """An untrained SAC for the lane with a penalty; weights large enough to reach all limits."""
    box = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    environment = Lane()
    environment.observation_space = box
    settings = {"net_arch": [8, 5]}
    model = stable_baselines3.SAC("MlpPolicy", environment, policy_kwargs=settings, seed=3)
    with torch.no_grad():
        for weight in model.policy.actor.parameters():
            weight.mul_(3.0)
        model.policy.actor.log_std.bias.copy_(torch.tensor([-30.0, 4.0]))
    return model


def converted(sac, **changes):
    info = make_actor(**changes).info
    state = {name: tensor.numpy() for name, tensor in sac.policy.actor.state_dict().items()}
    return actor_from_sac(info, info.snapshots[0], state)


@given(observation=st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), k=st.floats(0, 2))
def test_the_mean_action_is_that_of_stable_baselines(sac, observation, k):
    controller = ActorController(converted(sac), penalty=k, generator=None)
    seen = np.array(observation, np.float32)
    expected, _ = sac.predict(np.append(seen, np.float32(k / 2)), deterministic=True)
    assert np.allclose(controller(seen), expected, atol=2e-5)


@given(observation=st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), k=st.floats(0, 2))
def test_drawn_actions_have_the_deviation_of_stable_baselines(sac, observation, k):
    controller = ActorController(converted(sac), penalty=k, generator=Ones())
    seen = np.array(observation, np.float32)
    with torch.no_grad():
        given_to = torch.from_numpy(np.append(seen, np.float32(k / 2)))[None]
        mean, log_std, _ = sac.policy.actor.get_action_dist_params(given_to)
        squashed = torch.tanh(mean + log_std.exp())[0].numpy()
    assert np.allclose(controller(seen), sac.policy.unscale_action(squashed), atol=1e-4)


def test_penalties_that_were_not_trained_are_refused():
    actor = make_actor()
    for penalty in (-0.1, 2.1):
        with pytest.raises(UsageError, match="from 0 to 2, not"):
            ActorController(actor, penalty=penalty, generator=None)
    with pytest.raises(UsageError, match="from 0 to 2, not 1 to 3"):
        learned_family("x", "", [actor], penalties=(1.0, 3.0))


@pytest.mark.parametrize("name", ["deterministic_share", "noise", "burst_rate", "switch_every"])
def test_impossible_settings_of_a_family_are_refused(name):
    with pytest.raises(UsageError, match=name):
        learned_family("x", "", [make_actor()], **{name: -1})


def test_a_family_draws_penalty_snapshot_and_way_of_acting():
    snapshots = (Snapshot(steps=10), Snapshot(steps=20))
    actors = [make_actor(snapshots=snapshots, place=place) for place in (0, 1)]
    family = learned_family("x", "", actors, noise=0.3, burst_rate=0.1, switch_every=5)
    assert np.array_equal(act(family, 1), act(family, 1))
    assert not np.array_equal(act(family, 1), act(family, 2))
    steady = learned_family("x", "", actors[:1], penalties=(0.5, 0.5), deterministic_share=1)
    expected = ActorController(actors[0], penalty=0.5, generator=None)
    assert np.array_equal(act(steady, 1), act(steady, 2))
    assert act(steady)[0].tolist() == expected(np.random.default_rng(99).standard_normal(3, "f4"))
    drawn = learned_family("x", "", actors[:1], penalties=(0.5, 0.5), deterministic_share=0)
    assert not np.array_equal(act(drawn, 1), act(drawn, 2))


# Ants


def turned(observation, angle):
    """What is observed when the whole world is turned by an angle."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    seen = observation.copy()
    for start in (0, 3, 10):
        seen[start : start + 2] = turn @ observation[start : start + 2]
    x, y, z, w = observation[6:10]
    s, c = math.sin(angle / 2), math.cos(angle / 2)
    seen[6:10] = c * x - s * y, c * y + s * x, c * z + s * w, c * w - s * z
    return seen


@given(angle=st.floats(-10, 10), heading=st.floats(-10, 10), seed=st.integers(0, 100))
def test_a_lane_looks_the_same_whatever_its_direction(angle, heading, seed):
    observation = np.random.default_rng(seed).standard_normal(34)
    observation[6:10] /= np.linalg.norm(observation[6:10])
    world = turned(observation, angle)
    seen = ant.as_in_a_lane(observation.astype(np.float32), heading)
    seen_turned = ant.as_in_a_lane(world.astype(np.float32), heading + angle)
    assert seen.shape == (33,)
    assert seen[9] >= 0
    if abs(seen[9]) > 1e-3:  # else its sign is a matter of rounding
        assert np.allclose(seen, seen_turned, atol=1e-4)
    assert seen[:2].tolist() == [0, 0]
    assert np.array_equal(seen[12:], observation[12:33].astype(np.float32))


def test_the_target_lies_ahead_in_the_lane():
    observation = np.zeros(34, np.float32)
    observation[[0, 4, 9]] = 0.7, -1.0, 1.0  # moving south, facing east
    seen = ant.as_in_a_lane(observation, -math.pi / 2)
    assert seen[3:6] == pytest.approx([1, 0, 0], abs=1e-6)
    assert 2 * math.atan2(seen[8], seen[9]) == pytest.approx(math.pi / 2)  # east is to the left


ANTS = [
    pytest.param(size, family, id=f"{task}-{family.name}")
    for task, size, families in (("circle", 34, ant.ANT_CIRCLE), ("run", 33, ant.ANT_RUN))
    for family in families
]


@pytest.mark.parametrize(("size", "family"), ANTS)
def test_ants_act(size, family):
    assert family.checkpoint_sha256 == packaged_actors("ant-run").sha256
    actions = act(family, size=size)
    assert actions.shape == (30, 8)
    assert np.isfinite(actions).all()
    assert np.array_equal(actions, act(family, size=size))
    assert not np.array_equal(actions, act(family, seed=1, size=size))


def test_ants_walk_the_circle_and_the_lane():
    """The frontier of each task, which is what its dataset has to imitate."""
    for task, families, least in (
        ("ant-circle", ant.ANT_CIRCLE, 100),
        ("ant-run", ant.ANT_RUN, 500),
    ):
        environment, returns = SafetyEnvironment(task), []
        for episode in range(4):
            controller = families[1].draw(np.random.default_rng([1, episode]))
            observation, total, ended = environment.reset(episode), 0.0, False
            while not ended:
                step = environment.step(np.clip(controller(observation), -1, 1))
                observation, ended = step.observation, step.terminated or step.truncated
                total += step.reward
            returns.append(total)
        environment.close()
        assert np.median(returns) > least


# Files


def test_actors_survive_their_file(actor_file, tmp_path):
    again = save_actors(tmp_path / "again.safetensors", actor_file.actors)
    assert again.path.read_bytes() == actor_file.path.read_bytes()
    assert again.info == actor_file.info
    for place, actor in enumerate(actor_file.actors):
        snapshots = (Snapshot(steps=10), Snapshot(steps=20))
        original = make_actor(snapshots=snapshots, place=place)
        assert actor.arrays().keys() == original.arrays().keys()
        for name, array in original.arrays().items():
            assert np.array_equal(actor.arrays()[name], array)
    last = ConditionedActor.load(actor_file.path)
    assert last.snapshot.steps == 20
    assert ConditionedActor.load(actor_file.path, snapshot=0).snapshot.steps == 10


def rewritten(path, change):
    """The file with its weights and header as `change` leaves them."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["actor"])
    arrays = load(content)
    change(header, arrays)
    path.write_bytes(save(arrays, metadata={"actor": json.dumps(header)}))


@pytest.mark.parametrize("position", [20, 200, -200, -1])
def test_a_flipped_bit_is_found(actor_file, position):
    content = bytearray(actor_file.path.read_bytes())
    content[position] ^= 4
    actor_file.path.write_bytes(content)
    with pytest.raises(DataError, match="Remedy"):
        load_actors(actor_file.path)


def test_what_is_no_actor_file_is_refused(actor_file, tmp_path):
    with pytest.raises(DataError, match="no such actor file"):
        load_actors(tmp_path / "missing.safetensors")
    for content in (b"", b"nonsense", actor_file.path.read_bytes()[:-9]):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_actors(tmp_path / "bad.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(save({"a": np.ones(2)}))
    with pytest.raises(DataError, match=r"holds no actors[^$]*behaviors train"):
        load_actors(tmp_path / "bad.safetensors")

    def from_the_future(header, arrays):
        header["format"] = "safer-offline/actor/9"

    rewritten(actor_file.path, from_the_future)
    with pytest.raises(DataError, match="update safer-offline"):
        load_actors(actor_file.path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_sizes": (8, 6)}, r"float32\[5, 8\], not float32\[6, 8\]"),
        ({"hidden_sizes": ()}, "no hidden layer"),
        ({"action_low": (-2.0,)}, "bounds differ"),
        ({"action_low": (-2.0, 5.0)}, "not below"),
        ({"penalties": ()}, "penalties"),
        ({"penalties": (1.0, 0.0)}, "penalties"),
        ({"snapshots": ({"steps": 11, "scores": ()},)}, "11.hidden.0.weight"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_file_whose_weights_and_words_disagree_is_refused(actor_file, changes, problem):
    from safer_offline.datasets.behaviors.learned import actor_files

    def lie(header, arrays):
        header["info"].update(changes)
        told = json.loads(json.dumps(header["info"]))
        header["sha256"] = actor_files._digest(told, arrays)

    rewritten(actor_file.path, lie)
    with pytest.raises(DataError, match=problem):
        load_actors(actor_file.path)


# Training

TINY = BehaviorTrainingConfig(
    steps=120,
    penalties=(0.0, 1.0),
    snapshots=(0.5, 1.0),
    hidden_sizes=(8, 8),
    batch_size=16,
    random_steps=40,
    evaluation_episodes=1,
    log_every=50,
)


def test_a_training_is_a_function_of_its_seed(lane, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("first", "again", "other")]
    for path, seed in zip(paths, (5, 5, 6), strict=True):
        train_behavior(lane, path, config=TINY, seed=seed)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert first != other
    file = load_actors(paths[0])
    assert [actor.snapshot.steps for actor in file.actors] == [60, 120]
    assert not np.array_equal(file.actors[0].mean[0], file.actors[1].mean[0])
    assert file.info.env_id == lane.name
    assert (file.info.action_low, file.info.action_high) == (LOW, HIGH)
    assert file.info.training["seed"] == 5
    assert file.info.versions["stable-baselines3"] == stable_baselines3.__version__
    for snapshot in file.info.snapshots:
        assert [score.penalty for score in snapshot.scores] == [0, 1]
        assert all(score.mean_length == 10 for score in snapshot.scores)
    log = paths[0].with_suffix(".csv").read_text().splitlines()
    assert log[0] == "steps,penalty,episodes,return,cost,length"
    assert {line.split(",")[0] for line in log[1:]} == {"52", "100", "120"}
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(UsageError, match="overwrite"):
        train_behavior(lane, paths[0], config=TINY)


def test_an_interrupted_training_leaves_its_snapshots(lane, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("safer_offline.datasets.behavior_training.training.measured", interrupt)
    path = tmp_path / "actors.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_behavior(lane, path, config=TINY)
    assert not path.exists()
    partial = load_actors(tmp_path / "actors.safetensors.partial")
    assert [snapshot.steps for snapshot in partial.info.snapshots] == [60, 120]


def test_the_command_line_trains_collects_and_lists(workplace, capsys):
    settings = "random_steps=100", "hidden_sizes=8,8", "batch_size=16", "evaluation_episodes=1"
    arguments = ["ball-run", "--steps", "300", "--penalties", "0,2", "--set", "snapshots=1.0"]
    for setting in settings:
        arguments += ["--set", setting]
    app(["behaviors", "train", *arguments], standalone_mode=False)
    told = capsys.readouterr().out
    assert "Wrote ball_run.safetensors" in told
    assert "--policy checkpoint:ball_run.safetensors" in told
    assert load_actors("ball_run.safetensors").info.penalties == (0.0, 2.0)
    family = behavior_from_source("checkpoint:ball_run.safetensors", env_id="SafetyBallRun-v0")
    assert act(family, size=7).shape == (30, 2)
    app(["behaviors", "list", "--json"], standalone_mode=False)
    listed = json.loads(capsys.readouterr().out)
    assert listed["families"][CAR][0]["name"] == "broad"
    app(["behaviors", "list", "car-circle"], standalone_mode=False)
    assert "frontier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("penalties=1,0", "penalties must be ascending"),
        ("penalties=zero", "must look like"),
        ("snapshots=0.5,2", "snapshots"),
        ("learning_rat=1", "nearest is 'learning_rate'"),
        ("steps", "NAME=VALUE"),
        ("steps=0", "steps"),
        ("discount=1", "discount"),
        ("reward_scale=0", "reward_scale"),
    ],
)
def test_impossible_settings_of_a_training_are_refused(setting, problem):
    with pytest.raises(UsageError, match=problem):
        BehaviorTrainingConfig().with_settings([setting])


def test_the_approach_is_rewarded_on_circles_only(tmp_path):
    config = BehaviorTrainingConfig(approach_reward=1.0)
    with pytest.raises(UsageError, match="Circle tasks"):
        train_behavior(EnvironmentSource(name="car-run"), tmp_path / "x", config=config)


class Track:
    """Two steps towards a track, the second of which ends in a fall."""

    env_id = "track"
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed):
        self.left = [Step(np.array([0, -0.3], "f4"), 1.0, 1.0, False, False)]
        self.left.append(Step(np.array([0, 0.1], "f4"), 2.0, 0.0, True, False))
        return np.array([0, -0.5], "f4")

    def step(self, action):
        return self.left.pop(0)


def test_the_training_reward_is_what_the_settings_say():
    config = dataclasses.replace(
        TINY, penalties=(3.0,), approach_reward=0.5, alive_reward=0.25, reward_scale=2.0
    )
    environment = PenalizedEnvironment(Track(), config, seed=0)
    assert environment.reset()[0] == pytest.approx([0, -0.5, 1])
    seen, reward, terminated, _, info = environment.step(np.zeros(1))
    assert seen == pytest.approx([0, -0.3, 1])
    # Two metres nearer, upright, under a penalty of 3.
    assert reward == pytest.approx(2 * (1 - 3 + 0.5 * 2 + 0.25))
    assert not terminated
    assert info == {}
    _, reward, terminated, _, info = environment.step(np.zeros(1))
    assert reward == pytest.approx(2 * (2 + 0.5 * 2))
    assert terminated
    assert info["score"] == (3.0, 3.0, 1.0, 2.0)  # penalty, the task's own return, cost, length


def test_without_stable_baselines_the_remedy_is_named(lane, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "stable_baselines3", None)
    with pytest.raises(UsageError, match=r"pip install 'safer-offline\[behaviors\]'"):
        train_behavior(lane, tmp_path / "x.safetensors", config=TINY)


# Who acts, by name


def test_families_of_the_task_have_their_names():
    family = behavior_from_source("frontier", env_id=CAR)
    assert family.name == "frontier"
    assert behavior_from_source("frontier", env_id=CAR, name="fast").name == "fast"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("fronteer", "the nearest of .* is 'frontier'"),
        ("runs/policy.safetensors", "checkpoint:PATH"),
        ("checkpoint:nowhere.safetensors", "there is no checkpoint"),
        ("packaged:ant", "no checkpoint 'ant' comes with the package; there are .*ant-run"),
        ("packaged:ant-run", "was trained in SafetyAntRun-v0 and cannot act in SafetyCarCircle"),
        (":act", "module:object"),
        ("no_such_module:act", "no module 'no_such_module'"),
        ("math:sqr", "nearest known one is 'sqrt'"),
        ("math:pi", "is a float"),
    ],
)
def test_names_that_mean_nothing_are_refused(source, problem, workplace):
    with pytest.raises(UsageError, match=problem):
        behavior_from_source(source, env_id=CAR)


def test_an_actor_file_acts_as_its_parameters_say(actor_file):
    source = "checkpoint:actors.safetensors"
    folder = actor_file.path.parent
    settings = {"snapshots": [10], "penalties": [2, 2], "deterministic_share": 1}
    family = behavior_from_source(source, env_id=CAR, base=folder, parameters=settings)
    assert family.checkpoint_sha256 == actor_file.sha256
    assert family.name == "actors"
    expected = ActorController(actor_file.actors[0], penalty=2.0, generator=None)
    assert act(family)[0].tolist() == expected(np.random.default_rng(99).standard_normal(3, "f4"))
    for wrong, problem in (
        ({"snapshots": [11]}, "there are 10, 20"),
        ({"penalties": [1]}, "lowest and the highest"),
        ({"noise": "much"}, "must be a number"),
        ({"snapshots": []}, "must not be empty"),
        ({"penalty": 1}, "no parameter 'penalty'; it takes snapshots"),
    ):
        with pytest.raises(UsageError, match=problem):
            behavior_from_source(source, env_id=CAR, base=folder, parameters=wrong)


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_trained_policy_acts(tmp_path, as_folder):
    info = PolicyInfo(
        algorithm="safer",
        observation_size=3,
        action_size=2,
        hidden_sizes=(8,),
        critic_hidden_sizes=(8,),
        critic_members=2,
        context=EnvironmentContext(env_id=CAR, kwargs={}, cost_key="cost"),
    )
    policy = TrainedPolicy.untrained(info)
    policy.actor.box.half_range.fill_(1.0)
    run = tmp_path / "my_run"
    policy.save(run / "policy.safetensors")
    source = f"checkpoint:{run if as_folder else run / 'policy.safetensors'}"
    by_mean = behavior_from_source(source, env_id=CAR, parameters={"deterministic_share": 1})
    assert by_mean.name == ("my_run" if as_folder else "policy")
    assert len(by_mean.checkpoint_sha256) == 64
    assert by_mean.context == info.context
    seen = np.random.default_rng(99).standard_normal((1, 3), "f4")
    assert np.allclose(act(by_mean)[:1], policy.predict(seen))
    drawn = behavior_from_source(source, env_id=CAR, parameters={"deterministic_share": 0})
    assert np.array_equal(act(drawn, 1), act(drawn, 1))
    assert not np.array_equal(act(drawn, 1), act(drawn, 2))
    with pytest.raises(UsageError, match=f"was trained in {CAR} and cannot act in other"):
        behavior_from_source(source, env_id="other")


def test_a_policy_that_must_be_told_what_it_earns_does_not_collect(tmp_path):
    sizes = ("embedding_size", "layers", "heads", "sequence_length", "episode_length")
    info = PolicyInfo(
        algorithm="cdt",
        observation_size=3,
        action_size=2,
        actor="sequence",
        actor_settings={
            **dict.fromkeys(sizes, 2), "reward_scale": 1.0, "cost_origin": 0.0, "stochastic": True,
        },
        critics=(),
        context=EnvironmentContext(env_id=CAR, kwargs={}, cost_key="cost"),
    )  # fmt: skip
    TrainedPolicy.untrained(info).save(tmp_path / "policy.safetensors")
    with pytest.raises(UsageError, match=r"\(cdt\) that must be told what it earns"):
        behavior_from_source(f"checkpoint:{tmp_path}", env_id=CAR)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_archives_of_stable_baselines_act(algorithm, tmp_path):
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", Lane(), seed=1, device="cpu")
    model.save(tmp_path / "model.zip")
    source = f"checkpoint:{tmp_path / 'model.zip'}"
    by_mean = behavior_from_source(source, env_id="any", parameters={"deterministic_share": 1})
    assert algorithm in by_mean.description
    seen = np.random.default_rng(99).standard_normal(3, "f4")
    assert np.allclose(act(by_mean)[0], model.predict(seen, deterministic=True)[0])
    drawn = behavior_from_source(source, env_id="any", parameters={"deterministic_share": 0})
    assert np.array_equal(act(drawn, 1), act(drawn, 1))
    named = {"algorithm": algorithm.lower()}
    assert algorithm in behavior_from_source(source, env_id="any", parameters=named).description
    with pytest.raises(UsageError, match="does not fit this environment"):
        act(by_mean, size=5)
    with pytest.raises(UsageError, match="'DQN' is not supported"):
        behavior_from_source(source, env_id="any", parameters={"algorithm": "DQN"})


def test_a_damaged_archive_is_refused(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"PK nonsense")
    for parameters in ({}, {"algorithm": "SAC"}):
        with pytest.raises(DataError, match=r"model\.save"):
            behavior_from_source(
                f"checkpoint:{tmp_path / 'model.zip'}", env_id="any", parameters=parameters
            )


OWN = """
import numpy as np
from safer_offline.datasets.behaviors import BehaviorFamily

def gently(observation, gain=1.0):
    "Pulls back to the middle."
    return -gain * observation[:2]

def wrong(observation):
    return None

class Restless:
    def __init__(self, generator, scale=1.0):
        self.generator, self.scale = generator, scale
    def __call__(self, observation):
        return self.scale * self.generator.standard_normal(2)

family = BehaviorFamily("mine", "of my own", lambda generator: lambda observation: [0.5, 0.5])
"""


@pytest.fixture
def own(tmp_path, request):
    module = f"own_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(OWN)

    def build(name, **parameters):
        source = f"{module}:{name}"
        return behavior_from_source(source, env_id="any", base=tmp_path, parameters=parameters)

    return build


def test_a_function_is_called_with_each_observation(own):
    family = own("gently", gain=2.0)
    assert (family.name, family.description) == ("gently", "Pulls back to the middle.")
    seen = np.random.default_rng(99).standard_normal(3, "f4")
    assert np.allclose(act(family)[0], -2 * seen[:2])
    with pytest.raises(UsageError, match="must take an observation and volume"):
        own("gently", volume=1)
    with pytest.raises(UsageError, match="it returned None"):
        act(own("wrong"))


def test_a_class_is_built_once_an_episode_with_its_generator(own):
    family = own("Restless", scale=0.5)
    assert np.array_equal(act(family, 1), act(family, 1))
    assert not np.array_equal(act(family, 1), act(family, 2))
    assert np.allclose(act(family, 1), 0.5 * act(own("Restless"), 1))


def test_a_family_is_used_as_it_is(own):
    family = own("family")
    assert isinstance(family, BehaviorFamily)
    assert (family.name, act(family)[0].tolist()) == ("mine", [0.5, 0.5])
    with pytest.raises(UsageError, match="takes no parameters"):
        own("family", gain=1)


def test_a_module_that_fails_is_told_apart_from_one_that_is_not_there(workplace):
    (workplace / "broken_behaviour.py").write_text("import no_such_package")
    with pytest.raises(SaferOfflineError, match=r"importing .* failed.*no_such_package"):
        behavior_from_source("broken_behaviour:act", env_id="any")


# What comes with the package


def test_the_packaged_actors_are_healthy_small_and_honest():
    assert "ant-run" in packaged_names()
    assert sum(path.stat().st_size for path in CHECKPOINTS.iterdir()) < 1_500_000
    for name in packaged_names():
        file = packaged_actors(name)
        assert file.info.training["seed"] == 0
        assert file.info.versions["stable-baselines3"]
        for snapshot in file.info.snapshots:
            assert [score.penalty for score in snapshot.scores] == list(file.info.penalties)
        last = file.info.snapshots[-1].scores
        assert last[0].mean_return > last[-1].mean_return
        assert last[0].mean_cost > last[-1].mean_cost
