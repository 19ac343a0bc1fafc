"""Batches of environments: neither their processes nor their neighbours matter."""

import os
import signal

import numpy as np
import pytest

from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import SaferOfflineError, UsageError


def play(workers, seeds, env_id="ball-circle", steps=25):
    """All that a batch returns in a few steps of each of two rounds of episodes."""
    numbers = []
    with VectorEnvironment(env_id, num_envs=len(seeds), workers=workers) as batch:
        for start in (0, 100):
            numbers.append(batch.reset([start + seed for seed in seeds]))
            generator = np.random.default_rng(start)
            for _ in range(steps):
                actions = generator.uniform(-1, 1, (len(seeds), *batch.action_space.shape))
                numbers.extend(batch.step(actions))
    return [array.tolist() for array in numbers]


def test_workers_change_nothing():
    seeds = [4, 0, 9]
    here = play(0, seeds)
    assert play(1, seeds) == here
    assert play(2, seeds) == here
    assert play(8, seeds) == here


def test_a_row_does_not_depend_on_its_place_and_neighbours():
    def first_observations(seeds):
        with VectorEnvironment("car-circle", num_envs=len(seeds), workers=0) as batch:
            batch.reset(seeds)
            for _ in range(10):
                steps = batch.step(np.full((len(seeds), 2), 0.7))
            return dict(zip(seeds, steps.observations.tolist(), strict=True))

    pair, triple = first_observations([3, 5]), first_observations([5, 4, 3])
    assert pair[3] == triple[3]
    assert pair[5] == triple[5]
    assert pair[3] != pair[5]


def test_rows_that_have_ended_are_left_alone():
    hover, tumble = np.zeros(4), np.array([1.0, -1.0, -1.0, 1.0])
    alone = SafetyEnvironment("drone-circle")
    alone.reset(2)
    with VectorEnvironment("drone-circle", num_envs=2, workers=0) as batch:
        assert batch.done.all()  # nothing runs before the first reset
        batch.reset([1, 2])
        assert not batch.done.any()
        last = None
        for _ in range(30):
            steps, expected = batch.step(np.stack([tumble, hover])), alone.step(hover)
            assert np.array_equal(steps.observations[1], expected.observation)
            assert steps.rewards[1] == np.float32(expected.reward)
            if last is not None:
                assert np.array_equal(steps.observations[0], last)
                assert (steps.rewards[0], steps.costs[0]) == (0, 0)
                assert not steps.terminated[0]
                assert not steps.truncated[0]
            elif steps.terminated[0]:
                last = steps.observations[0]
            assert batch.done.tolist() == [last is not None, False]
        assert last is not None
        batch.reset([1, 2])
        assert not batch.done.any()


def test_what_a_caller_does_to_a_result_stays_with_the_caller():
    with VectorEnvironment("ball-circle", num_envs=1, workers=0) as batch:
        first = batch.reset([1])
        first[:] = 77
        while not batch.done.all():
            steps = batch.step(np.zeros((1, 2)))
        kept = steps.observations.copy()
        steps.observations[:] = 77
        assert np.array_equal(batch.step(np.zeros((1, 2))).observations, kept)


def test_seeds_must_be_as_many_as_rows():
    with (
        VectorEnvironment("ball-circle", num_envs=2, workers=0) as batch,
        pytest.raises(ValueError, match="3 seeds for 2 environments"),
    ):
        batch.reset([1, 2, 3])
    with pytest.raises(UsageError, match="num_envs must be at least 1"):
        VectorEnvironment("ball-circle", num_envs=0)
    with pytest.raises(UsageError, match="workers must not be negative"):
        VectorEnvironment("ball-circle", num_envs=2, workers=-1)


def test_the_death_of_a_process_is_told():
    with VectorEnvironment("ball-circle", num_envs=2, workers=1) as batch:
        batch.reset([1, 2])
        process = batch._groups[0]._child.process
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(SaferOfflineError, match="simulation process died"):
            batch.step(np.zeros((2, 2)))


def test_closing_ends_the_processes():
    batch = VectorEnvironment("ball-circle", num_envs=2, workers=2)
    processes = [group._child.process for group in batch._groups]
    assert all(process.is_alive() for process in processes)
    batch.close()
    assert [process.exitcode for process in processes] == [0, 0]
    batch.close()
