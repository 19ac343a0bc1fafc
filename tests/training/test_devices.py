"""Training on a GPU, on a simulated one: every algorithm is there what it is on the CPU."""

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from simulated_device import OnGPU, simulated_gpu
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from safer_offline import load_policy
from safer_offline.cli.main import main
from safer_offline.errors import UsageError
from safer_offline.interruption import Interrupted
from safer_offline.learners import ALGORITHMS, SimpleLearner
from safer_offline.learners.cpq import CPQ
from safer_offline.policies.gaussian import gaussian_nll
from safer_offline.policies.layers import gradient_step
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.settings import settings_of
from safer_offline.training import loop
from safer_offline.training.checkpoints import load_checkpoint, save_checkpoint
from safer_offline.training.devices import device_named
from safer_offline.training.loop import train

# The E-step after so few steps is no good, which plays no part here.
pytestmark = pytest.mark.filterwarnings("ignore:few episodes stay within", "ignore:in .* E-steps")


@pytest.fixture(autouse=True)
def _one_kernel_of_attention():
    """The one that PyTorch takes where it does not know the device."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


SMALL = {
    "hidden_sizes": (8, 8),
    "critic_hidden_sizes": (8, 8),
    "vae_hidden_size": 8,
    "sampled_actions": 3,
    "batch_size": 16,
    "cost_limit": 2.0,
    "width": 20.0,
    "attack_steps": 1,
    "candidates": 3,
    "embedding_size": 8,
    "sequence_length": 4,
    "recovery_states": 50,
    "mstep_iterations": 2,
    "episode_share": 0.2,
}
STEPS, HALF = 6, 4

WITH_MISH = ("fisor", {"adversarial_weight": 0.0})
"""PyTorch has another formula of Mish's gradient where it does not know the device."""

CASES = [
    WITH_MISH,
    *((name, {"adversarial_weight": 1.0}) for name in ALGORITHMS if name != "fisor"),
    ("fisor", {"adversarial_weight": 1.0, "actor": "gaussian"}),
    ("bc", {"adversarial_weight": 1.0, "robustness": "noise", "epsilon_units": "std"}),
    ("bear-lag", {"adversarial_weight": 1.0, "robustness": "kl"}),
    ("caps", {"adversarial_weight": 0.0, "standardize": False}),
    ("cdt", {"dropout": 0.0, "stochastic": False}),
    ("coptidice", {"cost_slack": 0.0, "attack_critics": False}),
    ("cpq", {"push": "none", "unlikely_actions": "unsquashed"}),
    ("fisor", {"actor": "gaussian", "violation_of": "sum"}),
    ("safer", {"estep_solver": "cvxpy"}),
    ("safer", {"foretold": (2, 6), "adversarial_weight": 0.0, "recovery_weight": 0.0}),
    ("safer-paper", {"anchor": "policy", "trust_region": "penalised"}),
]


def small(name, settings):
    kind = ALGORITHMS.get(name).Config
    known = settings_of(kind)
    return kind(**{key: value for key, value in (SMALL | settings).items() if key in known})


def tensors(tree):
    """All tensors of a state."""
    if isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(item)
    elif isinstance(tree, torch.Tensor):
        yield tree


def without_estep(state):
    """A state without the E-step's answer, which says what to sample; that is done on the CPU."""
    imitation = state.get("imitation") or {}
    return state | {"imitation": {name: imitation[name] for name in imitation if name != "answer"}}


def updated(learner, step):
    while learner.step < step:
        losses = learner.update()
    return losses


def on_cpu(losses):
    return {name: torch.as_tensor(loss).cpu() for name, loss in losses.items()}


def through_a_file(state, tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    return load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_algorithm_is_the_same_there_and_changes_devices(points, tmp_path, name, settings):
    def learner(**device):
        return ALGORITHMS.get(name)(small(name, settings), points, steps=STEPS, seed=3, **device)

    def assert_same(found, wanted):
        close = {"rtol": 1e-3, "atol": 1e-5} if (name, settings) == WITH_MISH else {}
        pairs = zip(tensors(found), tensors(wanted), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, **(close or {"rtol": 0, "atol": 0}))

    at_home = learner()
    updated(at_home, HALF)
    half = through_a_file(at_home.state_dict(), tmp_path)
    wanted_losses = on_cpu(updated(at_home, STEPS))
    with simulated_gpu():
        abroad = learner(device="cuda:0")
        updated(abroad, HALF)
        at_home_still = [
            one
            for one in tensors(without_estep(abroad.state_dict()))
            if one.is_floating_point() and one.ndim and not isinstance(one, OnGPU)
        ]
        assert not at_home_still  # but for optimisers' counts of steps
        half_abroad = through_a_file(abroad.state_dict(), tmp_path)
        assert_same(half_abroad, half)
        assert_same(on_cpu(updated(abroad, STEPS)), wanted_losses)
        immigrant = learner(device="cuda:0")
        immigrant.load_state_dict(half)
        updated(immigrant, STEPS)
        policies = [one.policy() for one in (abroad, immigrant)]
        policies[0].save(tmp_path / POLICY_FILE)
    returned = learner()
    returned.load_state_dict(half_abroad)
    updated(returned, STEPS)
    for policy in (*policies, returned.policy(), load_policy(tmp_path)):
        assert not any(isinstance(one, OnGPU) for one in policy.state_dict().values())
        assert_same(policy.state_dict(), at_home.policy().state_dict())


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_on_another_device_in_the_middle_of_a_line(
    points, tmp_path, monkeypatch, first, second
):
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 6)
    learn = CPQ.learn

    def run(out, **options):
        config = small("cpq", {})
        return train(config, points, out=tmp_path / out, steps=9, progress=False, **options)

    def interrupted(self):
        if self.step == 7:
            raise KeyboardInterrupt
        return learn(self)

    whole = run("whole")
    with simulated_gpu():
        monkeypatch.setattr(CPQ, "learn", interrupted)
        with pytest.raises(Interrupted):
            run("halved", device=first)
        monkeypatch.setattr(CPQ, "learn", learn)
        halved = run("halved", device=second, resume=True)
    for name in (POLICY_FILE, "metrics.csv"):
        assert (halved.directory / name).read_bytes() == (whole.directory / name).read_bytes()
    told = json.loads((halved.directory / "config.json").read_text())
    assert told["device"] == {"cpu": "cpu", "cuda": "cuda:0"}[second]
    assert load_file(halved.directory / POLICY_FILE).keys() == whole.policy.state_dict().keys()


# -------------------------------------------------------------- algorithms of others


@dataclass(frozen=True, kw_only=True)
class OwnConfig:
    rate: float = 1e-2


class Own(SimpleLearner[OwnConfig]):
    """As in CONTRIBUTING.md: it knows nothing of devices."""

    name = "own"
    Config = OwnConfig

    def build(self):
        self.actor = self.gaussian_policy((8,))
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=self.config.rate)
        self.batches = self.sampler("observations", "actions", batch_size=16)

    def learn(self):
        batch = self.batches.sample()
        loss = gaussian_nll(batch["actions"], *self.actor(batch["observations"])).mean()
        gradient_step(self.optimizer, loss, max_norm=10.0)
        return {"nll": loss.detach()}

    def policy(self):
        return self.trained_policy(self.actor)


class Growing(Own):
    """It remembers more and more, and tensors in lists and dicts."""

    def build(self):
        super().build()
        self.seen = []
        self.kept = {"nested": (torch.zeros(2), [nn.Parameter(torch.ones(3))])}
        self.alias = self.kept["nested"][1]

    def learn(self):
        losses = super().learn()
        self.seen = [*self.seen, losses["nll"]]
        with torch.no_grad():
            self.alias[0] += 1
        zeros, (ones,) = self.kept["nested"]
        return losses | {"mean": torch.stack(self.seen).mean(), "kept": zeros.sum() + ones.sum()}


class Hidden(Own):
    """Its optimiser moves a tensor that would be replaced."""

    def build(self):
        super().build()
        self.temperature = torch.zeros(())
        self.second = {"of": [torch.optim.Adam([self.temperature])]}


class AtHome(Own):
    """Its constructor is from before there were devices."""

    def __init__(self, config, dataset, *, steps, seed):
        super().__init__(config, dataset, steps=steps, seed=seed)


@pytest.mark.parametrize("kind", [Own, Growing])
def test_algorithms_of_others_need_not_know_of_devices(points, tmp_path, kind):
    here = kind(OwnConfig(), points, steps=4, seed=0)
    updated(here, 2)
    half = through_a_file(here.state_dict(), tmp_path)
    wanted = on_cpu(updated(here, 4))
    with simulated_gpu():
        there = kind(OwnConfig(), points, steps=4, seed=0, device="cuda:0")
        there.load_state_dict(half)
        losses = updated(there, 4)
        assert all(isinstance(loss, OnGPU) for loss in losses.values())
        assert on_cpu(losses) == wanted
        assert there.policy().fingerprint == here.policy().fingerprint


def test_what_would_silently_not_be_learned_is_refused(points):
    with simulated_gpu(), pytest.raises(UsageError, match=r"Hidden moves.*Parameter.*--device"):
        Hidden(OwnConfig(), points, steps=4, seed=0, device="cuda:0")
    Hidden(OwnConfig(), points, steps=4, seed=0).update()


def test_an_algorithm_that_takes_no_device_is_refused_there_and_works_here(points, tmp_path):
    def run(**device):
        train(
            OwnConfig(), points, out=tmp_path, algorithm=AtHome, steps=2, progress=False, **device
        )

    with simulated_gpu(), pytest.raises(UsageError, match="own can only learn on the CPU"):
        run(device="cuda")
    assert not any(tmp_path.iterdir())
    run(device="cpu")


# -------------------------------------------------------------- which devices there are


def test_names_of_devices(monkeypatch):
    assert device_named("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("cuda") == device_named(torch.device("cuda:0")) == torch.device("cuda:0")
    assert device_named("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match=r"no device 'cuda:2'.*there are cpu, cuda:0, cuda:1$"):
        device_named("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "mps", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "CUDA", ""])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(UsageError, match="say cpu, or cuda"):
        device_named(name)


@pytest.mark.parametrize(("built", "says"), [(True, "nvidia-smi"), (False, "built without CUDA")])
def test_without_a_gpu_it_says_what_is_missing(monkeypatch, built, says):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    with pytest.raises(UsageError, match=f"there is only cpu: .*{says}.*leave --device out|Leave"):
        device_named("cuda")


def test_the_command_line_says_so_before_it_reads_anything(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("sys.argv", ["safer-offline", "train", "no_file.h5", "--device", "cuda:1"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "there is no device 'cuda:1' on this machine, there is only cpu" in told
    assert "no_file" not in told


# -------------------------------------------------------------- the simulation itself


def refused(message, function):
    with pytest.raises((RuntimeError, TypeError), match=message):
        function()


def test_the_simulated_gpu_refuses_what_a_gpu_refuses():
    here, generator = torch.ones(2, 3), torch.Generator()
    with simulated_gpu():
        there = torch.zeros(2, 3, device="cuda")
        for one in (there, there[0], torch.ones(2).to(there), there.new_ones(1)):
            assert one.device == torch.device("cuda:0")
        refused("same device", lambda: there + here)
        refused("same device", lambda: there @ here.T)
        refused("same device", lambda: torch.where(there > 0, there, here))
        refused("same device", lambda: nn.Linear(3, 1)(there))
        refused("same device", lambda: torch.cat([there, here]))
        refused("same device", lambda: torch.stack([there.sum(), here.sum()]))
        refused("same device", lambda: here.add_(there))
        refused("random", lambda: there.normal_(generator=generator))
        refused("random", lambda: torch.rand(3, device="cuda", generator=generator))
        refused("random", lambda: torch.randn(3, device="cuda"))
        refused("random", lambda: nn.functional.dropout(there, 0.5))
        refused("random", lambda: torch.multinomial(there + 1, 2))
        refused("numpy", there.numpy)
        assert torch.equal((there + here.sum()).cpu(), here * 6)
        there[torch.tensor([0])] = here[:1].to(there)
        assert there.tolist() == [[1.0] * 3, [0.0] * 3]
        view = there[1]
        view += 2
        assert float(there.sum()) == 9
        assert there.copy_(here).cpu().equal(here)
