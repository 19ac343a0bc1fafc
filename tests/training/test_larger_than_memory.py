"""Training from a cache on disk: the policy of memory, bit for bit, resumed or not."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from safer_offline.cli.main import app
from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset
from safer_offline.datasets.dataset.access import BLOCK_ROWS
from safer_offline.datasets.larger_than_memory.cache import cache_folder, open_cached
from safer_offline.errors import CheckpointError, DataError
from safer_offline.learners import SAFER
from safer_offline.learners.margins import BLOCK_ROWS as MARGIN_ROWS
from safer_offline.learners.margins import CostModel, costs_within_margin
from safer_offline.policies.digest import digest
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.training import loop as training
from safer_offline.training.checkpoints import CHECKPOINT_FILE, load_checkpoint
from safer_offline.training.loop import train

STEPS = 24

pytestmark = pytest.mark.filterwarnings("ignore:few episodes stay within")


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 4)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 8)


@pytest.fixture(scope="module")
def file(tmp_path_factory, points):
    path = tmp_path_factory.mktemp("data") / "points.h5"
    save_dataset(path, points)
    return path


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """More than one block, with episodes of all lengths and costs of all sizes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 400, 1_300)
    rows = int(lengths.sum())
    assert BLOCK_ROWS < rows < 2 * BLOCK_ROWS
    ends = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    terminals = ends & (rng.random(rows) < 0.5)
    path = rng.standard_normal((rows + 1, 2)).astype(np.float32) + 5
    dataset = OfflineDataset.from_arrays(
        {
            "observations": path[:-1],
            "next_observations": path[1:],
            "actions": rng.uniform(-1, 1, (rows, 1)),
            "rewards": rng.standard_normal(rows),
            "costs": np.where(path[1:, 0] > 6.5, rng.random(rows), 0),
            "terminals": terminals,
            "timeouts": ends & ~terminals,
        }
    )
    file = tmp_path_factory.mktemp("long") / "long.h5"
    save_dataset(file, dataset)
    return file


def results(directory):
    """What a run computed, and what it would go on with."""
    files = {name: (directory / name).read_bytes() for name in (POLICY_FILE, "metrics.csv")}
    return files | {"state": digest(load_checkpoint(directory / CHECKPOINT_FILE))}


def run(config, dataset, out, **options):
    return results(train(config, dataset, out=out, **{"steps": STEPS} | options).directory)


def interrupt(config, dataset, out, *, at, resume=False):
    update = SAFER.update

    def failing(self):
        if self.step == at:
            raise KeyboardInterrupt
        return update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SAFER, "update", failing)
        with pytest.raises(KeyboardInterrupt):
            train(config, dataset, out=out, steps=STEPS, resume=resume)


def test_the_policy_is_that_of_memory(file, small_config, tmp_path):
    cached = run(small_config, open_cached(file), tmp_path / "cached")
    assert cached == run(small_config, load_dataset(file), tmp_path / "memory")
    config = [json.loads((tmp_path / n / "config.json").read_text()) for n in ("cached", "memory")]
    assert config[0] == config[1]
    assert config[0]["dataset"] == str(file)


def test_the_policy_is_that_of_memory_over_several_blocks(long_file, small_config, tmp_path):
    config = dataclasses.replace(small_config, hidden_sizes=(8,), cost_limit=20.0, batch_size=300)
    cached = run(config, open_cached(long_file), tmp_path / "cached", steps=8)
    assert cached == run(config, load_dataset(long_file), tmp_path / "memory", steps=8)


@pytest.mark.parametrize("at", [5, 12, 13, 19])
def test_resumed_it_is_that_of_memory(file, small_config, tmp_path, at):
    """In either stage, and where the E-step is solved."""
    whole = run(small_config, load_dataset(file), tmp_path / "whole")
    out = tmp_path / "run"
    interrupt(small_config, open_cached(file), out, at=at)
    assert run(small_config, open_cached(file), out, resume=True) == whole


def test_a_training_may_go_on_with_more_or_less_memory(file, small_config, tmp_path):
    whole = run(small_config, load_dataset(file), tmp_path / "whole")
    out = tmp_path / "run"
    interrupt(small_config, load_dataset(file), out, at=9)
    interrupt(small_config, open_cached(file), out, at=17, resume=True)
    assert run(small_config, load_dataset(file), out, resume=True) == whole


def test_other_data_are_not_gone_on_with(file, small_config, points, tmp_path):
    out, changed = tmp_path / "run", tmp_path / "points.h5"
    interrupt(small_config, open_cached(file), out, at=9)
    save_dataset(changed, dataclasses.replace(points, rewards=points.rewards + 1))
    with pytest.raises(CheckpointError, match="dataset_sha256"):
        run(small_config, open_cached(changed), out, resume=True)


def test_the_cost_nobody_can_avoid_is_found_on_disk(long_file, small_config, tmp_path):
    arrays = load_dataset(long_file).to_arrays()
    costs = np.full(len(arrays["costs"]), 2, np.float32)
    costs[270_000] = costs[270_007] = 1
    path = tmp_path / "costly.h5"
    save_dataset(path, OfflineDataset.from_arrays(arrays | {"costs": costs}))
    for dataset in (open_cached(path), load_dataset(path)):
        with pytest.raises(DataError, match="every step costs at least 1") as caught:
            train(small_config, dataset, out=tmp_path / "run", steps=STEPS)
        assert (caught.value.index, caught.value.path) == (270_000, path)


def test_the_command_says_which_way_it_takes(file, tmp_path):
    cache = tmp_path / "caches"
    policies = []
    for name, options, way in (
        (
            "cached",
            ["--max-memory", "10kB", "--cache-dir", str(cache)],
            "read from a cache on disk",
        ),
        ("memory", ["--max-memory", "4GiB"], "held in memory"),
        ("default", [], "held in memory"),
    ):
        command = ["train", "--data", str(file), "--steps", "4", "--out", str(tmp_path / name)]
        small = ["--set", "hidden_sizes=8", "--set", "recovery_states=50"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = CliRunner().invoke(app, [*command, *small, *options])
        assert done.exit_code == 0, done.output
        assert way in done.output
        policies.append((tmp_path / name / POLICY_FILE).read_bytes())
    assert policies[0] == policies[1] == policies[2]
    assert cache_folder(file, cache).is_dir()


def test_a_size_that_is_none_is_refused(file):
    done = CliRunner().invoke(app, ["train", "--data", str(file), "--max-memory", "lots"])
    assert done.exit_code != 0
    assert "'lots' is no size" in str(done.exception or done.output)


# What is computed piece by piece


def test_moments_of_blocks_are_those_of_all():
    values = torch.randn(1_000, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1_000
    values[:, 2] = 7
    whole = Standardizer(3).fit(values)
    assert torch.equal(whole.mean, values.double().mean(0).float())
    assert torch.equal(whole.std, values.double().std(0).clamp_min(1e-3).float())
    for cuts in ([1, 999], [500, 500], [13, 1, 986]):
        blocks = Standardizer(3).fit(iter(values.split(cuts)))
        assert torch.equal(blocks.mean, whole.mean)
        assert torch.equal(blocks.std, whole.std)


def test_costs_within_margin_of_parts_are_those_of_all():
    torch.manual_seed(0)
    model = CostModel(2, hidden_sizes=(8,))
    points, costs = torch.randn(40_000, 2), torch.rand(40_000) * (torch.rand(40_000) < 0.3)
    reach = torch.tensor([0.3, 0.3])
    whole = costs_within_margin(
        model, points, costs, reach=reach, generator=torch.Generator().manual_seed(1)
    )
    assert (whole > costs).any()
    generator = torch.Generator().manual_seed(1)
    parts = [
        costs_within_margin(
            model, *part, reach=reach, generator=generator, costly=costs[costs > 0].mean()
        )
        for part in zip(points.split(MARGIN_ROWS), costs.split(MARGIN_ROWS), strict=True)
    ]
    assert torch.equal(torch.cat(parts), whole)
