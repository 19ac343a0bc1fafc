"""Waves that run side by side find what they find one after the other."""

import threading

import pandas as pd
import pytest
from toy_policies import Pull

from safer_offline import evaluate
from safer_offline.attacks import Natural
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.evaluation import parallel
from safer_offline.evaluation.foreign import foreign_policy
from safer_offline.evaluation.harness import prepare
from safer_offline.evaluation.rollouts import Rollouts
from safer_offline.evaluation.trials import EVALUATE, episode_seeds, waves

SETTINGS = {
    "env": "toy_environments:make_point", "attacks": "natural,uniform,mad", "epsilon": 0.1,
    "attack_set": ["mad.steps=2,restarts=2"], "episodes": 6, "max_rows": 3, "cost_limit": 3,
    "progress": False,
}  # fmt: skip


class Unsendable(Pull):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Broken(Pull):
    def forward(self, observations):
        if (observations[:, 0] > 0.5).any():
            raise RuntimeError("no way")
        return super().forward(observations)


@pytest.fixture
def started(monkeypatch):
    """How many processes were started for waves."""
    counts = []
    before = parallel.WaveProcesses.__init__

    def noted(self, recipe, *, count, bar):
        counts.append(count)
        before(self, recipe, count=count, bar=bar)

    monkeypatch.setattr(parallel.WaveProcesses, "__init__", noted)
    return counts


def test_side_by_side_the_same_is_found_to_the_last_bit(started):
    alone = evaluate(Pull(), workers=0, **SETTINGS)
    assert started == []
    together = evaluate(Pull(), workers=2, **SETTINGS)
    assert started == [2]
    pd.testing.assert_frame_equal(alone.episodes, together.episodes, check_exact=True)


def test_what_cannot_be_sent_runs_here(started):
    with pytest.raises(TypeError):
        parallel.cloudpickle.dumps(Unsendable())
    there = evaluate(Unsendable(), workers=2, **SETTINGS)
    assert started == []
    here = evaluate(Pull(), workers=0, **SETTINGS)
    pd.testing.assert_frame_equal(here.episodes, there.episodes, check_exact=True)


def test_noise_alone_is_not_worth_processes_that_load_torch(started):
    evaluate(Pull(), workers=2, **SETTINGS | {"attacks": "natural,uniform", "attack_set": []})
    evaluate(Pull(), workers=2, **SETTINGS | {"attacks": "mad", "episodes": 3})  # one wave
    assert started == []


def test_what_fails_there_is_said_here(started):
    with pytest.raises(UsageError, match=r"the network failed.*no way"):
        evaluate(Broken(), workers=2, **SETTINGS | {"attacks": "uniform,mad"})


class Bar:
    def __init__(self):
        self.done = 0.0

    def advance(self, amount=1, **fields):
        self.done += amount


def jobs_of(policy):
    settings = {name: SETTINGS[name] for name in ("env", "epsilon", "cost_limit")}
    ready = prepare(policy, attacks=[Natural()], episodes=4, **settings)
    seeds = episode_seeds(0, 4, domain=EVALUATE)
    return [job for wave in waves(ready.trials, seeds, 1) for job in wave]


def test_results_come_in_order_and_the_bar_counts_every_step():
    jobs = jobs_of(Pull())
    source = EnvironmentSource(name=SETTINGS["env"])
    recipe = {"policy": foreign_policy(Pull(), source), "source": source, "seed": 0}
    bar = Bar()
    pickled = [parallel.cloudpickle.dumps([job]) for job in jobs]
    with parallel.WaveProcesses(parallel.cloudpickle.dumps(recipe), count=2, bar=bar) as processes:
        tables = list(processes.run(pickled))
        assert [table["episode"].tolist() for table in tables] == [[0], [1], [2], [3]]
        assert bar.done == 4 * 20
        processes._children[0].process.kill()
        processes._children[0].process.join()
        with pytest.raises(SaferOfflineError, match="a simulation process died"):
            list(processes.run(pickled))
    with Rollouts(**recipe, workers=0, bar=Bar()) as rollouts:
        expected = [rollouts.run([job]) for job in jobs]
    for one, other in zip(tables, expected, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
