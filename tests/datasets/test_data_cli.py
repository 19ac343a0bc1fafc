"""`safer-offline data`."""

import json

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from safer_offline.cli.data import app
from safer_offline.datasets import OfflineDataset, load_dataset, save_dataset
from safer_offline.datasets.dataset.constants import find_constant_problems
from safer_offline.datasets.description.plots import plot_episodes
from safer_offline.datasets.description.summary import summarize
from safer_offline.errors import DataError, UsageError


@pytest.fixture
def file(tmp_path, dataset):
    path = tmp_path / "data.h5"
    save_dataset(path, dataset)
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_info_shows_what_matters(file):
    output = run("info", file).output

    for text in ("SafetyCarCircle-v0", "19", "per episode", "safe at", "10 (limit)", "frontier"):
        assert text in output
    assert load_dataset(file).metadata.content_sha256 in output


def test_info_as_json(file):
    content = json.loads(run("info", file, "--json", "--cost-limit", 2).output)

    episodes = load_dataset(file).episodes
    assert content["num_episodes"] == 4
    assert content["returns"]["maximum"] == pytest.approx(episodes["return"].max())
    assert content["costs"]["median"] == pytest.approx(episodes["cost"].median())
    assert [safe["cost_limit"] for safe in content["safe"]] == [2, 5, 10, 20, 40]
    assert content["safe"][0]["share"] == (episodes["cost"] <= 2).mean()
    assert [behavior["name"] for behavior in content["behaviors"]] == ["broad", "frontier"]


def test_info_of_a_bare_file(tmp_path, make_arrays):
    with h5py.File(tmp_path / "own.h5", "w") as own:
        for name, array in make_arrays(infos=False).items():
            own[name] = array

    output = run("info", tmp_path / "own.h5").output

    assert "environment not named" in output
    assert "behavior" not in output


@pytest.fixture
def degenerate(tmp_path, make_arrays):
    """Two numbers of an observation and one of an action never vary; one varies a little."""
    arrays = make_arrays(infos=False, observation_size=4)
    for name in ("observations", "next_observations"):
        arrays[name][:, [1, 3]] = [0, 2.5]
        arrays[name][:, 0] = 7
    arrays["observations"][5, 3] = np.nextafter(np.float32(2.5), np.float32(3))
    arrays["observations"][0, 0] = 7.001
    arrays["actions"][:, 1] = -1
    with h5py.File(tmp_path / "degenerate.h5", "w") as own:
        for name, array in arrays.items():
            own[name] = array
    return tmp_path / "degenerate.h5"


def test_info_tells_what_never_varies(degenerate):
    output = " ".join(run("info", degenerate).output.split())
    assert "2 of them never vary, counted from 0: 1 (always 0), 3 (always 2.5)" in output
    assert "1 of them never vary, counted from 0: 1 (always -1)" in output

    found = json.loads(run("info", degenerate, "--json").output)["constants"]
    assert found[1] == {"field": "observations", "place": 3, "value": 2.5}


def test_validate_tells_what_never_varies(degenerate, minari_folder):
    result = run("validate", degenerate)
    assert result.exit_code == 0
    assert "warning: " in result.output
    assert "'observations': 2 of 4 numbers of a row never vary" in result.output
    assert "is sound: 0 errors, 2 warnings" in result.output

    run("convert", degenerate, "--to", "minari", "--id", "own/degenerate-v0")
    assert "'observations': 2 of 4 numbers" in run("validate", "own/degenerate-v0").output


def test_many_constants_are_counted(make_arrays):
    arrays = make_arrays(observation_size=20)
    for name in ("observations", "next_observations"):
        arrays[name][:] = 0
    (problem,) = find_constant_problems(arrays)
    assert "20 of 20" in problem.problem
    assert problem.problem.endswith("7 (always 0), and 12 more")


def test_info_draws(file, tmp_path):
    output = run("info", file, "--plot", tmp_path / "plots" / "a.png").output

    assert "Wrote" in output
    assert (tmp_path / "plots" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_never_replaces_a_dataset(file, dataset):
    before = file.read_bytes()

    with pytest.raises(UsageError, match=r"data\.h5: a picture ends in \.png"):
        run("info", file, "--plot", file)
    with pytest.raises(UsageError, match="picture"):
        plot_episodes(dataset, file)
    assert file.read_bytes() == before


def test_a_limit_that_no_episode_meets(make_arrays):
    arrays = make_arrays()
    arrays["costs"] += 50

    safe = summarize(OfflineDataset.from_arrays(arrays)).safe[0]

    assert (safe.episodes, safe.share, safe.best_return) == (0, 0, None)


def test_info_of_a_bad_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        run("info", tmp_path / "none.h5")


def test_validate_a_sound_file(file):
    result = run("validate", file)

    assert result.exit_code == 0
    assert "is sound: 0 errors, 0 warnings" in result.output
    assert json.loads(run("validate", file, "--json").output)["valid"] is True


def test_validate_prints_every_problem(tmp_path, make_arrays):
    arrays = make_arrays(infos=False)
    arrays["costs"][3] = -1
    arrays["actions"][2] = 7
    arrays["rewards"][5] = float("nan")
    with h5py.File(tmp_path / "own.h5", "w") as own:
        for name, array in arrays.items():
            own[name] = array

    result = run("validate", tmp_path / "own.h5")

    assert result.exit_code == 1
    for text in ("'costs', row 3", "'rewards', row 5", "warning: ", "'actions', row 2", "Remedy"):
        assert text in result.output
    assert "cannot be used: 2 errors, 1 warnings" in result.output

    content = json.loads(run("validate", tmp_path / "own.h5", "--json").output)
    assert content["valid"] is False
    assert [problem["index"] for problem in content["problems"]] == [5, 3, 2]


def test_validate_what_is_no_file(tmp_path):
    result = run("validate", tmp_path / "none.h5")

    assert result.exit_code == 1
    assert "no such file" in result.output
