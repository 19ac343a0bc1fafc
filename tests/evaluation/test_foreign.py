"""Policies that are not ours: functions, networks, models of Stable-Baselines3."""

import json
import subprocess
import sys

import gymnasium
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from safer_offline import CriticSettings, evaluate
from safer_offline.attacks import MAD, GeneratorNoise, Search
from safer_offline.datasets.behaviors.learned.stable_baselines import stable_baselines
from safer_offline.datasets.behaviors.scripted.circle import CarDriver, ClippedCircle
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import CheckpointError, DataError, UsageError
from safer_offline.evaluation.foreign import foreign_policy
from safer_offline.evaluation.foreign_files import load_foreign

SOURCE = EnvironmentSource(name="ball-run", max_episode_steps=12)
EPSILON = torch.full((7,), 0.05)

DRIVER = CarDriver(
    path=ClippedCircle(radius=7.0, margin=1.0, lookahead=3.0),
    throttle=1.0,
    steering_gain=3.0,
    damping=0.2,
    slowing=0.1,
    reverse=True,
)


class Network(nn.Module):
    """Steep in one coordinate, and blind to the others."""

    def forward(self, observations):
        return torch.stack([10 * observations[:, 1], 0 * observations[:, 0]], dim=1)


def slope(observation):
    return [10 * float(observation[1]), 0.0]


def observations(rows=16):
    return 0.01 * torch.randn(rows, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    """One model of Stable-Baselines3 of each kind of policy, untrained."""
    package = stable_baselines("this test")
    environment = gymnasium.make("safer_offline/SafetyBallRun-v0")
    return {
        name: getattr(package, name)(
            "MlpPolicy", environment, policy_kwargs={"net_arch": [16]}, seed=0, device="cpu"
        )
        for name in ("PPO", "SAC", "TD3")
    }


def test_a_driver_is_attacked_in_simulation_without_gradients():
    """The scripted driver of our own data, which nobody made robust."""
    with pytest.warns(UserWarning, match="'search' goes in their place"):
        report = evaluate(
            DRIVER, env="car-circle", cost_limit=10, episodes=4, workers=0, progress=False
        )
    cost = report.episodes.groupby("attack")["cost"].mean()
    assert list(report.attacks) == ["natural", "uniform", "gaussian", "search"]
    assert cost["natural"] < 5
    assert cost["search"] > cost["uniform"] + 10


@pytest.mark.parametrize("name", ["PPO", "SAC", "TD3"])
def test_a_model_of_stable_baselines_acts_as_its_own_predict_and_passes_gradients_on(models, name):
    policy = foreign_policy(models[name], SOURCE)
    seen = observations()
    expected, _ = models[name].predict(seen.numpy(), deterministic=True)
    np.testing.assert_allclose(policy.predict(seen.numpy()), expected, atol=1e-6)

    leaf = seen.clone().requires_grad_()
    policy.action_distribution(leaf)[0].sum().backward()
    assert policy.differentiable
    assert (leaf.grad.abs().sum(dim=1) > 0).all()


def test_an_archive_meets_the_attacks_that_need_no_critic(models, tmp_path):
    models["PPO"].save(tmp_path / "ppo.zip")
    model, digest = load_foreign(str(tmp_path / "ppo.zip"))
    with pytest.warns(UserWarning, match="left out: amad, mc, mr, for the policy has no critic"):
        report = evaluate(model, env=SOURCE, episodes=2, workers=0, progress=False)
    assert list(report.attacks) == ["natural", "uniform", "gaussian", "mad"]
    assert len(digest) == 64


@pytest.mark.parametrize("name", ["PPO", "TD3"])
def test_critics_are_fitted_to_models_of_stable_baselines(models, name):
    report = evaluate(
        models[name],
        env=SOURCE,
        attacks="mc,mr",
        attack_set=["mc.steps=2", "mr.steps=2"],
        critics="rollouts",
        critic_settings=CriticSettings(updates=10, hidden_sizes=(8,), episodes=4),
        episodes=1,
        workers=0,
        progress=False,
    )
    assert list(report.attacks) == ["mc@rollouts", "mr@rollouts"]
    assert report.critics["rollouts"]["transitions"] == 4 * 12


def test_networks_functions_and_models_of_the_same_policy_are_the_same():
    class Model:
        def predict(self, batch):
            return np.stack([slope(row) for row in batch])

    seen = observations()
    answers = [
        foreign_policy(one, SOURCE).predict(seen.numpy())
        for one in (Network(), slope, Model(), torch.jit.script(Network()))
    ]
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)
        assert answer.dtype == np.float32
    assert (foreign_policy(slope, SOURCE).predict(100 * seen.numpy()) <= 1).all()


def write_onnx(path, *, rows, kind=onnx.TensorProto.FLOAT, columns=7):
    """`slope` without its clipping, in ONNX's format."""
    weight = np.zeros((columns, 2), onnx.helper.tensor_dtype_to_np_dtype(kind))
    weight[1, 0] = 10
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["seen", "weight"], ["action"])],
        "policy",
        [onnx.helper.make_tensor_value_info("seen", kind, [rows, columns])],
        [onnx.helper.make_tensor_value_info("action", kind, [rows, 2])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
@pytest.mark.parametrize("rows", ["batch", 1])
def test_a_model_of_onnx_acts_as_what_it_was_made_from(rows, kind, tmp_path):
    write_onnx(tmp_path / "policy.onnx", rows=rows, kind=kind)
    model, digest = load_foreign(str(tmp_path / "policy.onnx"))
    policy, seen = foreign_policy(model, SOURCE, fingerprint=digest), observations()
    assert not policy.differentiable
    expected = foreign_policy(slope, SOURCE).predict(seen.numpy())
    np.testing.assert_allclose(policy.predict(seen.numpy()), expected, atol=1e-6)
    with pytest.warns(UserWarning, match="'search' goes in their place"):
        report = evaluate(policy, env=SOURCE, episodes=1, workers=0, progress=False)
    assert list(report.attacks) == ["natural", "uniform", "gaussian", "search"]


def test_a_model_of_onnx_that_cannot_be_asked_says_why(tmp_path, monkeypatch):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is no ONNX model"):
        load_foreign(str(path))
    write_onnx(path, rows=8)
    with pytest.raises(CheckpointError, match=r"(?s)batches of 8 observations only.*dynamic_axes"):
        load_foreign(str(path))
    write_onnx(path, rows="batch", columns=5)
    with pytest.raises(UsageError, match="the policy failed"):
        foreign_policy(load_foreign(str(path))[0], SOURCE).predict(observations().numpy())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'safer-offline\[onnx\]'"):
        load_foreign(str(path))


def test_an_exported_program_is_attacked_by_its_gradients(tmp_path):
    free = ({0: torch.export.Dim("rows")},)
    example = (torch.zeros(2, 7),)
    torch.export.save(
        torch.export.export(Network(), example, dynamic_shapes=free), tmp_path / "policy.pt2"
    )
    policy = foreign_policy(load_foreign(str(tmp_path / "policy.pt2"))[0], SOURCE)
    seen = observations()
    expected = foreign_policy(Network(), SOURCE).predict(seen.numpy())
    np.testing.assert_allclose(policy.predict(seen.numpy()), expected, atol=1e-6)
    leaf = seen.clone().requires_grad_()
    policy.action_distribution(leaf)[0].sum().backward()
    assert (leaf.grad[:, 1] == 10).all()

    torch.export.save(torch.export.export(Network(), example), tmp_path / "stiff.pt2")
    stiff = foreign_policy(load_foreign(str(tmp_path / "stiff.pt2"))[0], SOURCE)
    with pytest.raises(UsageError, match="batches of any size"):
        stiff.predict(seen.numpy())
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"no program of torch\.export"):
        load_foreign(str(tmp_path / "broken.pt2"))


def test_an_environment_that_is_made_already_is_made_again():
    settings = {"attacks": "natural,uniform", "episodes": 2, "workers": 0, "progress": False}
    made = gymnasium.make("toy_environments:ToyPoint-v0", border=0.0)
    report = evaluate(lambda seen: [0.5, 0.0], env=made, cost_limit=3, **settings)
    assert report.plan.context.kwargs == {"border": 0.0}
    source = EnvironmentSource(name="toy_environments:ToyPoint-v0", kwargs={"border": 0.0})
    named = evaluate(lambda seen: [0.5, 0.0], env=source, cost_limit=3, **settings)
    assert report.episodes["cost"].tolist() == named.episodes["cost"].tolist()
    ours = gymnasium.make("safer_offline/SafetyBallRun-v0", max_episode_steps=7)
    assert (evaluate(slope, env=ours, **settings).episodes["length"] == 7).all()
    for env, told in (
        (made.unwrapped.__class__(), "did not come from gymnasium.make"),
        (gymnasium.wrappers.ClipAction(made), "was wrapped afterwards"),
    ):
        with pytest.raises(UsageError, match=told):
            evaluate(slope, env=env, **settings)


def test_search_finds_what_gradients_find_and_keeps_the_budget():
    policy, clean = foreign_policy(Network(), SOURCE), observations()
    reached = {}
    for attack in (Search(), MAD()):
        noise = GeneratorNoise(torch.Generator().manual_seed(0))
        seen = attack.perturb(policy, clean, epsilon=EPSILON, noise=noise)
        assert ((seen - clean).abs() <= EPSILON).all()
        difference = policy.predict(seen.numpy()) - policy.predict(clean.numpy())
        reached[attack.name] = np.abs(difference).sum(axis=1)
    np.testing.assert_allclose(reached["search"], reached["mad"], rtol=1e-4)
    np.testing.assert_allclose(reached["search"], 0.5, rtol=1e-4)


def test_more_queries_never_find_less_from_the_same_start():
    policy, clean = foreign_policy(Network(), SOURCE), observations()
    start = torch.zeros_like(clean)

    def reached(queries):
        noise = GeneratorNoise(torch.Generator().manual_seed(3))
        attack = Search(queries=queries)
        seen = attack.perturb(policy, clean, epsilon=EPSILON, noise=noise, previous=start)
        return (policy.predict(seen.numpy()) - policy.predict(clean.numpy())) ** 2

    assert (reached(1) == 0).all()
    assert (reached(60).sum(axis=1) > 0).all()


@pytest.mark.parametrize(
    ("policy", "settings", "told"),
    [
        (slope, {"attacks": "mad"}, "passes none on: take 'search'"),
        (slope, {"attacks": "mc"}, "'mc' follows gradients"),
        (Network(), {"attacks": "mc"}, "asks the cost critic"),
        (slope, {"epsilon_units": "std"}, "knows no deviations"),
        (slope, {"env": None}, "name it with env="),
        (CarDriver, {}, "is no policy"),
        (3, {}, "a int is no policy"),
        (lambda observation: "left", {}, "must return numbers, but returned 'left'"),
        (lambda observation: 1 / 0, {}, "the policy failed: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(policy, settings, told):
    given = {"env": SOURCE, "attacks": "natural", "episodes": 1, **settings}
    with pytest.raises(UsageError, match=told):
        evaluate(policy, workers=0, progress=False, **given)


def test_an_action_of_the_wrong_size_is_named():
    with pytest.raises(DataError, match=r"shape \(1, 3\), not \(1, 2\)"):
        evaluate(
            lambda observation: [0, 0, 0],
            env=SOURCE, attacks="natural", episodes=1, workers=0, progress=False,
        )  # fmt: skip


def command(*arguments, cwd):
    code = "from safer_offline.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_attacks_a_function(tmp_path):
    (tmp_path / "slopes.py").write_text(
        "def steep(observation):\n    return [10 * observation[1], 0]\n"
        "def flat(observation):\n    return [0.1, 0]\n"
    )
    short = "--env", "ball-run", "--episodes", "1", "--max-episode-steps", "5", "--workers", "0"
    for name in ("steep", "flat"):
        done = command("evaluate", f"slopes:{name}", *short, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    reports = [json.loads(p.read_text()) for p in tmp_path.glob("evaluations/*/evaluation.json")]
    assert len(reports) == 2, "neither replaced the other"


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("json:loads", 2, "name it with --env"),
        ("json:load5 --env ball-run", 2, "the nearest known one is 'load'"),
        ("no.pt --env ball-run", 1, "no TorchScript"),
        ("absent.zip --env ball-run", 2, "there is no file absent.zip"),
    ],
)
def test_the_command_line_says_what_is_no_policy(name, code, told, tmp_path):
    (tmp_path / "no.pt").write_bytes(b"nothing")
    done = command("evaluate", *name.split(), cwd=tmp_path)
    assert done.returncode == code
    assert told in " ".join(done.stderr.split())
