"""The command line as a user meets it: what it writes, what it says, and its exit codes."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from safer_offline import load_policy
from safer_offline.cli.evaluate import DEFAULT_BUDGET
from safer_offline.cli.main import main
from safer_offline.datasets import load_dataset, save_dataset
from safer_offline.learners.robust import RobustConfig
from safer_offline.training.checkpoints import CHECKPOINT_FILE, load_checkpoint, save_checkpoint

TINY = [
    *("--set", "hidden_sizes=16,16"),
    *("--set", "batch_size=32"),
    *("--set", "recovery_states=100"),
    *("--set", "candidates=3"),
    *("--set", "mixture_components=2"),
]


def run(*arguments, cwd=None):
    """The program in a process of its own."""
    code = "from safer_offline.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )


def ok(*arguments, cwd=None):
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


# The way through it


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which someone has collected, trained and evaluated."""
    folder = tmp_path_factory.mktemp("user")
    ok("collect", "ball-circle", "--transitions", 1_500, "--workers", 1, cwd=folder)
    data = "ball_circle.h5"
    # So few episodes that a limit of 60 is one that enough of them keep.
    train = ("train", "--data", data, "--cost-limit", 60, "--steps", 24, *TINY)
    folder.joinpath("train.txt").write_text(ok(*train, cwd=folder).stdout)
    evaluate = ("evaluate", "runs/ball_circle", "--attacks", "natural,uniform,mc")
    evaluate += ("--episodes", 2, "--workers", 0)
    folder.joinpath("evaluate.txt").write_text(ok(*evaluate, cwd=folder).stdout)
    return folder


def test_collecting_made_a_dataset(place):
    dataset = load_dataset(place / "ball_circle.h5")
    assert dataset.num_transitions == 1_600
    assert dataset.metadata.env_id == "SafetyBallCircle-v0"
    assert not list(place.glob("*.shards"))


def test_training_made_a_run(place):
    run_folder = place / "runs" / "ball_circle"
    config = json.loads((run_folder / "config.json").read_text())
    assert config["config"]["cost_limit"] == 60
    assert config["config"]["hidden_sizes"] == [16, 16]
    assert config["steps"] == 24
    assert pd.read_csv(run_folder / "metrics.csv")["step"].iloc[-1] == 24
    info = load_policy(run_folder).info
    dataset = load_dataset(place / "ball_circle.h5")
    assert info.context.env_id == "SafetyBallCircle-v0"
    assert info.dataset_sha256 == dataset.metadata.content_sha256
    assert "safer-offline evaluate runs/ball_circle" in (place / "train.txt").read_text()


def test_evaluating_made_a_report(place):
    run_folder = place / "runs" / "ball_circle"
    (results,) = (run_folder / "evaluations").iterdir()
    table = pd.read_csv(results / "evaluation.csv")
    assert table["attack"].tolist() == ["natural", "uniform", "mc"]
    columns = "epsilon episodes reward_mean reward_std cost_mean cost_std violation_rate"
    assert set(columns.split()) <= set(table.columns)
    assert (table["episodes"] == 2).all()
    assert np.isfinite(table[["reward_mean", "cost_mean"]]).all(axis=None)
    report = json.loads((results / "evaluation.json").read_text())
    assert report["config"]["env"] == "SafetyBallCircle-v0"
    assert list(results.glob("evaluation*.png"))
    output = (place / "evaluate.txt").read_text()
    for text in ("natural", "uniform", "mc", "evaluation.csv"):
        assert text in output


def test_evaluating_with_another_budget_than_trained_for_is_said(place, tmp_path, here):
    out = tmp_path / "run"
    train = ("train", place / "ball_circle.h5", "--out", out, "--steps", 4, "--no-foresee", *TINY)
    assert here(*train, "--epsilon", 0.02)[0] == 0
    evaluate = ("evaluate", out, "--attacks", "uniform", "--episodes", 1, "--workers", 0)
    code, _, said = here(*evaluate)
    assert code == 0
    assert "--epsilon 0.02 attacks it with its own" in said
    assert "with its own" not in here("evaluate", out, "--attacks", "natural", *evaluate[4:])[2]
    assert "with its own" not in here(*evaluate, "--epsilon", 0.02)[2]
    usual = here("evaluate", place / "runs" / "ball_circle", *evaluate[2:], "--out", out / "usual")
    assert usual[0] == 0
    assert "with its own" not in usual[2]
    assert float(DEFAULT_BUDGET) == RobustConfig().epsilon


def test_json_is_all_that_is_printed_and_agrees_with_the_file(place, tmp_path, here):
    code, output, _ = here(
        *("evaluate", place / "runs" / "ball_circle" / "policy.safetensors", "--json"),
        *("--env", "ball-circle", "--attacks", "natural", "--episodes", 1),
        *("--workers", 0, "--out", tmp_path / "out"),
    )
    assert code == 0
    printed = json.loads(output)
    assert printed["config"]["env"] == "SafetyBallCircle-v0"
    assert printed["summary"][0]["attack"] == "natural"
    assert printed == json.loads((tmp_path / "out" / "evaluation.json").read_text())


def test_resume_on_a_finished_run_is_no_error(place, here):
    data, folder = place / "ball_circle.h5", place / "runs" / "ball_circle"
    before = (folder / "policy.safetensors").read_bytes()
    train = ("train", "--data", data, "--cost-limit", 60, "--steps", 24, *TINY)
    code, output, _ = here(*train, "--out", folder, "--resume")
    assert code == 0
    assert str(folder) in output
    assert (folder / "policy.safetensors").read_bytes() == before


# What goes wrong


@pytest.fixture
def here(monkeypatch, capfd, tmp_path):
    """Runs the program in this process, in an empty folder: a traceback fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` replaces

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["safer-offline", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        output, errors = capfd.readouterr()
        return code, output, errors

    return run_here


@pytest.fixture
def refused(here):
    """The program must end with this code and a message on standard error alone."""

    def run_refused(code, *texts, arguments):
        ended, output, errors = here(*arguments)
        # Lines may be broken to the width of a terminal, and boxed.
        said = " ".join(errors.replace("│", " ").split())
        assert ended == code, said
        assert output == ""
        for text in texts:
            assert text in said
        return said

    return run_refused


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("collect", "car-circel"), "the nearest is 'car-circle'"),
        (("collect", "my_module:make"), "say with --policy who acts"),
        (("collect", "car-circle", "--cost-key", "danger"), "--cost-key goes with --policy"),
        (("collect", "car-circle", "--policy", "frontie"), "frontier"),
        (("collect", "nowhere:make", "--policy", "nowhere:act"), "nowhere"),
        (("collect", "ball-circle", "--transitions", "0"), "transitions must be at least 1"),
        (("collect", "ball-circle", "--transitions", "many"), "Invalid value for '--transitions'"),
        (("collect", "ball-circle", "--format", "zarr"), "'zarr' is not one of"),
        (("colect",), "No such command 'colect'"),
        (("train",), "say what to learn from"),
        (("train", "a.h5", "--data", "b.h5"), "both a.h5 and --data b.h5 are given"),
        (("train", "a.h5", "--algorithm", "safr"), "the nearest known one is 'safer'"),
    ],
)
def test_wrong_requests_end_with_code_2(tmp_path, refused, arguments, text):
    refused(2, text, arguments=arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--set", "margn=1"], "there is no 'margn'; the nearest is 'margin'"),
        (["--set", "margin=wide"], "the value must look like"),
        (["--set", "margin"], "NAME=VALUE"),
        (["--epsilon", "0.1,x"], "--epsilon: 'x' at position 1 is no number"),
        (["--epsilon", "-0.1"], "epsilon must be finite and not negative"),
        (["--epsilon", "nan"], "epsilon must be finite and not negative"),
        (["--epsilon", "0.1,0.2"], "8 coordinates"),
        (["--cost-limit", "-3"], "cost_limit must be"),
        (["--steps", "1"], "at least 2 steps"),
        (["--threads", "0"], "--threads"),
        (["--estep-solver", "simplex"], "'simplex' is not one of"),
    ],
)
def test_impossible_trainings_end_with_code_2_and_write_nothing(
    place, tmp_path, refused, options, text
):
    data = place / "ball_circle.h5"
    arguments = ("train", "--data", data, "--out", tmp_path / "run", "--cost-limit", 60, *options)
    refused(2, text, arguments=arguments)
    assert not (tmp_path / "run").exists()


def test_files_that_are_missing_or_no_dataset_end_with_code_1(tmp_path, refused):
    for name, content, text in (
        ("none.h5", None, "there is no such file"),
        ("text.h5", b"hello", "this is no HDF5 file"),
        ("empty.h5", b"", "the file is empty"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        for command in ("train", "--data"), ("data", "info"):
            said = refused(1, str(path), text, arguments=(*command, path))
            assert "Remedy: " in said
    assert not (tmp_path / "runs").exists()


def test_a_bad_number_in_a_dataset_is_told_by_file_field_and_row(points, tmp_path, refused):
    path = tmp_path / "points.h5"
    with h5py.File(path, "w") as file:
        for name, array in points.to_arrays().items():
            if "/" not in name:
                file[name] = array
        file["costs"][5] = -1.0
    said = refused(1, arguments=("train", "--data", path, "--out", tmp_path / "run"))
    for text in (str(path), "'costs'", "row 5", "Remedy: "):
        assert text in said
    assert not (tmp_path / "run").exists()


def test_what_exists_is_refused_and_untouched(place, tmp_path, refused):
    precious = tmp_path / "ball_circle.h5"
    precious.write_text("precious")
    refused(2, "ball_circle.h5 exists", arguments=("collect", "ball-circle"))
    assert precious.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["ball_circle.h5"]

    folder = place / "runs" / "ball_circle"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = ("train", "--data", place / "ball_circle.h5", "--cost-limit", 60)
    refused(2, "holds a run already", arguments=(*arguments, "--out", folder))
    said = refused(1, arguments=(*arguments, "--out", folder, "--resume", "--seed", 5))
    assert "'steps'" in said or "'seed'" in said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_algorithm_ends_with_code_1(place, tmp_path, refused):
    state = load_checkpoint(place / "runs" / "ball_circle" / CHECKPOINT_FILE)
    state["identity"]["algorithm"] = "bcq"
    save_checkpoint(tmp_path / CHECKPOINT_FILE, state)
    train = ("train", "--data", place / "ball_circle.h5", "--cost-limit", 60, "--steps", 24, *TINY)
    said = refused(1, "made with bcq", arguments=(*train, "--out", tmp_path, "--resume"))
    assert "Remedy: " in said


def test_policies_that_cannot_be_used_end_with_code_1(place, tmp_path, refused):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    for path, text in (
        (tmp_path / "none", "there is no such policy"),
        (foreign, "has format"),
        (place / "ball_circle.h5", "cannot be read"),
    ):
        refused(1, str(path), text, arguments=("evaluate", path, "--env", "ball-circle"))
    assert [path.name for path in tmp_path.iterdir()] == ["foreign.safetensors"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--env", "ball-circel"], 2, "nearest known one is 'SafetyBallCircle-v0'"),
        (["--attacks", "natural,mcc"], 2, "'mcc'"),
        (["--epsilon", "big"], 2, "--epsilon: 'big' at position 0 is no number"),
        (["--episodes", "0"], 2, "episodes"),
        (["--workers", "-1"], 2, "workers"),
        (["--env", "drone-run"], 1, "size"),
    ],
)
def test_impossible_evaluations_are_refused(place, refused, options, code, text):
    policy = place / "runs" / "ball_circle"
    arguments = ("evaluate", policy, "--out", "out", "--workers", 0, *options)
    refused(code, text, arguments=arguments)
    assert not Path("out").exists()


def test_warnings_are_for_users(make_points, tmp_path, here):
    """Not with the line of code that raised them, as Python shows them."""
    save_dataset(tmp_path / "points.h5", make_points(episodes=25, lanes=(0.6,) * 4 + (0.0,)))
    code, _, errors = here(
        *("train", "--data", tmp_path / "points.h5", "--out", tmp_path / "run"),
        *("--steps", 4, "--cost-limit", 2, *TINY),
    )
    assert code == 0
    assert "Warning: " in errors
    assert "only 5 of 25 episodes keep the cost limit of 2" in errors
    assert "UserWarning" not in errors
    assert ".py:" not in errors


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("collect", "car-circel"), 2, "Error: there is no recipe 'car-circel'"),
        (("data", "info", "none.h5"), 1, "Error: none.h5: there is no such file"),
        (("train", "--steps", "many"), 2, "Invalid value for '--steps'"),
    ],
)
def test_exit_codes_reach_the_shell(tmp_path, arguments, code, text):
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


# Help

HELP_OF_ALL = """
import sys
from safer_offline.cli.evaluate import DEFAULT_BUDGET
from safer_offline.cli.main import main

for command in ("", "collect", "train", "foresee", "evaluate", "report", "data", "data info"):
    sys.argv = ["safer-offline", *command.split(), "--help"]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, command
    else:
        raise AssertionError(command)
heavy = {"torch", "pandas", "h5py", "pybullet", "gymnasium", "matplotlib", "cvxpy", "minari"}
print("heavy:", heavy & set(sys.modules))
"""


def test_help_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == 8
    assert "heavy: set()" in done.stdout


def test_the_program_is_installed_and_tells_its_version():
    program = Path(sys.executable).with_name("safer-offline")
    done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("safer-offline 0.")


KERNELS = ("OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "MKL_CBWR")


def test_one_arithmetic_for_all_processors():
    """Kernels differ by processor, and with them what is simulated and what is learned."""
    from safer_offline.cli.arithmetic import has_avx2

    if not has_avx2():
        pytest.skip("kernels are chosen for processors with AVX2")
    program = (
        "import safer_offline.cli.main, os, torch\n"
        f"print(*(os.environ[name] for name in {KERNELS}), torch.backends.cpu.get_cpu_capability())"
    )
    for told, expected in (
        ({}, "Haswell avx2 AVX2 AVX2"),
        ({"OPENBLAS_CORETYPE": "SkylakeX"}, "SkylakeX avx2 AVX2 AVX2"),
        ({"ATEN_CPU_CAPABILITY": "default"}, "Haswell default AVX2 DEFAULT"),
    ):
        environment = {k: v for k, v in os.environ.items() if k not in KERNELS} | told
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.strip() == expected


def test_kernels_are_not_chosen_for_what_is_there_already():
    program = "import torch, os, safer_offline.cli.arithmetic; print(*os.environ)"
    environment = {k: v for k, v in os.environ.items() if k not in KERNELS}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert not set(KERNELS) & set(done.stdout.split())
