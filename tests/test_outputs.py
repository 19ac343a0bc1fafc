"""Disks that are full, places where nobody may write, consoles that lack letters."""

import io
import os
import resource
import subprocess
import sys
import warnings

import pytest

from safer_offline import SAFERConfig, train
from safer_offline.cli.main import main
from safer_offline.datasets import collect, load_dataset
from safer_offline.errors import OutputError
from safer_offline.files import PatientFile, require_writable, write_atomically

SMALL = ("--set", "hidden_sizes=8,8", "--set", "recovery_states=20", "--set", "batch_size=16")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dataset and a run."""
    folder = tmp_path_factory.mktemp("user")
    collect("ball-circle", folder / "d.h5", transitions=4_000, workers=1, progress=False)
    config = SAFERConfig(cost_limit=90, hidden_sizes=(8, 8), batch_size=16, recovery_states=20)
    train(config, folder / "d.h5", out=folder / "run", steps=4, progress=False)
    return folder


COMMANDS = {
    "collect": ("collect", "ball-circle", "--transitions", 2_000, "--workers", 1, "-o", "{}.h5"),
    "train": ("train", "d.h5", "--cost-limit", 90, "--steps", 4, *SMALL, "-o", "{}"),
    "evaluate": (
        "evaluate", "run", "--episodes", 1, "--attacks", "natural", "--workers", 0, "-o", "{}",
    ),
    "convert": ("data", "convert", "d.h5", "--to", "hdf5", "-o", "{}.h5"),
    "d4rl": ("data", "convert", "d.h5", "--to", "d4rl", "-o", "{}.h5"),
    "filter": ("data", "filter", "d.h5", "--max-cost", 900, "-o", "{}.h5"),
    "split": ("data", "split", "d.h5", "-o", "{}"),
    "plot": ("data", "info", "d.h5", "--plot", "{}.png"),
}  # fmt: skip


def run(*arguments, cwd, limit=None, **environment):
    def at_most():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "safer_offline", *map(str, arguments)],
        cwd=cwd,
        check=False,
        capture_output=True,
        env=os.environ | environment,
        preexec_fn=at_most if limit else None,
    )


def command(name, out):
    return [str(word).format(out) for word in COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_places_where_nothing_can_be_written_are_refused_before_the_work(
    place, tmp_path, monkeypatch, capfd, name
):
    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` replaces
    for out in (tmp_path / "file" / "x", "/proc/x", tmp_path / ("n" * 300)):
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setattr(sys, "argv", ["safer-offline", *command(name, out)])
        with pytest.raises(SystemExit) as end:
            main()
        output, said = capfd.readouterr()
        assert end.value.code == 1, said
        assert "cannot be written" in said
        assert "Remedy: " in said
        assert output == ""  # no table, no progress: nothing was done
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["collect", "train", "evaluate", "convert", "split"])
def test_a_disk_that_is_full_is_told_and_nothing_is_left_half_written(place, tmp_path, name):
    """A limit on the size of files fails like a full disk, in the middle of writing."""
    limit = {"train": 2_000, "evaluate": 600}.get(name, 20_000)
    done = run(*command(name, tmp_path / "out"), cwd=place, limit=limit)
    said = done.stderr.decode()
    assert done.returncode == 1, (done.returncode, said)
    assert "cannot be written (File too large" in said
    assert "Traceback" not in said
    assert "Remedy: check that the disk has room" in said
    if name == "evaluate":
        assert b"natural" in done.stdout  # what took minutes is seen
    for path in tmp_path.rglob("*"):
        assert ".tmp" not in path.name
        if path.suffix == ".h5":
            load_dataset(path)
    if name in ("collect", "train"):
        again = [*command(name, tmp_path / "out"), *(["--resume"] if name == "train" else [])]
        assert run(*again, cwd=place).returncode == 0


def test_the_old_file_survives_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_trying_leaves_nothing_behind(tmp_path):
    require_writable(tmp_path / "a" / "b" / "c.h5")
    require_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_patient_file_keeps_the_first_failure(tmp_path):
    disk = PatientFile(tmp_path / "a")
    assert disk.write(b"abc") == 3
    disk._file.close()  # every write fails from here on
    disk._file = (tmp_path / "a").open("rb", buffering=0)
    assert disk.write(b"def") == 3
    assert isinstance(disk.failure, OSError)
    with pytest.raises(OSError, match="not open for writing"):
        disk.finish()
    disk.close()
    assert (tmp_path / "a").read_bytes() == b"abc"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        command("evaluate", "{}"),
        ["evaluate", "run", "--list"],
        ["data", "info", "d.h5"],
        ["train", "--help"],
        ["collect", "--list"],
        ["evaluate", "nowhere-ε"],
    ],
    ids=["evaluate", "list", "info", "help", "recipes", "error"],
)
def test_no_console_is_too_poor(place, tmp_path, monkeypatch, encoding, arguments):
    words = [word.format(tmp_path / "out") for word in arguments]
    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` replaces
    monkeypatch.setattr(sys, "argv", ["safer-offline", *words])
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(SystemExit) as end:
        main()
    for stream in streams:
        stream.flush()
    # Click takes ASCII for a mistake and writes UTF-8 there.
    said, errors = (stream.buffer.getvalue().decode(encoding, "replace") for stream in streams)
    assert (end.value.code or 0) == (1 if "nowhere-ε" in words else 0), errors
    if words[0] == "evaluate" and "-o" in words:
        assert "eps = 0.05" in said
        assert "+-" in said or encoding != "ascii"
        assert (tmp_path / "out" / "evaluation.csv").exists()
    if "nowhere-ε" in words:
        assert "there is no such policy" in errors


def test_a_console_of_a_process_of_its_own_is_accepted_too(place):
    done = run("evaluate", "nowhere-ε", cwd=place, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 1
    assert b"there is no such policy" in done.stderr
