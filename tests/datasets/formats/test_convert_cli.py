"""`safer-offline data convert`, and Minari ids wherever a dataset is named."""

import json

import h5py
import minari
import numpy as np
import pytest
from typer.testing import CliRunner

from safer_offline.cli.main import app
from safer_offline.datasets import from_minari, load_dataset, save_dataset, to_minari
from safer_offline.datasets.formats import Format
from safer_offline.datasets.loading import default_run_name, detect_format
from safer_offline.errors import DataError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ID = "bullet/car-circle/mixed-v0"


@pytest.fixture
def d4rl_file(tmp_path, make_arrays):
    arrays = make_arrays()
    arrays["infos/damage"] = arrays.pop("costs")
    del arrays["next_observations"]
    with h5py.File(tmp_path / "d4rl.hdf5", "w") as own:
        for name, array in arrays.items():
            own[name] = array
    return tmp_path / "d4rl.hdf5"


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def convert(*arguments):
    return run("data", "convert", *arguments).output


def assert_same(path, original):
    back, dataset = load_dataset(path), load_dataset(original)
    assert back.metadata == dataset.metadata  # the hashes of all arrays among them
    for name, array in dataset.to_arrays().items():
        assert back.to_arrays()[name].dtype == array.dtype
        assert back.to_arrays()[name].tobytes() == array.tobytes()


def test_to_minari_and_back_gives_the_same_file(file, tmp_path):
    output = convert(file, "--to", "minari", "--id", ID)

    assert "19 transitions, 4 episodes" in output
    assert f'minari.load_dataset("{ID}")' in output
    assert minari.load_dataset(ID).total_steps == 19
    convert(ID, "--to", "hdf5", "--out", tmp_path / "back.h5")
    assert_same(tmp_path / "back.h5", file)


@pytest.mark.parametrize("target", ["d4rl", "dsrl", "hdf5"])
def test_files_lose_nothing(file, tmp_path, target):
    output = convert(file, "--to", target, "-o", tmp_path / "other.hdf5")

    assert "Wrote" in output
    assert "Next: " in output
    assert_same(tmp_path / "other.hdf5", file)


def test_dsrl_in_a_folder_is_found_by_name(file, tmp_path):
    output = convert(file, "--to", "dsrl", "-o", tmp_path / "dsrl")

    assert f"DSRL_DATASET_DIR={tmp_path / 'dsrl'}" in output
    assert "OfflineCarCircle-v0" in output
    assert load_dataset(tmp_path / "dsrl" / "SafetyCarCircle-v0-100-1450.hdf5").num_episodes == 4


def test_dsrl_under_another_name_says_which_osrl_needs(file, tmp_path):
    output = convert(file, "--to", "dsrl", "-o", tmp_path / "mine.hdf5")

    assert "SafetyCarCircle-v0-100-1450.hdf5: give --out a folder" in output


def test_a_file_of_d4rl_is_completed_on_request(d4rl_file, tmp_path):
    out = tmp_path / "own.h5"
    with pytest.raises(DataError, match=r"--cost-from.*--zero-costs"):
        convert(d4rl_file, "--to", "hdf5", "-o", out)
    options = ("--cost-from", "infos/damage", "--fix", "derive-next", "--fix", "terminal-wins")

    convert(d4rl_file, "--to", "hdf5", "-o", out, *options)

    dataset = load_dataset(out)
    assert dataset.num_transitions == 16
    np.testing.assert_array_equal(dataset.costs, dataset.infos["damage"])
    assert "3 rows cut by a timeout dropped" in dataset.metadata.description


def test_flaws_of_dsrl_are_mended_on_request(tmp_path, make_arrays):
    arrays = make_arrays()
    arrays["timeouts"][-1] = True
    with h5py.File(tmp_path / "dsrl.hdf5", "w") as own:
        for name, array in arrays.items():
            own[name] = array
    target = ("--to", "hdf5", "-o", tmp_path / "own.h5")

    with pytest.raises(DataError, match="row 18: both"):
        convert(tmp_path / "dsrl.hdf5", *target)
    convert(tmp_path / "dsrl.hdf5", "--from", "dsrl", "--fix", "terminal-wins", *target)

    assert load_dataset(tmp_path / "own.h5").terminals[-1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--to", "hdf5"), "hdf5 is a file; say where to write it: --out FILE"),
        (("--to", "minari"), "needs a name: --id"),
        (("--to", "minari", "--id", "x"), "no Minari dataset id"),
        (("--to", "minari", "--id", ID, "-o", "x.h5"), "leave --out out"),
        (("--to", "d4rl", "--id", ID, "-o", "x.h5"), "--id is for Minari"),
        (("--to", "d4rl", "-o", "FILE"), "exists already"),
        (("--to", "hdf5", "-o", "x.h5", "--zero-costs"), "read as hdf5, where --zero-costs"),
        (("--to", "hdf5", "-o", "x.h5", "--from", "d4rl", "--zero-costs"), "holds 'costs' already"),
        (("--to", "hdf5", "-o", "x.h5", "--from", "minari"), "no Minari dataset id"),
    ],
)
def test_wrong_usage(file, options, text):
    options = [str(file) if option == "FILE" else option for option in options]
    before = file.read_bytes()

    with pytest.raises(UsageError, match=text):
        convert(file, *options)
    assert file.read_bytes() == before


def test_unknown_choices(file):
    for options in (("--to", "csv"), ("--to", "hdf5", "--fix", "mend")):
        assert run("data", "convert", file, *options).exit_code == 2


def test_options_for_files_do_not_go_with_minari(dataset):
    to_minari(dataset, ID)

    with pytest.raises(UsageError, match="read as minari, where --group and --fix changes"):
        convert(ID, "--to", "hdf5", "-o", "x.h5", "--group", "a", "--fix", "drop-tail")
    with pytest.raises(UsageError, match="holds costs already"):
        convert(ID, "--to", "hdf5", "-o", "x.h5", "--zero-costs")


def test_the_name_in_the_metadata_is_the_default_id(tmp_path, dataset, metadata):
    named = type(metadata)(**{**vars(metadata), "name": "own/named-v3"})
    save_dataset(tmp_path / "own.h5", type(dataset)(**{**vars(dataset), "metadata": named}))

    assert 'load_dataset("own/named-v3")' in convert(tmp_path / "own.h5", "--to", "minari")
    assert from_minari("own/named-v3").metadata.name == "own/named-v3"


def test_sources(file, d4rl_file, dataset, tmp_path, monkeypatch):
    to_minari(dataset, ID)

    assert detect_format(file) is Format.hdf5
    assert detect_format(d4rl_file) is Format.d4rl
    assert detect_format(ID) is Format.minari
    assert default_run_name(ID) == "bullet-car-circle-mixed-v0"
    assert default_run_name(file) == "data"
    for source in (file, str(file), ID):
        assert load_dataset(source).num_transitions == 19
    with pytest.raises(DataError, match="no such file"):
        load_dataset(tmp_path / "none.h5")
    with pytest.raises(UsageError, match=f"did you mean '{ID}'"):
        load_dataset("bullet/car-circle/mixed-v1")
    monkeypatch.chdir(tmp_path)
    file.rename("own-v0")  # a file wins over an id
    assert load_dataset("own-v0").path.name == "own-v0"


def test_info_and_validate_take_an_id(dataset):
    to_minari(dataset, ID)

    assert json.loads(run("data", "info", ID, "--json").output)["num_episodes"] == 4
    result = run("data", "validate", ID)
    assert result.exit_code == 0
    assert f"{ID} is sound" in result.output


def test_validate_shows_every_problem_of_a_minari_dataset(dataset, minari_folder):
    to_minari(dataset, ID)
    with h5py.File(minari_folder / ID / "data" / "main_data.hdf5", "r+") as own:
        own["episode_0/actions"][2] = 7
        own["episode_1/infos/cost"][1] = -1

    result = run("data", "validate", ID)

    assert result.exit_code == 1
    for text in ("'actions', row 2", "'costs', row 5", "2 errors"):
        assert text in result.output
    with h5py.File(minari_folder / ID / "data" / "main_data.hdf5", "r+") as own:
        del own["episode_1/infos/cost"]
    assert "in episode 1 there are no costs" in run("data", "validate", ID).output


def test_train_takes_an_id(points, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    to_minari(points, "own/points-v0")
    small = ("hidden_sizes=16,16", "batch_size=32", "candidates=4", "recovery_states=200")
    settings = [part for setting in small for part in ("--set", setting)]

    run("train", "--data", "own/points-v0", "--steps", 4, "--cost-limit", 2, *settings)

    assert (tmp_path / "runs" / "own-points-v0" / "policy.safetensors").exists()
