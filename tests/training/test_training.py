"""The training loop: what it writes, that it resumes bit for bit, and what it refuses."""

import csv
import dataclasses
import json
import math
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from safer_offline import load_policy
from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset
from safer_offline.errors import (
    CheckpointError,
    DataError,
    OutputError,
    SaferOfflineError,
    UsageError,
)
from safer_offline.files import write_atomically
from safer_offline.learners import SAFER
from safer_offline.policies.digest import digest
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.training import checkpoints
from safer_offline.training import loop as training
from safer_offline.training.checkpoints import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from safer_offline.training.loop import train

STEPS = 40
"""Half of them estimate, half of them imitate."""

# The E-step after 20 steps of estimation is no good, which plays no part here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:few episodes stay within", "ignore:Detected pickle protocol"
)


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 4)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 8)


@pytest.fixture
def run(small_config, points):
    def run_training(out, *, config=small_config, dataset=points, **options):
        return train(config, dataset, out=out, progress=False, **{"steps": STEPS} | options)

    return run_training


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_config, points):
    """A training that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LOG_EVERY", 4)
        patch.setattr(training, "CHECKPOINT_EVERY", 8)
        out = tmp_path_factory.mktemp("whole") / "run"
        return train(small_config, points, out=out, steps=STEPS, progress=False)


def results(directory):
    """What a run computed, without when and where."""
    return {name: (directory / name).read_bytes() for name in (POLICY_FILE, "metrics.csv")}


def checkpointed(directory):
    return digest(load_checkpoint(directory / CHECKPOINT_FILE))


# What is written


def test_a_run_directory_holds_what_it_should(whole):
    events = [path for path in whole.directory.iterdir() if "tfevents" in path.name]
    assert len(events) == 1
    names = {path.name for path in whole.directory.iterdir()} - {events[0].name}
    assert names == {"config.json", "metrics.csv", CHECKPOINT_FILE, POLICY_FILE}


def test_config_tells_what_was_asked_for(whole, small_config, points):
    config = json.loads((whole.directory / "config.json").read_text())
    wanted = json.loads(json.dumps(dataclasses.asdict(small_config)))
    assert config["config"] == wanted
    assert (config["algorithm"], config["steps"], config["seed"]) == ("safer", STEPS, 0)
    assert len(config["dataset_sha256"]) == 64
    assert config["env_id"] == points.metadata.env_id


def test_metrics_are_means_between_their_lines(whole, small_config, points):
    table = pd.read_csv(whole.directory / "metrics.csv")
    assert table["step"].tolist() == list(range(4, STEPS + 1, 4))
    learner = SAFER(small_config, points, steps=STEPS, seed=0)
    losses = [float(learner.update()["cost_critic"]) for _ in range(8)]
    assert table["cost_critic"][:2].tolist() == pytest.approx(
        [np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-6
    )
    # Each stage has its own columns.
    estimation, imitation = table[table["step"] <= 20], table[table["step"] > 20]
    assert estimation["cost_critic"].notna().all()
    assert estimation["policy"].isna().all()
    assert imitation["policy"].notna().all()
    assert imitation["cost_critic"].isna().all()
    assert imitation["episodes_kkt_residual"].notna().tolist() == [True] + [False] * 4


def test_tensorboard_shows_the_same_numbers(whole):
    events = EventAccumulator(str(whole.directory))
    events.Reload()
    table = pd.read_csv(whole.directory / "metrics.csv").set_index("step")
    assert set(events.Tags()["scalars"]) == set(table.columns)
    for name in ("cost_critic", "policy", "episodes_eta"):
        logged = table[name].dropna()
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == logged.index.tolist()
        assert [scalar.value for scalar in scalars] == pytest.approx(logged.tolist(), rel=1e-6)


def test_the_policy_on_disk_is_the_policy_returned(whole, points):
    observations = points.observations.numpy()
    loaded = load_policy(whole.directory)
    assert np.array_equal(loaded.predict(observations), whole.policy.predict(observations))
    assert loaded.info.training["steps"] == loaded.info.training["step"] == STEPS


def test_same_seed_same_files_and_another_seed_others(whole, run, tmp_path):
    assert results(run(tmp_path / "same").directory) == results(whole.directory)
    other = results(run(tmp_path / "other", seed=1).directory)
    assert all(other[name] != results(whole.directory)[name] for name in other)


def test_steps_need_not_be_a_multiple_of_anything(run, tmp_path):
    directory = run(tmp_path / "run", steps=11).directory
    table = pd.read_csv(directory / "metrics.csv")
    assert table["step"].tolist() == [4, 8, 11]
    assert load_checkpoint(directory / CHECKPOINT_FILE)["learner"]["step"] == 11


# Resuming


def interrupt(monkeypatch, run, out, *, at, **options):
    """Train until an update fails."""
    update = SAFER.update

    def failing(self):
        if self.step == at:
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(SAFER, "update", failing)
        with pytest.raises(KeyboardInterrupt):
            run(out, **options)
    assert not (out / POLICY_FILE).exists()


@pytest.mark.parametrize("at", [3, 8, 13, 20, 21, 39])
def test_resumed_it_equals_a_run_that_nobody_disturbed(whole, run, monkeypatch, tmp_path, at):
    """Before the first checkpoint, on one, in either stage, and where the E-step is solved."""
    out = tmp_path / "run"
    interrupt(monkeypatch, run, out, at=at)
    run(out, resume=True)
    assert results(out) == results(whole.directory)
    assert checkpointed(out) == checkpointed(whole.directory)
    assert (out / "config.json").read_text() == (whole.directory / "config.json").read_text()


def test_resumed_again_and_again(whole, run, monkeypatch, tmp_path):
    out = tmp_path / "run"
    # Files of one process and second are told apart, and sorted as text, by a number.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for at in (10, 18, 18, 27, 35):
        interrupt(monkeypatch, run, out, at=at, resume=True)
    run(out, resume=True)
    assert results(out) == results(whole.directory)
    # TensorBoard, too, ends with every step once.
    events = EventAccumulator(str(out))
    events.Reload()
    steps = [scalar.step for scalar in events.Scalars("cost_critic")]
    assert sorted(set(steps)) == list(range(4, 21, 4))


TRAIN_AND_DIE = """
import os, signal, sys, warnings
import torch
from safer_offline.training import loop as training
from safer_offline.datasets import load_dataset
from safer_offline.learners import SAFER, SAFERConfig

torch.set_num_threads(1)
warnings.simplefilter("ignore")
training.LOG_EVERY, training.CHECKPOINT_EVERY = 4, 8
update = SAFER.update

def dying(self):
    if self.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self)

SAFER.update = dying
config = SAFERConfig(**{config!r})
training.train(config, load_dataset(sys.argv[1]), out=sys.argv[2], steps={steps})
"""


@pytest.mark.parametrize("at", [13, 30])
def test_killed_and_resumed_it_equals_a_run_that_nobody_disturbed(
    run, points, small_config, tmp_path, at
):
    """Killed while it estimates, and while it imitates."""
    file, out = tmp_path / "points.h5", tmp_path / "run"
    save_dataset(file, points)
    script = TRAIN_AND_DIE.format(config=dataclasses.asdict(small_config), steps=STEPS)
    arguments = [sys.executable, "-c", script, str(file), str(out), str(at)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert load_checkpoint(out / CHECKPOINT_FILE)["learner"]["step"] == at - at % 8
    with (out / "metrics.csv").open() as metrics:
        assert [int(row["step"]) for row in csv.DictReader(metrics)] == [*range(4, at - 4, 4)]

    saved = load_dataset(file)
    run(out, dataset=saved, resume=True)
    run(tmp_path / "whole", dataset=saved)
    assert results(out) == results(tmp_path / "whole")
    assert checkpointed(out) == checkpointed(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(whole, run, tmp_path):
    out = tmp_path / "run"
    run(out)
    before = results(out)
    policy = run(out, resume=True).policy
    assert results(out) == before
    assert digest(dict(policy.state_dict())) == digest(dict(whole.policy.state_dict()))


def test_resuming_nothing_begins(whole, run, tmp_path):
    run(tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(whole.directory)


# What is refused


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("name", [CHECKPOINT_FILE, POLICY_FILE, "metrics.csv"])
def test_an_existing_run_is_refused_and_left_alone(run, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match=r"holds a run already; continue it with --resume"):
        run(tmp_path)
    assert contents(tmp_path) == {name: b"precious"}


def test_a_folder_with_other_things_is_fine(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path, steps=2)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def begun(whole):
    """The checkpoint of a run, and its bytes."""
    path = whole.directory / CHECKPOINT_FILE
    return path.read_bytes()


@pytest.fixture
def copy(begun, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / CHECKPOINT_FILE).write_bytes(begun)
    return out


def refuses(run, out, *texts, **options):
    before = contents(out)
    with pytest.raises(CheckpointError) as caught:
        run(out, resume=True, **options)
    for text in (str(out / CHECKPOINT_FILE), "Remedy: ", *texts):
        assert text in str(caught.value)
    assert contents(out) == before
    return caught.value


def test_another_setting_is_refused_by_name(run, copy, small_config):
    for name, value in (("margin", 0.25), ("cost_limit", 3.0), ("hidden_sizes", (16, 8))):
        config = dataclasses.replace(small_config, **{name: value})
        error = refuses(run, copy, f"'{name}'", "config.json", config=config)
        assert error.field == name


def test_other_data_steps_and_seeds_are_refused_by_name(run, copy, make_points):
    assert refuses(run, copy, seed=1).field == "seed"
    assert refuses(run, copy, steps=STEPS + 1).field == "steps"
    assert refuses(run, copy, dataset=make_points(seed=5)).field == "dataset_sha256"


def test_a_checkpoint_of_another_algorithm_is_refused(run, copy):
    state = load_checkpoint(copy / CHECKPOINT_FILE)
    state["identity"]["algorithm"] = "bcq"
    save_checkpoint(copy / CHECKPOINT_FILE, state)
    error = refuses(run, copy, "bcq", "safer")
    assert error.field == "algorithm"


@pytest.mark.parametrize("lost", ["estimation", "imitation", "generator"])
def test_a_checkpoint_of_another_layout_is_refused_in_words(run, copy, lost):
    """As another version may have written it."""
    state = load_checkpoint(copy / CHECKPOINT_FILE)
    del state["learner"][lost]
    save_checkpoint(copy / CHECKPOINT_FILE, state)
    refuses(run, copy, "another state than safer of this version", "train again")


@pytest.mark.parametrize("length", [0, 10, 1_000, -1, -2_000])
def test_a_truncated_checkpoint_is_refused(run, copy, begun, length):
    (copy / CHECKPOINT_FILE).write_bytes(begun[:length])
    refuses(run, copy)


def test_a_bit_that_flipped_in_a_weight_is_refused(run, copy, begun):
    """Read without a complaint by PyTorch itself."""
    state = load_checkpoint(copy / CHECKPOINT_FILE)
    weight = state["learner"]["actor"]["network.0.weight"].numpy().tobytes()
    place = begun.index(weight)
    content = bytearray(begun)
    content[place + 7] ^= 1
    (copy / CHECKPOINT_FILE).write_bytes(content)
    torch.load(copy / CHECKPOINT_FILE, weights_only=True)
    refuses(run, copy, "damaged")


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / CHECKPOINT_FILE
    state = {
        "identity": {"seed": 3, "config": {"sizes": [1, 2]}},
        "learner": {"weight": torch.arange(50.0), "on": torch.tensor([True]), "empty": None},
        "metrics": [{"step": 1, "loss": 0.1, "eta": math.nan}],
    }
    save_checkpoint(path, state)
    return path


@given(
    place=st.tuples(
        st.sampled_from([b"PK", b"data.pkl", b"identity", b"learner"]), st.integers(0, 400)
    ),
    byte=st.integers(0, 255),
    cut=st.booleans(),
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_happens_to_a_checkpoint_it_is_refused_or_the_same(
    small_checkpoint, tmp_path, place, byte, cut
):
    content = bytearray(small_checkpoint.read_bytes())
    place = content.index(place[0]) + place[1]
    if cut:
        content = content[:place]
    else:
        content[place] = byte
    path = tmp_path / "changed.pt"
    path.write_bytes(content)
    try:
        state = load_checkpoint(path)
    except CheckpointError:
        return
    assert digest(state) == digest(load_checkpoint(small_checkpoint))


class Payload:
    """Runs a command when it is unpickled by whoever trusts it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("writer", ["pickle", "torch", "inside"])
def test_code_hidden_in_a_checkpoint_is_never_run(run, copy, tmp_path, writer):
    trace = tmp_path / "trace"
    payload = Payload(f"touch {trace}")
    path = copy / CHECKPOINT_FILE
    if writer == "pickle":
        path.write_bytes(pickle.dumps(payload))
    elif writer == "torch":
        torch.save(payload, path)
    else:
        torch.save({"format": checkpoints.FORMAT, "sha256": "", "state": payload}, path)
    refuses(run, copy, "cannot be read")
    assert not trace.exists()
    torch.load(path, weights_only=False) if writer != "pickle" else pickle.loads(path.read_bytes())
    assert trace.exists()  # the payload was a real one


@pytest.mark.parametrize(
    "content", [{"weights": torch.zeros(2)}, {"format": "other/1"}, [1], torch.zeros(1)]
)
def test_a_checkpoint_of_another_program_is_refused(run, copy, content):
    torch.save(content, copy / CHECKPOINT_FILE)
    refuses(run, copy, "no checkpoint of safer-offline")


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT_FILE)


def test_digests_tell_states_apart():
    states = [
        {"a": 1},
        {"a": 1.0},
        {"a": "1"},
        {"b": 1},
        {"a": [1, 2]},
        {"a": [[1], 2]},
        {"a": torch.tensor([1, 2])},
        {"a": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": None},
        {},
    ]
    assert len({digest(state) for state in states}) == len(states)
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="cannot be written \\(disk full\\)"):
        write_atomically(path, b"new")
    assert contents(tmp_path) == {"file": b"old"}


# Data that cannot teach safety


def with_costs(points, costs):
    return dataclasses.replace(points, costs=torch.as_tensor(costs, dtype=torch.float32))


def test_without_a_safe_episode_it_warns_and_tells_the_smallest_limit(run, make_points, tmp_path):
    points = make_points(episodes=25, lanes=(0.6,))
    costs = torch.zeros(500)
    costs[::20] = torch.arange(25) + 7.0  # episodes cost 7 to 31
    with pytest.warns(UserWarning, match="no episode keeps the cost limit of 2") as caught:
        run(tmp_path / "run", dataset=with_costs(points, costs), steps=2)
    message = str(caught[0].message)
    assert "smallest limit that an episode keeps is 7" in message
    assert "--cost-limit 7" in message


def test_few_safe_episodes_are_told(run, make_points, tmp_path):
    points = make_points(episodes=25, lanes=(0.6,) * 4 + (0.0,))
    with pytest.warns(UserWarning, match="only 5 of 25 episodes keep the cost limit of 2"):
        run(tmp_path / "run", dataset=points, steps=2)


def test_an_impossible_limit_is_refused_before_anything_is_written(run, make_points, tmp_path):
    points = make_points(episodes=10, lanes=(0.6,))
    with pytest.raises(DataError) as caught:
        run(tmp_path / "run", dataset=points)  # costs 1 at every one of 20 steps
    assert caught.value.field == "costs"
    assert "every step costs at least 1" in str(caught.value)
    assert "--cost-limit 20" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_losses_that_are_no_numbers_end_the_training(run, tmp_path, monkeypatch):
    update = SAFER.update

    def broken(self):
        return update(self) | ({"policy": math.inf} if self.step == 30 else {})

    monkeypatch.setattr(SAFER, "update", broken)
    with pytest.raises(SaferOfflineError, match="'policy' became inf before step 32"):
        run(tmp_path / "run")
    assert not (tmp_path / "run" / POLICY_FILE).exists()
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT_FILE)["learner"]["step"] == 24


def test_a_dataset_without_hashes_is_known_by_its_content(run, points, tmp_path, monkeypatch):
    bare = OfflineDataset.from_arrays(points.to_arrays())
    interrupt(monkeypatch, run, tmp_path / "run", at=9, dataset=bare)
    run(tmp_path / "run", dataset=bare, resume=True)
    with pytest.raises(CheckpointError, match="dataset_sha256"):
        run(
            tmp_path / "run",
            dataset=OfflineDataset.from_arrays(
                points.to_arrays() | {"costs": 0 * points.costs.numpy()}
            ),
            resume=True,
        )
