"""`safer-offline data filter | split | merge | sample`, as a user meets them."""

import dataclasses
import json
import os
import sys
import warnings

import h5py
import pytest

from safer_offline.cli.main import main
from safer_offline.datasets import load_dataset, peek_metadata, save_dataset
from safer_offline.datasets.storage.provenance import save_derived
from safer_offline.errors import DataError


@pytest.fixture
def run(capsys, monkeypatch):
    """The program: its exit code, what it prints, and what it says on standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["safer-offline", "data", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
            else:
                code = 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def contents(folder):
    """Every file below a folder, by its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["filter", "split", "merge", "sample"])
def test_help(run, command):
    code, out, _ = run(command, "--help")

    assert code == 0
    assert "--overwrite" in out
    assert "--json" in out


# Filter


def test_filter(run, file, tmp_path):
    out = tmp_path / "new" / "safe.h5"

    code, printed, _ = run("filter", file, "--max-cost", 2, "-o", out)

    episodes = load_dataset(file).episodes
    kept = int((episodes["cost"] <= 2).sum())
    assert code == 0
    assert f"Wrote {out}: {kept} of 4 episodes" in printed
    assert f"--max-cost 2 removes {4 - kept}" in printed
    result = load_dataset(out)
    assert result.num_episodes == kept
    assert result.episodes["cost"].max() <= 2


def test_what_is_written_says_where_it_comes_from(run, file, tmp_path, dataset):
    before = peek_metadata(file)

    run("filter", file, "--behavior", "broad", "-o", tmp_path / "a.h5")
    run("sample", tmp_path / "a.h5", "-n", 1, "-o", tmp_path / "b b.h5")

    first, second = peek_metadata(tmp_path / "a.h5"), peek_metadata(tmp_path / "b b.h5")
    assert first.parents == (before.content_sha256,)
    assert second.parents == (first.content_sha256,)
    assert first.command == (
        f"safer-offline data filter {file} --behavior broad -o {tmp_path / 'a.h5'}"
    )
    assert second.command == (
        f"{first.command} && safer-offline data sample {tmp_path / 'a.h5'} -n 1 "
        f"-o '{tmp_path / 'b b.h5'}'"
    )
    assert first.created_at > before.created_at
    assert first.author == dataset.metadata.author


def test_filter_by_everything(run, file, tmp_path):
    code, printed, _ = run(
        *("filter", file, "--quality", "safe", "--cost-limit", 4, "--behavior", "broad"),
        *("--behavior", "frontier", "--min-length", 5, "--top-return", 0.5),
        *("--density", 1, "--cost-bins", 2, "--return-bins", 2, "--min-per-bin", 1),
        *("--seed", 3, "-o", tmp_path / "a.h5", "--json"),
    )

    content = json.loads(printed)
    result = load_dataset(tmp_path / "a.h5")
    assert code == 0
    assert content["source"] == {"episodes": 4, "transitions": 19}
    assert content["written"][0]["episodes"] == result.num_episodes
    assert content["written"][0]["content_sha256"] == result.metadata.content_sha256
    assert content["written"][0]["parents"] == [peek_metadata(file).content_sha256]
    assert content["removed"]["--min-length 5"] == 1
    assert content["removed"]["thinning"] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "there is no condition"),
        (("--max-cost", -1), "--max-cost -1 removes 4"),
        (("--max-cost", "nan"), "--max-cost is no number"),
        (("--behavior", "nobody"), "those who acted are broad, frontier"),
        (("--density", 2), "--density is a share"),
        (("--density", 0.5, "--max-per-bin", 1), "either --density or --max-per-bin"),
        (("--quality", "expert"), "expert"),
    ],
)
def test_filters_that_make_no_sense_write_nothing(run, file, tmp_path, arguments, text):
    before = contents(tmp_path)

    code, _, said = run("filter", file, "-o", tmp_path / "new" / "a.h5", *arguments)

    assert code == 2
    assert text in said
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


# Split


def test_split(run, file, tmp_path):
    code, printed, _ = run("split", file, "--fractions", "0.5,0.25,0.25", "--seed", 1)

    assert code == 0
    parts = [load_dataset(tmp_path / f"data.{n}.h5") for n in ("train", "validation", "test")]
    assert [part.num_episodes for part in parts] == [2, 1, 1]
    seeds = [seed for part in parts for seed in part.episodes["seed"]]
    assert sorted(seeds) == load_dataset(file).episodes["seed"].tolist()
    assert {part.metadata.parents for part in parts} == {(peek_metadata(file).content_sha256,)}
    assert f"Wrote {tmp_path / 'data.validation.h5'}: 1 of 4 episodes" in printed


def test_split_elsewhere_under_other_names(run, file, tmp_path):
    arguments = ("split", file, "--fractions", "0.5,0.5", "--no-stratify")

    assert run(*arguments, "-o", tmp_path / "parts")[0] == 0
    code, printed, _ = run(*arguments, "--names", "a, b", "-o", tmp_path / "parts", "--json")

    names = {"data.train.h5", "data.test.h5", "data.a.h5", "data.b.h5"}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names
    assert code == 0
    assert json.loads(printed)["stratified"] is False
    assert len(json.loads(printed)["written"]) == 2
    assert run("split", file, "--fractions", "0.25,0.25,0.25,0.25")[0] == 0
    assert (tmp_path / "data.part4.h5").exists()


def test_the_same_split_twice_is_the_same(run, file, tmp_path):
    for folder in ("one", "two"):
        run("split", file, "--fractions", "0.5,0.5", "--seed", 5, "-o", tmp_path / folder)

    for name in ("data.train.h5", "data.test.h5"):
        one, two = (peek_metadata(tmp_path / folder / name) for folder in ("one", "two"))
        assert one.content_sha256 == two.content_sha256


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--fractions", "0.8,0.1"), "add up to 0.9"),
        (("--fractions", "80 %"), "no list of numbers"),
        (("--fractions", "0.9,0.1"), "would be empty"),
        (("--fractions", "0.5,0.5", "--names", "a"), "1 names for 2 fractions"),
        (("--fractions", "0.5,0.5", "--names", "a,a"), "'a' will not do"),
        (("--fractions", "0.5,0.5", "--names", "../a,b"), "'../a' will not do"),
        (("--fractions", "0.5,0.5", "--seed", -1), "--seed must not be negative"),
    ],
)
def test_splits_that_make_no_sense_write_nothing(run, file, tmp_path, arguments, text):
    before = contents(tmp_path)

    code, _, said = run("split", file, *arguments)

    assert code == 2
    assert text in said
    assert contents(tmp_path) == before


def test_a_split_never_mixes_with_an_older_one(run, file, tmp_path):
    """One part that is in the way is enough to leave all of them as they were."""
    run("split", file, "--fractions", "0.5,0.5", "--seed", 1)
    (tmp_path / "data.train.h5").unlink()
    before = contents(tmp_path)

    code, _, said = run("split", file, "--fractions", "0.5,0.5", "--seed", 2)

    assert code == 2
    assert f"{tmp_path / 'data.test.h5'} exists; name another with -o, or say --overwrite" in said
    assert contents(tmp_path) == before
    assert run("split", file, "--fractions", "0.5,0.5", "--seed", 2, "--overwrite")[0] == 0
    assert contents(tmp_path).keys() == before.keys() | {tmp_path / "data.train.h5"}


def test_a_failure_half_way_changes_nothing(run, file, tmp_path, monkeypatch):
    run("split", file, "--fractions", "0.5,0.5", "--seed", 1)
    before = contents(tmp_path)
    calls = []
    flush = os.fsync

    def fail_late(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail_late)
    code, _, said = run("split", file, "--fractions", "0.5,0.5", "--seed", 2, "--overwrite")

    assert code == 1
    assert f"{tmp_path / 'data.test.h5'}: the file cannot be written" in said
    assert "No space left" in said
    assert contents(tmp_path) == before


# Merge


def test_split_and_merge_come_to_the_same(run, file, tmp_path):
    run("split", file, "--fractions", "0.5,0.5", "-o", tmp_path)
    parts = [tmp_path / "data.train.h5", tmp_path / "data.test.h5"]

    code, printed, said = run("merge", *parts, "-o", tmp_path / "whole.h5", "--json")

    merged = load_dataset(tmp_path / "whole.h5")
    assert (code, said) == (0, "")
    assert json.loads(printed)["source"] == {"episodes": 4, "transitions": 19}
    assert merged.metadata.parents == tuple(peek_metadata(part).content_sha256 for part in parts)
    assert sorted(merged.episodes["return"]) == sorted(load_dataset(file).episodes["return"])
    history = merged.metadata.command
    assert history.count("data split") == 1
    assert history.endswith(f"merge {parts[0]} {parts[1]} -o {tmp_path / 'whole.h5'} --json")


def test_merge_says_what_is_wrong(run, file, tmp_path, dataset):
    with h5py.File(tmp_path / "own.h5", "w") as own:
        for name, array in dataset.to_arrays().items():
            if not name.startswith("infos/"):
                own[name] = array

    code, _, said = run("merge", file, tmp_path / "own.h5", "-o", tmp_path / "both.h5")

    assert code == 0
    assert "4 of 8 episodes are copies" in said
    assert f"the column 'infos/seed' is dropped: {tmp_path / 'own.h5'} lacks it" in said
    assert "disagree on 'cost_limit'" in said
    assert load_dataset(tmp_path / "both.h5").infos["parent_id"].tolist() == [0] * 19 + [1] * 19
    code, printed, said = run(
        "merge", file, file, "-o", tmp_path / "one.h5", "--drop-duplicates", "--license", "MIT"
    )
    assert (code, said) == (0, "")
    assert "4 of 8 episodes" in printed
    assert peek_metadata(tmp_path / "one.h5").license == "MIT"


def test_merges_that_make_no_sense_write_nothing(run, file, tmp_path, dataset):
    elsewhere = tmp_path / "elsewhere.h5"
    metadata = dataclasses.replace(dataset.metadata, env_id="SafetyBallRun-v0")
    save_dataset(elsewhere, dataclasses.replace(dataset, metadata=metadata))
    before = contents(tmp_path)

    for sources, text in (
        ([file, elsewhere], f"{file} has env_id SafetyCarCircle-v0, {elsewhere} has env_id"),
        ([file], "two datasets or more"),
    ):
        code, _, said = run("merge", *sources, "-o", tmp_path / "both.h5")
        assert code == 2
        assert text in said
    assert run("merge", file, tmp_path / "none.h5", "-o", tmp_path / "both.h5")[0] == 1
    assert contents(tmp_path) == before


# Sample


def test_sample(run, file, tmp_path):
    code, printed, _ = run("sample", file, "-n", 2, "--stratify", "-o", tmp_path / "a.h5")
    again = run("sample", file, "-n", 2, "--stratify", "-o", tmp_path / "b.h5", "--json")

    one, two = (peek_metadata(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert code == 0
    assert "2 of 4 episodes" in printed
    assert one.content_sha256 == two.content_sha256
    assert json.loads(again[1])["written"][0]["content_sha256"] == one.content_sha256
    assert run("sample", file, "--transitions", 11, "-o", tmp_path / "c.h5")[0] == 0
    assert peek_metadata(tmp_path / "c.h5").num_transitions >= 11


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "either a number of episodes"),
        (("-n", 5), "cannot draw 5 episodes from 4"),
        (("-n", 1, "--transitions", 1), "either a number of episodes"),
    ],
)
def test_samples_that_make_no_sense(run, file, tmp_path, arguments, text):
    code, _, said = run("sample", file, *arguments, "-o", tmp_path / "a.h5")

    assert code == 2
    assert text in said
    assert not (tmp_path / "a.h5").exists()


# Files


@pytest.mark.parametrize(
    "command", [("filter", "--max-cost", 9), ("sample", "-n", 1), ("merge", "other.h5")]
)
def test_no_file_is_lost(run, file, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    save_dataset("other.h5", load_dataset(file))
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / "link.h5").symlink_to(file)
    before = contents(tmp_path)
    name, *arguments = command

    code, _, said = run(name, file, *arguments, "-o", "mine.txt")
    assert code == 2
    assert "mine.txt exists" in said
    for source in (file, "./data.h5", "link.h5"):
        code, _, said = run(name, file, *arguments, "-o", source, "--overwrite")
        assert code == 2
        assert "is read by this command" in said
    code, _, said = run(name, file, *arguments, "-o", tmp_path)
    assert code == 2
    assert "is a folder" in said
    code, _, said = run(name, file, *arguments, "-o", "mine.txt/a.h5")
    assert code == 1
    assert "cannot be written (Not a directory" in said
    assert contents(tmp_path) == before

    assert run(name, file, *arguments, "-o", "mine.txt", "--overwrite")[0] == 0
    assert load_dataset(tmp_path / "mine.txt").num_transitions > 0
    assert contents(tmp_path).keys() == before.keys()


def test_a_damaged_source_is_an_error(run, file, tmp_path):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])

    code, _, said = run("sample", file, "-n", 1, "-o", tmp_path / "a.h5")

    assert code == 1
    assert "damaged" in said
    assert not (tmp_path / "a.h5").exists()


def test_a_dataset_that_breaks_the_format_is_named_by_its_file(dataset, tmp_path):
    dataset.costs[3] = -1

    with pytest.raises(DataError, match=r"new/a\.h5, 'costs', row 3.*negative") as caught:
        save_derived({tmp_path / "new" / "a.h5": dataset})
    assert "tmp" not in str(caught.value).replace(str(tmp_path), "")
    assert not list((tmp_path / "new").iterdir())
