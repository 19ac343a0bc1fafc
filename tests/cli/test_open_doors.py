"""A learner and an attack in a file of one's own: nothing else is touched."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

from safer_offline import load_policy
from safer_offline.cli.main import main
from safer_offline.datasets import collect
from safer_offline.learners import SAFER

MINE = '''
from dataclasses import dataclass

import torch

from safer_offline.attacks import Attack
from safer_offline.learners.simple import SimpleLearner
from safer_offline.policies.gaussian import gaussian_nll
from safer_offline.policies.layers import gradient_step


@dataclass(frozen=True, kw_only=True)
class CloningConfig:
    """Of cloning.

    Attributes:
        rate: Of learning.
    """

    rate: float = 1e-3
    hidden_sizes: tuple[int, ...] = (16, 16)


class Cloning(SimpleLearner[CloningConfig]):
    """Behaviour cloning of everybody."""

    name = "cloning"
    Config = CloningConfig

    def build(self):
        self.actor = self.gaussian_policy(self.config.hidden_sizes)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=self.config.rate)
        self.batches = self.sampler("observations", "actions", batch_size=32)

    def learn(self):
        batch = self.batches.sample()
        loss = gaussian_nll(batch["actions"], *self.actor(batch["observations"])).mean()
        gradient_step(self.optimizer, loss, max_norm=10.0)
        return {"nll": loss.detach()}

    def policy(self):
        return self.trained_policy(self.actor)


class Bias(Attack):
    """A sensor that is off by the whole budget, always to the same side.

    Args:
        side: 1 or -1.
    """

    name = "bias"

    def __init__(self, side: int = 1):
        self.side = side

    def perturb(self, target, observations, *, epsilon, noise, previous=None):
        return observations + self.side * epsilon
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somebody") / "with a space"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    collect("ball-circle", folder / "balls.h5", transitions=800, workers=1, progress=False)
    return folder


def run(*arguments, cwd):
    """The program as `python -m safer_offline`, in a folder of the user's."""
    return subprocess.run(
        [sys.executable, "-m", "safer_offline", *map(str, arguments)],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_learner_and_an_attack_of_ones_own(place):
    own = ("--algorithm", "mine:Cloning", "--set", "rate=0.002", "--steps", 150)
    done = run("train", "balls.h5", *own, cwd=place)
    assert done.returncode == 0, done.stderr
    # No E-step is told of, for there was none.
    assert "E-step" not in done.stdout
    assert "Next: safer-offline evaluate runs/balls-cloning" in done.stdout
    folder = place / "runs" / "balls-cloning"
    config = json.loads((folder / "config.json").read_text())
    assert (config["algorithm"], config["config"]["rate"]) == ("cloning", 0.002)
    policy = load_policy(folder)
    assert policy.info.algorithm == "cloning"
    assert policy.critics == ()

    attacks = ("--attacks", "natural,mine:Bias,left=mine:Bias", "--attack-set", "left.side=-1")
    rest = ("--episodes", 2, "--workers", 0, "--json")
    done = run("evaluate", "runs/balls-cloning", *attacks, *rest, cwd=place)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["attack"] for row in report["summary"]] == ["natural", "bias", "left"]
    assert report["attacks"]["left"]["side"] == -1
    used = {row["attack"]: row["budget_used"] for row in report["summary"]}
    assert np.allclose([used["natural"], used["bias"], used["left"]], [0, 1, 1], atol=1e-4)
    rewards = [row["reward_mean"] for row in report["summary"]]
    assert len(set(rewards)) == 3

    # "all" leaves out what this policy has no critics to answer, and says so.
    done = run("evaluate", "runs/balls-cloning", *rest, "--seed", 1, cwd=place)
    assert done.returncode == 0, done.stderr
    names = [row["attack"] for row in json.loads(done.stdout)["summary"]]
    assert names == ["natural", "uniform", "gaussian", "mad"]
    assert "left out: amad, mc, mr" in done.stderr


def test_a_policy_is_told_what_to_aim_at_when_it_is_evaluated(place, monkeypatch, capfd):
    config = ["--set", "hidden_sizes=16,16", "--set", "critic_hidden_sizes=16,16"]
    given = ["train", "balls.h5", "--algorithm", "caps", *config, "--steps", "20", "-o", "caps"]
    assert here(place, monkeypatch, capfd, given)[0] == 0
    evaluate = ["evaluate", "caps", "--attacks", "natural", "--episodes", "2", "--json"]
    found = []
    for options in ([], ["--aim", "target_cost=25"], ["--aim", "target_cost=25"]):
        limit = ["--cost-limit", "30"] if found[1:] else []
        code, printed, errors = here(place, monkeypatch, capfd, [*evaluate, *options, *limit])
        assert code == 0, errors
        found.append(json.loads(printed)["config"])
    assert [one["cost_limit"] for one in found] == [10, 25, 30]
    assert [one["aims"]["target_cost"] for one in found] == [10, 25, 25]
    told = load_policy(place / "caps").aimed_at(target_cost=25)
    assert found[1]["policy_sha256"] == told.fingerprint != found[0]["policy_sha256"]
    for wrong, words in (("target_cost", "no name=number"), ("target_speed=3", "told target_cost")):
        code, _, errors = here(place, monkeypatch, capfd, [*evaluate, "--aim", wrong])
        assert code == 2
        assert words in " ".join(errors.split())


def test_limit_and_budget_of_an_evaluation_are_told_to_who_can_be_told(place, monkeypatch, capfd):
    for name, options in (
        ("caps", ["--set", "critic_hidden_sizes=16,16"]),
        ("safer-conditioned", ["--set", "recovery_states=50", "--epsilon", "0.1"]),
    ):
        small = ["--set", "hidden_sizes=16,16", "--steps", "20", "-o", f"told-{name}"]
        train = ["train", "balls.h5", "--algorithm", name, *options, *small]
        assert here(place, monkeypatch, capfd, train)[0] == 0
    evaluate = ["--attacks", "natural,uniform", "--episodes", "2", "--cost-limit", "5", "--json"]
    found = []
    for name, options in (
        ("caps", []),
        ("safer-conditioned", ["--epsilon", "0.05"]),
        ("safer-conditioned", ["--epsilon", "0.2", "--aim", "target_cost=3"]),
    ):
        code, printed, errors = here(
            place, monkeypatch, capfd, ["evaluate", f"told-{name}", *evaluate, *options]
        )
        assert code == 0, errors
        found.append(json.loads(printed)["config"])
    caps, half, twice = found
    assert caps["aims"] == {"target_cost": 5}
    assert half["aims"] == {"target_cost": 5, "budget_share": pytest.approx(0.5)}
    assert twice["aims"] == {"target_cost": 3, "budget_share": 1}
    assert [one["cost_limit"] for one in (caps, half, twice)] == [5, 5, 5]
    assert "2 times the largest that the policy learned to withstand" in " ".join(errors.split())


def test_its_training_resumes_to_the_same_policy(place, monkeypatch, capfd):
    train = ["train", "--data", "balls.h5", "--algorithm", "mine:Cloning", "--steps", "30"]
    for options in (["-o", "one"], ["-o", "two"], ["-o", "two", "--resume"]):
        assert here(place, monkeypatch, capfd, [*train, *options])[0] == 0
    one, two = ((place / folder / "policy.safetensors").read_bytes() for folder in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(("algorithm", "option"), [("bc", "--robust"), ("safer", "--no-robust")])
def test_robustness_is_an_option(place, monkeypatch, capfd, algorithm, option):
    out = place / f"robust-{algorithm}"
    given = ["train", "balls.h5", "--algorithm", algorithm, option, "--steps", "20", "-o", str(out)]
    assert here(place, monkeypatch, capfd, given)[0] == 0
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["adversarial_weight"] == (option == "--robust")
    losses = (out / "metrics.csv").read_text().splitlines()[0]
    assert ("nll_attacked" in losses) == (option == "--robust")
    if option == "--no-robust":  # leaves out what only attacks are worth, unless told otherwise
        assert SAFER.unattacked.items() <= config["config"].items()
        other = [*given[:-1], str(out) + "-margin", "--set", "margin=0.75"]
        assert here(place, monkeypatch, capfd, other)[0] == 0
        config = json.loads((place / f"{out.name}-margin" / "config.json").read_text())
        assert config["config"]["margin"] == 0.75
        assert config["config"]["recovery_weight"] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--cost-limit", "3"], "--cost-limit: mine:Cloning has no such setting"),
        (["--robust"], "--robust: mine:Cloning has no such setting"),
        (["--set", "rte=1"], "the nearest is 'rate'"),
        (["--set", "rate=fast"], "must look like 0.001"),
        (["--algorithm", "mine:Clonin"], "'Cloning'"),
        (["--algorithm", "mine:CloningConfig"], "lacks a `name"),
    ],
)
def test_wrong_words_are_answered(place, monkeypatch, capfd, options, text):
    given = ["train", "balls.h5", "--algorithm", "mine:Cloning", *options, "-o", "x"]
    code, _, errors = here(place, monkeypatch, capfd, given)
    assert code == 2
    assert text in " ".join(errors.split())
    assert not (place / "x").exists()


def test_settings_and_algorithms_are_listed(place, monkeypatch, capfd):
    given = ["train", "--algorithm", "mine:Cloning", "--list-settings"]
    listed = here(place, monkeypatch, capfd, given)[1]
    assert "rate" in listed
    assert "Of learning." in listed
    assert "16,16" in listed
    assert "safer" in here(place, monkeypatch, capfd, ["train", "--list-algorithms"])[1]


def here(place, monkeypatch, capfd, arguments):
    """The program in this process, in the user's folder: code, output, errors."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` replaces
    monkeypatch.setattr(sys, "argv", ["safer-offline", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, *capfd.readouterr()
