"""Recorded episodes are those of the table, step by step."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from toy_environments import make_point
from toy_policies import Pull

from safer_offline import evaluate
from safer_offline.environments.bullet.circle import ROOM, X_LIMIT
from safer_offline.environments.bullet.run import Y_LIMIT
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import SaferOfflineError
from safer_offline.evaluation.outputs import save
from safer_offline.evaluation.path_figures import plot_paths
from safer_offline.evaluation.paths import as_npz, episodes_to_show
from safer_offline.evaluation.plane import plane_of

EPSILON = 0.1
TOY = "toy_environments:make_point"


def recorded(policy=None, **settings):
    settings = {
        "env": TOY, "attacks": "natural,mad", "epsilon": EPSILON, "episodes": 7, "workers": 0,
        "cost_limit": 2, "progress": False, "record": True,
    } | settings  # fmt: skip
    return evaluate(policy or Pull(), **settings)


@pytest.fixture(scope="module")
def report():
    return recorded()


def test_the_worst_and_the_median_episode_are_shown_under_the_worst_attack_and_none(report):
    worst = report.worst_attack()
    costs = report.of_attack(worst)["cost"].to_numpy()
    assert {path.attack for path in report.paths} == {"natural", worst}
    assert [path.role for path in report.paths] == ["worst", "worst", "median", "median"][
        :: 1 if worst != "natural" else 2
    ]
    for path in report.paths:
        if path.attack == worst:
            chosen = costs.max() if path.role == "worst" else np.sort(costs)[len(costs) // 2]
            assert path.costs.sum() == chosen


@pytest.mark.parametrize("max_rows", [7, 3])
def test_paths_are_the_episodes_of_the_table(max_rows):
    report = recorded(max_rows=max_rows)
    assert report.paths
    for path in report.paths:
        row = report.of_attack(path.attack).set_index("episode").loc[path.episode]
        assert (path.rewards.sum(), path.costs.sum()) == (
            pytest.approx(row["reward"], rel=1e-12, abs=1e-12),
            row["cost"],
        )
        assert len(path.true) == len(path.seen) == len(path.actions) == row["length"]
        moved = np.abs(path.seen - path.true)
        assert moved.max() <= EPSILON * (1 + 1e-5)
        assert (moved.max() > 0) == (path.attack != "natural")
        # The recorded actions lead through the recorded states.
        env = make_point()
        observation, _ = env.reset(seed=int(row["seed"]))
        for true, action in zip(path.true, path.actions, strict=True):
            assert observation.tolist() == true.tolist()
            observation, *_ = env.step(np.clip(action, -2, 2))


def test_recording_changes_no_number(report):
    plain = recorded(record=False)
    assert plain.paths == ()
    pd.testing.assert_frame_equal(report.episodes, plain.episodes, check_exact=True)


def test_ties_are_broken_by_return_and_one_episode_is_enough():
    episodes = pd.DataFrame(
        {"attack": "mad", "episode": range(4), "reward": [3.0, 1.0, 2.0, 0.0], "cost": [5, 5, 1, 0]}
    )
    assert episodes_to_show(episodes, attack="mad") == {1: "worst", 2: "median"}
    assert episodes_to_show(episodes[:1], attack="mad") == {0: "worst"}


def test_a_policy_that_does_not_answer_the_same_twice_is_not_recorded():
    calls = itertools.count()
    with pytest.raises(SaferOfflineError, match="does not answer the same twice"):
        recorded(lambda observation: [0.0, float(np.sin(next(calls)))], attacks="natural")


def test_files(report, tmp_path):
    names = {file.name for file in save(report, tmp_path)}
    assert {"paths.npz", "paths.png", "paths.svg"} <= names
    with np.load(tmp_path / "paths.npz") as archive:
        path = report.paths[0]
        assert archive[f"worst/{path.attack}/seen"].tolist() == path.seen.tolist()
        assert archive[f"worst/{path.attack}/episode"] == path.episode
        assert len(archive.files) == 7 * len(report.paths)
    assert as_npz(report.paths) == (tmp_path / "paths.npz").read_bytes()
    assert not {file.name for file in save(recorded(record=False), tmp_path / "plain")} & {
        "paths.npz",
        "paths.svg",
    }


@pytest.mark.parametrize("env_id", ["SafetyCarCircle-v0", "SafetyBallRun-v0", TOY])
def test_figures_show_the_unsafe_region_where_it_is_known(report, env_id):
    figure = plot_paths(report.paths, plane_of(env_id), title=env_id)
    roles = len({path.role for path in report.paths})
    assert len(figure.axes) == (1 if env_id == TOY else 2) * roles
    shaded = [patch for axes in figure.axes for patch in axes.patches]
    assert len(shaded) == (0 if env_id == TOY else 2 * roles)
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize(
    "env_id", ["SafetyCarCircle-v0", "SafetyDroneRun-v0", "SafetyAntCircle-v0"]
)
def test_planes_are_where_the_robot_is(env_id):
    plane = plane_of(env_id)
    environment = EnvironmentSource(name=env_id).make()
    observation = environment.reset(3)
    place = environment._environment.robot.position[:2]
    assert plane.unit * observation[[plane.x, plane.y]] == pytest.approx(place, abs=1e-5)
    assert plane.unit == ROOM
    assert plane.limits == ((X_LIMIT, None) if "Circle" in env_id else (None, Y_LIMIT))
    environment.close()
