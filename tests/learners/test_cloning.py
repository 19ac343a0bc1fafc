"""Behaviour cloning: against OSRL's own update, whose episodes it clones, and under attack."""

import copy
import dataclasses
import importlib
import types

import numpy as np
import pytest
import torch
from beside_osrl import osrl

from safer_offline import BCConfig, BCSafeConfig, load_policy, train
from safer_offline.attacks import MAD, RowNoise
from safer_offline.errors import DataError, UsageError
from safer_offline.learners.cloning import (
    BC,
    BCBoundary,
    BCFrontier,
    BCMultiTask,
    BCMultiTaskConfig,
    BCRisky,
    BCSafe,
)

SMALL = {"hidden_sizes": (16, 16), "batch_size": 32}
MODES = {
    BCSafe: "safe", BCRisky: "risky", BCBoundary: "boundary", BCFrontier: "frontier",
}  # fmt: skip


def cloned(kind, dataset, *, steps=60, **settings):
    learner = kind(kind.Config(**SMALL | settings), dataset, steps=steps, seed=0)
    losses = [learner.update() for _ in range(steps)]
    return learner, losses


def test_it_is_osrl_s_update(points, monkeypatch):
    """The same weights and the same batches: the same losses and the same actions after them."""
    bc = osrl("bc", monkeypatch)
    learner = BC(BCConfig(loss="mse", **SMALL), points, steps=50, seed=0)
    learner.actor.observations.mean.zero_()
    learner.actor.observations.std.fill_(1)  # OSRL does not standardise
    theirs = bc.BC(2, 2, 1.0, [16, 16])
    theirs.setup_optimizers(learner.config.learning_rate)
    layers = [part for part in theirs.actor.pi if isinstance(part, torch.nn.Linear)]
    ours = [part for part in learner.actor.network if isinstance(part, torch.nn.Linear)]
    with torch.no_grad():
        for one, other in zip(layers, ours, strict=True):
            one.weight.copy_(other.weight[: len(one.weight)])
            one.bias.copy_(other.bias[: len(one.bias)])
    batches = copy.deepcopy(learner.batches)
    for _ in range(50):
        batch = batches.sample()
        loss, _ = theirs.actor_loss(batch["observations"], batch["actions"])
        assert float(learner.update()["mse"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    with torch.no_grad():
        expected = theirs.actor(points.observations)
        torch.testing.assert_close(learner.actor(points.observations)[0], expected)


class Pareto:
    """What OSRL asks of the package that finds nondominated points, by comparing all pairs."""

    def __init__(self):
        self.points = []

    def addvalue(self, values, number):
        self.points.append(values)

    def show(self, verbose):
        pass

    def allindices(self):
        points = np.array(self.points)
        beaten = (points[None] >= points[:, None]).all(-1) & (points[None] > points[:, None]).any(
            -1
        )
        return np.flatnonzero(~beaten.any(1))


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_mode_clones_the_episodes_that_osrl_s_does(kind, seed, monkeypatch):
    pytest.importorskip("osrl")
    dataset = importlib.import_module("osrl.common.dataset")
    package = types.SimpleNamespace(ParetoDoubleLong=Pareto, doubleVector=tuple)
    monkeypatch.setattr(dataset, "oapackage", package, raising=False)
    episodes, length, limit = 80, 5, 6.0
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.integers(0, 25, episodes))
    returns = 10 * np.sqrt(costs) + rng.normal(0, 8, episodes)
    ends = np.arange(1, episodes * length + 1) % length == 0
    arrays = {
        "observations": np.repeat(np.arange(episodes, dtype=np.float32), length)[:, None],
        "actions": np.zeros((episodes * length, 1), np.float32),
        "costs": np.repeat(costs, length) * ends * 1.0,
        "rewards": np.repeat(returns, length) * ends,
        "terminals": np.zeros_like(ends),
        "timeouts": ends,
    }
    dataset.process_bc_dataset(arrays, limit, 1.0, MODES[kind])
    theirs = np.unique(arrays["observations"]).astype(int)
    learner = types.SimpleNamespace(
        config=kind.Config() if kind is BCFrontier else kind.Config(cost_limit=limit),
        dataset=types.SimpleNamespace(path=None),
    )
    learner._require_some = types.MethodType(kind._require_some, learner)
    ours = np.flatnonzero(kind.choose(learner, costs * 1.0, returns))
    assert 0 < len(ours) < episodes
    assert ours.tolist() == theirs.tolist()


def test_a_policy_that_is_told_the_cost_does_what_is_done_at_that_cost(points):
    costs = torch.tensor(points.episodes["cost"].to_numpy())[points.episode_index]
    pull = torch.where(costs > 0, 0.5, -0.5).float()
    # Where episodes are says nothing now, and what they cost says everything.
    told = dataclasses.replace(
        points,
        observations=points.observations.roll(7, 0),
        actions=torch.stack([pull, points.actions[:, 1]], 1),
    )
    learner, _ = cloned(BCMultiTask, told, steps=300, cost_limit=0.0)
    cheap = learner.policy()
    dear = cheap.aimed_at(target_cost=float(costs.max()))
    start = np.zeros((1, 2), np.float32)
    assert cheap.predict(start)[0, 0] < -0.3
    assert dear.predict(start)[0, 0] > 0.3
    assert dear.fingerprint != cheap.fingerprint
    with pytest.raises(UsageError, match="has no target_return; it can be told target_cost"):
        cheap.aimed_at(target_return=3.0)


def test_weights_that_leave_nothing_are_refused_with_the_remedy(make_points):
    dear = make_points(lanes=(0.6,))
    with pytest.raises(DataError, match=r"weighting=cost .*\n.*raise cost_cap \(5\) above 20"):
        BC(BCConfig(weighting="cost", cost_cap=5.0, **SMALL), dear, steps=2, seed=0)


def test_safe_cloning_sees_safe_episodes_alone_and_all_of_their_rows(points):
    learner, _ = cloned(BCSafe, points, cost_limit=0.0, steps=1)
    safe = points.select_episodes((points.episodes["cost"] == 0).to_numpy())
    assert 0 < safe.num_episodes < points.num_episodes
    rows = {tuple(row) for row in safe.observations.tolist()}
    seen = {
        tuple(row) for _ in range(400) for row in learner.batches.sample()["observations"].tolist()
    }
    assert seen == rows


def test_it_imitates(points):
    learner, losses = cloned(BC, points, steps=400)
    assert losses[-1]["nll"] < losses[0]["nll"] - 1
    actions = learner.policy().predict(points.observations.numpy())
    assert np.abs(actions - points.actions.numpy()).mean() < 0.15


def deviation(policy, points):
    """How far the strongest MAD attack moves the mean action."""
    observations = points.observations[:200]
    epsilon = torch.full((2,), 0.3)
    attacked = MAD(steps=10, restarts=2).perturb(
        policy, observations, epsilon=epsilon, noise=RowNoise.seeded(0, "mad", range(200))
    )
    clean, moved = (policy.action_distribution(x)[0] for x in (observations, attacked))
    return float((clean - moved).norm(dim=1).mean())


@pytest.mark.parametrize("loss", ["nll", "mse"])
@pytest.mark.parametrize("robustness", ["attack", "kl"])
def test_attacked_observations_make_it_steadier(points, loss, robustness):
    plain, _ = cloned(BC, points, steps=300, loss=loss)
    robust, losses = cloned(
        BC,
        points,
        steps=300,
        loss=loss,
        robustness=robustness,
        adversarial_weight=3.0,
        epsilon=0.3,
        ramp_share=0.0,
    )
    assert f"{loss}_attacked" in losses[0]
    assert deviation(robust.policy(), points) < 0.8 * deviation(plain.policy(), points)


@pytest.mark.parametrize(
    "config",
    [
        BCConfig(**SMALL, adversarial_weight=1.0),
        BCSafeConfig(**SMALL, weighting="density"),
        BCMultiTaskConfig(**SMALL, adversarial_weight=1.0),
    ],
)
def test_it_trains_to_a_policy_file_and_resumes(points, tmp_path, config):
    for name in ("one", "two"):
        train(config, points, out=tmp_path / name, steps=30, progress=False)
    (tmp_path / "two" / "policy.safetensors").unlink()
    train(config, points, out=tmp_path / "two", steps=30, resume=True, progress=False)
    one, two = ((tmp_path / n / "policy.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two
    policy = load_policy(tmp_path / "one")
    assert policy.critics == ()
    assert policy.cost_limit == getattr(config, "cost_limit", None)


def test_a_state_goes_on_where_it_was_taken(points):
    settings = {"adversarial_weight": 1.0}
    learner, _ = cloned(BC, points, steps=20, **settings)
    other = BC(learner.config, points, steps=20, seed=0)
    half = BC(learner.config, points, steps=20, seed=0)
    for _ in range(7):
        half.update()
    other.load_state_dict(copy.deepcopy(half.state_dict()))
    while other.step < 20:
        other.update()
    for name, tensor in learner.policy().state_dict().items():
        assert torch.equal(other.policy().state_dict()[name], tensor)


def test_without_a_safe_episode_there_is_nothing_to_clone(make_points):
    points = make_points(lanes=(0.6,))
    with pytest.raises(DataError, match=r"no episode keeps .*\n.*--cost-limit 20"):
        BCSafe(BCSafeConfig(cost_limit=3.0, **SMALL), points, steps=2, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"adversarial_weight": -1}, {"learning_rate": 0}, {"batch_size": 0}, {"attack_steps": 0},
        {"ramp_share": 2}, {"cost_cap": 0}, {"robustness": "none"},
        {"cost_limit": -1}, {"cost_limit": float("nan")},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BCSafeConfig(**wrong)
