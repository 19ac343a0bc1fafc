"""Ctrl-C and SIGTERM: soon, with all that was done, and to the same result after going on."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from safer_offline import SAFERConfig, evaluate, load_policy, train
from safer_offline.datasets import collect, peek_metadata
from safer_offline.errors import CheckpointError, UsageError
from safer_offline.evaluation import harness
from safer_offline.evaluation.rollouts import Rollouts
from safer_offline.interruption import Interrupted, signal_of, stop_requests
from safer_offline.learners import SAFER
from safer_offline.locking import locked, sole_writer

CONFIG = SAFERConfig(
    cost_limit=60, hidden_sizes=(8,), batch_size=8, recovery_states=8, candidates=2
)


@pytest.fixture(autouse=True)
def _python_s_own_handlers():
    """A shell lets what it starts in the background, such as these tests, ignore Ctrl-C."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls.h5"
    collect("ball-circle", path, transitions=1_000, workers=1, progress=False)
    return path


# Signals


def test_a_request_waits_for_the_work_and_a_second_one_does_not():
    with stop_requests() as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert stop
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGINT)
        assert caught.value.exit_code == 130
        assert stop.accept() == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_patience_ends(monkeypatch):
    monkeypatch.setattr("safer_offline.interruption.PATIENCE", 0.1)
    begun = time.monotonic()

    def be_busy():
        with stop_requests():
            signal.raise_signal(signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(Interrupted) as caught:
        be_busy()
    assert time.monotonic() - begun < 2
    assert caught.value.exit_code == 143


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_signal_of_an_interruption():
    assert signal_of(KeyboardInterrupt()) == signal.SIGINT
    assert signal_of(Interrupted(number=signal.SIGTERM)) == signal.SIGTERM


# Training

STEPS = 240  # stage 3 begins at 60


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return train(CONFIG, data, out=out, steps=STEPS, progress=False).directory


@pytest.mark.parametrize("step", [1, 33, 60, 61, 130, 239])
def test_an_interrupted_training_goes_on_to_the_same_result(
    data, undisturbed, tmp_path, monkeypatch, step
):
    whole = SAFER.update

    def update(learner):
        losses = whole(learner)
        if learner.step == step:
            signal.raise_signal(signal.SIGTERM)
        return losses

    monkeypatch.setattr(SAFER, "update", update)
    with pytest.raises(Interrupted) as caught:
        train(CONFIG, data, out=tmp_path / "run", steps=STEPS, progress=False)
    monkeypatch.undo()
    assert f"{step} of 240 updates are kept" in caught.value.kept
    assert caught.value.resume == ("--resume",)
    assert caught.value.exit_code == 143
    run = train(CONFIG, data, out=tmp_path / "run", steps=STEPS, resume=True, progress=False)
    for name in ("policy.safetensors", "metrics.csv"):
        assert (run.directory / name).read_bytes() == (undisturbed / name).read_bytes()


def test_more_steps_than_were_laid_out_are_refused_with_the_reason(data, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"laid out for 240 updates.*\n.*--steps 300"):
        train(CONFIG, data, out=tmp_path / "run", steps=300, resume=True, progress=False)


# Collecting


COLLECT = ("collect", "ball-circle", "--transitions", "18000", "--workers", "1", "-o", "b.h5")


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected")
    assert start(*COLLECT, cwd=folder).wait() == 0
    return peek_metadata(folder / "b.h5").content_sha256


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_collection_ends_soon_and_goes_on(tmp_path, collected, number):
    begun = start(*COLLECT, cwd=tmp_path)
    shards = tmp_path / "b.h5.shards"
    wait_for(lambda: list(shards.glob("shard-*.h5")), begun)
    asked = time.monotonic()
    # A terminal sends Ctrl-C to all processes, and `kill` asks the first one alone.
    (os.killpg if number == signal.SIGINT else os.kill)(begun.pid, number)
    _, errors = begun.communicate(timeout=20)
    assert time.monotonic() - asked < 3
    assert begun.returncode == 128 + number
    assert "shards are kept in b.h5.shards" in errors
    assert f"safer-offline {' '.join(COLLECT)}" in errors
    assert "Traceback" not in errors
    assert start(*COLLECT, cwd=tmp_path).wait() == 0
    assert not shards.exists()
    assert peek_metadata(tmp_path / "b.h5").content_sha256 == collected


def test_another_plan_is_refused_by_the_setting_that_differs(tmp_path):
    folder = tmp_path / "b.h5.shards"
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(RuntimeError):
        patch.setattr("safer_offline.datasets.collection.collector._collect_shards", stop)
        collect("ball-circle", tmp_path / "b.h5", transitions=400, seed=1, progress=False)
    assert folder.exists()
    with pytest.raises(UsageError, match="seed is 1 there and 2 here"):
        collect("ball-circle", tmp_path / "b.h5", transitions=400, seed=2, progress=False)


def stop(*_, **__):
    raise RuntimeError


# Evaluation


@pytest.fixture(scope="module")
def small_policy(undisturbed):
    return load_policy(undisturbed)


def test_an_interrupted_evaluation_goes_on_where_it_was(small_policy, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    settings = {"attacks": "natural,uniform,gaussian", "episodes": 3}
    undisturbed = harness.prepare(small_policy, **settings).run(
        workers=0, max_rows=3, progress=False
    )
    waves, whole = [], Rollouts.run

    def run(rollouts, jobs):
        waves.append([job.attack.name for job in jobs])
        if len(waves) == 3:
            raise KeyboardInterrupt
        return whole(rollouts, jobs)

    monkeypatch.setattr(Rollouts, "run", run)
    evaluation = harness.prepare(small_policy, **settings)
    how = {"workers": 0, "max_rows": 3, "progress": False, "keep_in": tmp_path}
    with pytest.raises(Interrupted) as caught:
        evaluation.run(**how)
    assert "2 of 3 batches" in caught.value.kept
    other = harness.prepare(small_policy, **settings | {"seed": 5})
    assert len(other.run(**how | {"keep_in": None}).episodes) == 9
    del waves[:]
    waves.append("not the first")
    report = evaluation.run(**how)
    assert waves == ["not the first", ["gaussian"]]
    assert report.episodes.to_csv() == undisturbed.episodes.to_csv()
    assert report.episodes.equals(undisturbed.episodes)


def test_what_another_evaluation_left_is_not_used(small_policy, tmp_path):
    how = {"workers": 0, "max_rows": 2, "progress": False}
    settings = {"attacks": "natural,uniform", "episodes": 2}
    harness.prepare(small_policy, **settings, seed=3).run(**how, keep_in=tmp_path)
    assert (tmp_path / "unfinished.json").exists()
    report = harness.prepare(small_policy, **settings, seed=4).run(**how, keep_in=tmp_path)
    assert report.episodes.equals(evaluate(small_policy, **settings, seed=4, **how).episodes)
    (tmp_path / "unfinished.json").write_text("{")
    again = harness.prepare(small_policy, **settings, seed=4).run(**how, keep_in=tmp_path)
    assert again.episodes.equals(report.episodes)


# Two at once


def test_one_process_writes_into_a_folder(data, tmp_path):
    with sole_writer(tmp_path / "run"):
        with pytest.raises(UsageError, match="another process is writing there"):
            train(CONFIG, data, out=tmp_path / "run", steps=2, progress=False)
        assert not list((tmp_path / "run").iterdir())
    assert not (tmp_path / "run").exists()
    train(CONFIG, data, out=tmp_path / "run", steps=2, progress=False)


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from safer_offline.locking import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with locked(tmp_path) as free:
        assert not free
    other.kill()
    other.communicate()
    with locked(tmp_path) as free:
        assert free


# Scripts


SCRIPT = """
from safer_offline.datasets import collect
collect("ball-circle", "b.h5", transitions=200, workers=1, progress=False)
"""


def test_a_script_without_a_guard_gets_a_sentence(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
    assert "bootstrapping" not in done.stderr


def test_a_script_from_standard_input_gets_a_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-"],
        input=SCRIPT, cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "put the script into a file" in done.stderr.splitlines()[-1]


def start(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "safer_offline", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
