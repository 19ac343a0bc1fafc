"""A training that begins with updates of another one ends as it would have alone."""

import dataclasses

import pytest

from safer_offline import train
from safer_offline.errors import CheckpointError
from safer_offline.foresight import choose
from safer_offline.learners import BCConfig
from safer_offline.learners.safer.conditioned import SAFERConditionedConfig
from safer_offline.learners.safer.estimation import Estimation
from safer_offline.policies.digest import digest
from safer_offline.training.checkpoints import CHECKPOINT_FILE, load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS, SHARED = 400, 200
FORETOLD = {"foretold": (2, 8), "adversarial_weight": 0.0, "recovery_weight": 0.0}


@pytest.fixture
def estimated(monkeypatch):
    """Steps of stage 1 that were done."""
    done, update = [], Estimation.update

    def spy(self, step):
        done.append(step)
        return update(self, step)

    monkeypatch.setattr(Estimation, "update", spy)
    return done


def learn(config, points, out, **more):
    return train(config, points, out=out, steps=STEPS, progress=False, **more)


def written(run):
    """All that a run is, but for where it is."""
    state = load_checkpoint(run.directory / CHECKPOINT_FILE)
    return run.policy.fingerprint, (run.directory / "metrics.csv").read_text(), digest(state)


@pytest.mark.parametrize(
    "settings",
    [FORETOLD, {"margin": 1.0, "recovery_weight": 3.0, "epsilon": 0.2}, {"robustness": "noise"}],
)
def test_it_ends_as_alone(small_config, points, tmp_path, estimated, settings):
    given = learn(small_config, points, tmp_path / "given")
    other = dataclasses.replace(small_config, **settings)
    alone = learn(other, points, tmp_path / "alone")
    estimated.clear()
    like = learn(other, points, tmp_path / "like", like=given.directory)
    assert not estimated
    assert written(like) == written(alone)
    assert like.policy.fingerprint != given.policy.fingerprint


def test_several_budgets_share_it_too(small_config, points, tmp_path, estimated):
    config = SAFERConditionedConfig(**dataclasses.asdict(small_config))
    given = learn(config, points, tmp_path / "given")
    other = dataclasses.replace(config, budget_shares=(0.5, 1.0), limit_multiples=(1.0, 2.0))
    alone = learn(other, points, tmp_path / "alone")
    estimated.clear()
    assert written(learn(other, points, tmp_path / "like", like=given.directory)) == written(alone)
    assert not estimated


@pytest.mark.parametrize(
    "change",
    [({"learning_rate": 2e-3}, {}), ({"read_last_action": True}, {}), ({}, {"seed": 1})],
)
def test_what_stage_1_depends_on_is_done_anew(small_config, points, tmp_path, estimated, change):
    settings, more = change
    given = learn(small_config, points, tmp_path / "given")
    estimated.clear()
    other = dataclasses.replace(small_config, **settings)
    learn(other, points, tmp_path / "like", like=given.directory, **more)
    assert estimated == list(range(SHARED))


def test_a_line_of_losses_is_never_half_of_another_training(
    small_config, points, tmp_path, estimated
):
    config = dataclasses.replace(small_config, estimation_share=0.375)
    given = learn(config, points, tmp_path / "given")
    estimated.clear()
    learn(dataclasses.replace(config, margin=1.0), points, tmp_path / "like", like=given.directory)
    assert estimated == list(range(150))


def test_who_knows_of_nothing_in_common_or_finds_nothing_trains(
    small_config, points, tmp_path, estimated
):
    learn(small_config, points, tmp_path / "alone", like=tmp_path / "nowhere")
    assert estimated == list(range(SHARED))
    bc = BCConfig(batch_size=16, hidden_sizes=(8,))
    given = learn(bc, points, tmp_path / "bc")
    like = learn(bc, points, tmp_path / "like", like=given.directory)
    assert like.policy.fingerprint == given.policy.fingerprint


def test_a_damaged_one_is_named(small_config, points, tmp_path):
    given = learn(small_config, points, tmp_path / "given")
    checkpoint = given.directory / CHECKPOINT_FILE
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"given.checkpoint\.pt"):
        learn(
            dataclasses.replace(small_config, margin=1.0),
            points,
            tmp_path / "like",
            like=given.directory,
        )


def test_alternatives_begin_with_what_was_given(small_config, points, tmp_path, estimated):
    choose(
        small_config,
        points,
        [{"margin": 1.0}, FORETOLD],
        out=tmp_path / "run",
        steps=STEPS,
        progress=False,
    )
    assert estimated == list(range(SHARED))
