"""The same data under other names and in other layouts: the message names the option that takes it.

The command in the message is run as it stands, so that no advice leads in a circle.
"""

import re
import shlex

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from safer_offline.cli.main import app
from safer_offline.datasets import load_dataset
from safer_offline.datasets.loading import find_source_problems
from safer_offline.errors import DataError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def write(tmp_path):
    def write_arrays(arrays, name="own.h5"):
        with h5py.File(tmp_path / name, "w") as own:
            for key, array in arrays.items():
                own[key] = array
        return tmp_path / name

    return write_arrays


@pytest.fixture
def arrays(make_arrays):
    """Four episodes that a limit of five steps cut, but for the last, which ended after four."""
    return make_arrays(infos=False)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def convert(path, *options):
    """What `data convert` makes of a file."""
    out = path.with_name("converted.h5")
    out.unlink(missing_ok=True)
    run("data", "convert", path, "--to", "hdf5", "-o", out, *options)
    return load_dataset(out)


def follow_advice(path, **answers):
    """Load a file, run the command that the refusal names, and so on until it is a dataset.

    Args:
        path: The file.
        answers: What to put in place of the capitals in a command, such as N.
    """
    given = []
    for _ in range(4):
        with pytest.raises(DataError) as caught:
            convert(path, *given) if given else load_dataset(path)
        message = str(caught.value)
        command = re.search(r"`safer-offline data convert (.*?) --to hdf5 -o NEW.h5`", message)
        assert command, message
        words = [str(answers.get(word, word)) for word in shlex.split(command[1])]
        assert words[0] == str(path)
        assert words[1:] != given, f"in a circle: {message}"
        given = words[1:]
        try:
            return convert(path, *given), given
        except DataError:
            continue
    raise AssertionError(f"no end of advice: {message}")


def assert_same(dataset, arrays, names=("observations", "actions", "rewards", "costs")):
    for name in (*names, "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(dataset, name), arrays[name])


def rename(arrays, **names):
    return {names.get(name, name): array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ({"costs": "cost"}, ["--cost-from", "cost"]),
        ({"costs": "infos/cost"}, ["--cost-from", "infos/cost"]),
        ({"costs": "infos/s/constraint_cost"}, ["--cost-from", "infos/s/constraint_cost"]),
        ({"terminals": "terminated", "timeouts": "truncated"},
         ["--map", "terminals=terminated", "--map", "timeouts=truncated"]),
        ({"observations": "obs", "next_observations": "next_obs", "actions": "act",
          "rewards": "Reward"},
         ["--map", "observations=obs", "--map", "next_observations=next_obs", "--map",
          "actions=act", "--map", "rewards=Reward"]),
        ({"terminals": "dones"}, ["--done-from", "dones"]),
        ({"observations": "my data/obs"}, ["--map", "observations=my data/obs"]),
    ],
)  # fmt: skip
def test_other_names(write, arrays, names, options):
    path = write(rename(arrays, **names))

    dataset, given = follow_advice(path)

    assert given == options
    assert_same(dataset, arrays)
    np.testing.assert_array_equal(dataset.next_observations, arrays["next_observations"])


def test_ends_of_both_kinds(write, arrays):
    arrays["dones"] = arrays.pop("timeouts") | arrays["terminals"]
    expected = dict(arrays, timeouts=arrays["dones"] & ~arrays["terminals"])
    del arrays["terminals"]
    path = write(arrays)

    dataset, given = follow_advice(path, N=5)

    assert given == ["--done-from", "dones", "--max-episode-steps", "5"]
    assert_same(dataset, expected)
    assert "'terminals' taken from 'dones'" in dataset.metadata.description
    with pytest.raises(DataError, match=r"'dones', row 3: an episode goes on after 4 steps"):
        convert(path, "--done-from", "dones", "--max-episode-steps", 4)
    with pytest.raises(DataError, match=r"--max-episode-steps N.*more than any"):
        convert(path, "--done-from", "dones")
    assert convert(path, "--done-from", "dones", "--max-episode-steps", 99).terminals.sum() == 4


@pytest.mark.parametrize("group", ["data", "run 1/log"])
def test_arrays_in_a_group(write, arrays, group):
    arrays["infos/robot/qpos"] = np.arange(19)
    path = write({f"{group}/{name}": array for name, array in arrays.items()} | {"note": 1})

    dataset, given = follow_advice(path)

    assert given == ["--group", group]
    assert_same(dataset, arrays)
    assert dataset.infos["robot/qpos"].tolist() == list(range(19))


def test_arrays_in_a_group_under_other_names(write, arrays):
    path = write({f"data/{k}": a for k, a in rename(arrays, costs="cost", actions="a").items()})

    with pytest.raises(DataError, match="--cost-from data/cost"):
        load_dataset(path)
    dataset = convert(path, "--group", "data", "--cost-from", "cost", "--map", "actions=a")

    assert_same(dataset, arrays)


def test_transposed_arrays_as_matlab_writes_them(write, arrays):
    arrays["infos/qpos"] = np.arange(57).reshape(19, 3)
    turned = {name: array.reshape(19, -1).T for name, array in arrays.items()}
    path = write(turned)

    dataset, given = follow_advice(path)

    assert given == ["--fix", "transpose"]
    assert_same(dataset, arrays)
    np.testing.assert_array_equal(dataset.infos["qpos"], arrays["infos/qpos"])
    assert "rows and columns of 8 arrays swapped" in dataset.metadata.description
    # A structure saved by MATLAB lies in a group, too.
    path = write({f"d/{name}": array for name, array in turned.items()}, name="struct.mat")
    assert_same(convert(path, "--group", "d", "--fix", "transpose"), arrays)


def test_one_transposed_array(write, arrays):
    path = write(arrays | {"observations": arrays["observations"].T})

    assert_same(follow_advice(path)[0], arrays)


@pytest.mark.parametrize("known", [True, False])
def test_flags_that_were_never_set(write, arrays, known):
    """Today's advice, to cut the unfinished rows off, would cut all of them off."""
    rows = 15  # three whole episodes
    arrays = {name: array[:rows] for name, array in arrays.items()}
    expected = dict(arrays)
    arrays = arrays | {"timeouts": np.zeros(rows), "terminals": np.zeros(rows)}
    path = write(arrays)
    if known:
        with h5py.File(path, "r+") as own:
            own.attrs["schema"] = "safer-offline/1"
            own.attrs["max_episode_steps"] = 5

    dataset, given = follow_advice(path, **({} if known else {"N": 5}))

    assert given == ["--max-episode-steps", "5"]
    assert_same(dataset, expected)
    assert dataset.metadata.max_episode_steps == 5
    with pytest.raises(DataError, match="no row ends an episode"):
        convert(path, "--fix", "drop-tail")
    if not known:
        with pytest.raises(DataError, match="none of the 15 is the 16th of one"):
            convert(path, "--max-episode-steps", 16)


def test_flags_that_were_never_set_and_a_tail(write, arrays):
    arrays["timeouts"], arrays["terminals"] = np.zeros(19), np.zeros(19)
    path = write(arrays)

    with pytest.raises(DataError, match=r"4 unfinished rows\n.*--fix drop-tail"):
        convert(path, "--max-episode-steps", 5)
    dataset = convert(path, "--max-episode-steps", 5, "--fix", "drop-tail")

    assert dataset.episodes["length"].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"observations": np.zeros((19, 8, 8, 3), np.uint8)}, "such as images; networks here read"),
        ({"actions": np.arange(19) % 3}, "discrete actions, for which there is no learner here"),
        ({"actions": np.linspace(0, 1, 19)}, "it must have (N, size)"),
    ],
)
def test_what_cannot_work_says_so(write, arrays, change, text):
    path = write(arrays | change)

    with pytest.raises(DataError, match=re.escape(text)):
        load_dataset(path)
    with pytest.raises(DataError, match=re.escape(text)):
        convert(path)
    assert any(text in problem.problem for problem in find_source_problems(path))


def test_episodes_in_groups_of_their_own(write, arrays):
    path = write(
        {f"data/demo_{n}/{name}": array for n in range(3) for name, array in arrays.items()}
    )

    with pytest.raises(DataError, match=r"group of its own \('data/demo_0', .*3 in all") as caught:
        load_dataset(path)
    assert "one row per transition" in caught.value.remedy
    path = write({f"episode_{n}/actions": arrays["actions"] for n in range(2)}, name="minari.h5")
    with pytest.raises(DataError, match="group of its own") as caught:
        convert(path)
    assert "name the dataset by its id" in caught.value.remedy


def test_a_column_can_be_kept(write, arrays):
    path = write(arrays | {"state/qpos": np.arange(38).reshape(19, 2)})

    dataset = convert(path, "--map", "infos/robot/qpos=state/qpos")

    assert dataset.infos["robot/qpos"][-1].tolist() == [36, 37]


def test_costs_of_which_there_are_two(write, arrays):
    path = write(arrays | {"cost": arrays["costs"] + 1})

    with pytest.raises(UsageError, match="changes nothing"):
        convert(path, "--cost-from", "cost")
    np.testing.assert_array_equal(convert(path, "--map", "costs=cost").costs, arrays["costs"] + 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--map", "observations"), "--map takes ARRAY=NAME"),
        (("--map", "obs=observations"), "'obs' is no array of ours; there are observations"),
        (("--map", "actions=none"), "no array 'none' to take for 'actions'; it holds actions, "),
        (("--cost-from", "cost", "--map", "costs=cost"), "exclude each other"),
        (("--done-from", "x", "--map", "terminals=x"), "exclude each other"),
    ],
)
def test_wrong_requests(write, arrays, options, text):
    with pytest.raises(UsageError, match=text):
        convert(write(arrays), *options)


def test_nested_columns_survive_whatever_is_done_to_a_dataset(write, arrays, tmp_path):
    robot = np.arange(76.0).reshape(19, 4)
    arrays |= {"infos/robot/qpos": robot, "infos/robot/arm/q": robot[:, 0]}
    path = write(arrays)

    def columns(path):
        return {name: column for name, column in load_dataset(path).infos.items() if "/" in name}

    def out(name):
        return tmp_path / f"{name}.h5"

    for target in ("hdf5", "d4rl", "dsrl"):
        run("data", "convert", path, "--to", target, "-o", out(target))
    run("data", "convert", path, "--to", "minari", "--id", "own/nested-v0")
    run("data", "convert", "own/nested-v0", "--to", "hdf5", "-o", out("minari"))
    run("data", "filter", path, "--max-cost", 1000, "-o", out("filter"))
    run("data", "sample", path, "-n", 4, "-o", out("sample"))
    run("data", "split", path, "--fractions", "0.5,0.5", "--out-dir", tmp_path / "parts")
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 2
    run("data", "merge", *parts, "-o", out("merge"))
    for name in ("hdf5", "d4rl", "dsrl", "minari", "filter", "sample", "merge"):
        found = columns(out(name))
        assert set(found) == {"robot/qpos", "robot/arm/q"}, name
        assert sorted(found["robot/qpos"].tolist()) == robot.tolist(), name
        np.testing.assert_array_equal(found["robot/qpos"][:, 0], found["robot/arm/q"])


def test_what_is_lost_on_the_way_to_another_format_is_named(write, arrays):
    path = write(arrays | {"infos/robot/name": [b"R2"] * 19, "picture": np.zeros((19, 4, 4))})

    for options in (("--to", "minari", "--id", "own/some-v0"), ("--to", "d4rl", "-o", "x.h5")):
        out = [str(path.with_name(word)) if word == "x.h5" else word for word in options]
        with pytest.warns(UserWarning, match=r"not read: .*infos/robot/name \(holds text\)"):
            run("data", "convert", path, *out)
