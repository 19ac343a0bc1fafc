"""Purely offline is a promise: learning works where there is no simulator, and cannot reach one."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from safer_offline.datasets import save_dataset

ROOT = Path(__file__).parent.parent
SIMULATION = (
    "bullet_safety_gym",
    "pybullet",
    "pybullet_utils",
    "mujoco",
    "safer_offline.environments.source",
    "safer_offline.environments.bullet.simulated",
    "safer_offline.environments.bullet.environment",
    "safer_offline.environments.mujoco",
    "safer_offline.environments.vector",
)

WITHOUT_SIMULATOR = """
import importlib.abc, sys

FORBIDDEN = {forbidden!r}

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in FORBIDDEN or name.split(".")[0] in FORBIDDEN:
            raise ImportError(f"there is no {{name}} here")

sys.meta_path.insert(0, Wall())
"""


def run_without_simulator(code, *arguments):
    """Run code in a process in which importing the simulator, or what drives it, fails."""
    script = WITHOUT_SIMULATOR.format(forbidden=SIMULATION) + code
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("module", SIMULATION)
def test_the_wall_is_one(module):
    done = run_without_simulator(f"import {module}")
    assert done.returncode == 1
    assert f"there is no {module} here" in done.stderr


LEARN = """
import numpy as np, torch
torch.set_num_threads(1)
from safer_offline import SAFERConfig, foresee, load_policy, train
from safer_offline.datasets import load_dataset, save_dataset
from safer_offline.foresight import DynamicsConfig, fit_dynamics

dataset = load_dataset(sys.argv[1])
save_dataset(sys.argv[2] + "/copy.h5", dataset.select_episodes([0, 1]))
config = SAFERConfig(
    cost_limit=2, hidden_sizes=(16,), batch_size=16, recovery_states=50, candidates=3
)
run = train(config, dataset, out=sys.argv[2] + "/run", steps=12)
policy = load_policy(sys.argv[2] + "/run")
actions = policy.predict(dataset.observations.numpy())
assert np.array_equal(actions, run.policy.predict(dataset.observations.numpy()))
np.save(sys.argv[2] + "/actions.npy", actions)
model = fit_dynamics(dataset, DynamicsConfig(steps=2), seed=0)
assert foresee(policy, dataset, model=model, starts=2).estimates
loaded = [name for name in sys.modules if name in FORBIDDEN]
assert not loaded, loaded
"""


def test_dataset_training_and_policy_work_without_a_simulator(points, tmp_path):
    save_dataset(tmp_path / "points.h5", points)
    done = run_without_simulator(LEARN, tmp_path / "points.h5", tmp_path)
    assert done.returncode == 0, done.stderr
    actions = np.load(tmp_path / "actions.npy")
    assert actions.shape == (points.num_transitions, 2)
    assert np.isfinite(actions).all()
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_the_command_line_trains_without_a_simulator(points, tmp_path):
    save_dataset(tmp_path / "points.h5", points)
    command = "from safer_offline.cli.main import main\nmain()"
    settings = "hidden_sizes=16", "batch_size=16", "recovery_states=50", "candidates=3"
    done = run_without_simulator(
        command,
        *("train", "--data", tmp_path / "points.h5", "--out", tmp_path / "run", "--steps", "4"),
        *(part for setting in settings for part in ("--set", setting)),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "policy.safetensors").exists()


# What may import what


@pytest.fixture
def lint(tmp_path):
    """Runs import-linter as `make lint` does, on a tree in which datasets and cli are installed."""
    tree = tmp_path / "tree"
    package = tree / "safer_offline"

    def run():
        linter = Path(sys.executable).with_name("lint-imports")
        done = subprocess.run(
            [linter, "--config", ROOT / "pyproject.toml", "--no-cache", "--no-logo"],
            cwd=tree,
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    package.mkdir(parents=True)
    for part in (*(ROOT / "safer_offline").iterdir(), ROOT / "datasets", ROOT / "cli"):
        (package / part.name).symlink_to(part)
    return package, run


def test_imports_keep_to_the_architecture(lint):
    code, output = lint[1]()
    assert code == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("training/loop.py", "from safer_offline.environments.bullet import engine", "never reach"),
        ("learners/safer/learner.py", "import pybullet", "never reach"),
        ("learners/margins.py", "import mujoco", "never reach"),
        ("policies/critics.py", "import safer_offline.environments.source", "never reach"),
        ("training/checkpoints.py", "import safer_offline.environments.vector", "never reach"),
        ("datasets/storage/hdf5.py", "import bullet_safety_gym", "never reach"),
        # By way of others
        (
            "datasets/dataset/sampling.py",
            "import safer_offline.datasets.collection.collector",
            "reach",
        ),
        ("attacks/base.py", "import safer_offline.evaluation.rollouts", "never reach"),
        # Late imports are imports
        (
            "policies/trained.py",
            "def late():\n    import safer_offline.environments.bullet.engine",
            "reach",
        ),
        ("attacks/random.py", "import safer_offline.training.loop", "above it"),
        ("estep/dual.py", "import safer_offline.learners", "above it"),
        ("training/loop.py", "import safer_offline.cli.options", "above it"),
        ("datasets/description/summary.py", "import safer_offline.training.loop", "above it"),
        ("datasets/description/summary.py", "import safer_offline.attacks", "nothing of learning"),
        (
            "environments/bullet/engine.py",
            "import safer_offline.datasets.dataset.schema",
            "above it",
        ),
        ("datasets/dataset/access.py", "import safer_offline.datasets.dataset.sampling", "circle"),
    ],
)
def test_imports_that_break_it_are_found(lint, file, line, contract):
    package, run = lint
    top = package / Path(file).parts[0]
    original = top.resolve()
    top.unlink()
    (shutil.copytree if original.is_dir() else shutil.copy)(original, top)
    with (package / file).open("a") as module:
        module.write(f"\n{line}\n")
    code, output = run()
    assert code == 1
    assert any(contract in verdict and "BROKEN" in verdict for verdict in output.splitlines())


def test_every_package_is_held_by_a_contract():
    """A package that nobody thought of when the contracts were written must not slip through."""
    contracts = (ROOT / "pyproject.toml").read_text()
    never_learn = {"behavior_training", "collection", "__init__"}
    for folder, prefix in ((ROOT / "safer_offline", ""), (ROOT / "datasets", "datasets.")):
        for path in folder.iterdir():
            is_module = path.suffix == ".py" or (path / "__init__.py").exists()
            if is_module and path.stem not in never_learn:
                assert f"safer_offline.{prefix}{path.stem}" in contracts, path


def test_the_map_of_a_package_names_each_of_its_rooms():
    """Whoever opens a folder reads its docstring first."""
    for root in (ROOT / "safer_offline", ROOT / "datasets", ROOT / "cli"):
        for init in (root / "__init__.py", *root.rglob("*/__init__.py")):
            text = ast.get_docstring(ast.parse(init.read_text())) or ""
            rooms = [path.stem for path in init.parent.glob("*.py") if path.stem[:2] != "__"]
            rooms += [path.parent.name for path in init.parent.glob("*/__init__.py")]
            assert [name for name in rooms if not re.search(rf"\b{name}\b", text)] == [], init
