"""Which coordinates repeat the last action, on data where that is known."""

import dataclasses

import numpy as np
import pytest
import torch

from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset
from safer_offline.learners import SAFER
from safer_offline.learners.echoes import echoes_of_actions


def with_columns(points, **columns):
    """The points, that also observe other things after each step."""
    arrays = {n: a for n, a in points.to_arrays().items() if "/" not in n}
    after = np.stack(list(columns.values()), 1).astype(np.float32)
    starts = points.episodes["start"].to_numpy()
    before = np.roll(after, 1, axis=0)
    before[starts] = 0
    for name, column in (("observations", before), ("next_observations", after)):
        arrays[name] = np.concatenate([arrays[name], column], axis=1)
    return OfflineDataset.from_arrays(arrays)


@pytest.fixture
def noise():
    return np.random.default_rng(0)


def test_what_is_linear_in_the_last_action_is_found_and_nothing_else(points, noise):
    pull, speed = points.actions.numpy().T
    told = with_columns(
        points,
        scaled=0.115 * pull + 7,
        mixed=2 * pull - 0.5 * speed,
        nearly=speed + 0.05 * speed.std() * noise.standard_normal(len(speed)),
        partly=speed + 0.3 * speed.std() * noise.standard_normal(len(speed)),
        constant=np.full(len(speed), 3.0),
        unrelated=noise.standard_normal(len(speed)),
    )
    assert echoes_of_actions(told).tolist() == [False, False, True, True, True, False, False, False]


def test_neither_units_nor_offsets_matter(points):
    pull = points.actions[:, 0].numpy()
    far = with_columns(points, tiny=1e-4 * pull, far=1e3 + 10 * pull)
    assert echoes_of_actions(far).tolist() == [False, False, True, True]


def test_an_action_that_never_varies_explains_nothing(points):
    arrays = {n: a for n, a in points.to_arrays().items() if "/" not in n}
    arrays["actions"] = np.zeros_like(arrays["actions"])
    assert not echoes_of_actions(OfflineDataset.from_arrays(arrays)).any()


def test_data_on_disk_give_the_same_answer(points, tmp_path):
    told = with_columns(points, echo=points.actions[:, 0].numpy())
    save_dataset(tmp_path / "echo.h5", told)
    answers = [
        echoes_of_actions(load_dataset(tmp_path / "echo.h5", max_memory=size))
        for size in ("1GiB", "10kB")
    ]
    assert answers[0].tolist() == answers[1].tolist() == [False, False, True]


@pytest.mark.parametrize("read", [False, True])
def test_the_policy_reads_them_only_if_told(points, small_config, read):
    echo = with_columns(points, echo=points.actions[:, 0].numpy())
    config = dataclasses.replace(small_config, read_last_action=read)
    learner = SAFER(config, echo, steps=8, seed=0)
    while learner.step < learner.steps:
        learner.update()
    policy = learner.policy()
    moved = echo.observations + torch.tensor([0.0, 0.0, 1.0])
    still, shown = (policy.predict(o.numpy()) for o in (echo.observations, moved))
    assert np.array_equal(still, shown) is not read
    behaviour = learner.estimation.behavior
    assert (behaviour.observations.std[2] == torch.inf) is not read
    # What costs may hang on what was last done, and critics are not attacked.
    assert torch.isfinite(learner.estimation.cost_model.observations.std).all()


def test_data_without_echoes_are_learned_from_as_if_nobody_had_looked(points, small_config):
    states = []
    for read in (False, True):
        config = dataclasses.replace(small_config, read_last_action=read)
        learner = SAFER(config, points, steps=8, seed=0)
        while learner.step < learner.steps:
            learner.update()
        states.append(learner.policy().state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
