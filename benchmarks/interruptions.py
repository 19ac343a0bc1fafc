"""Ctrl-C and SIGTERM at random moments, and disks that are full at random sizes.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/interruptions.py [TRIALS]
Writes benchmarks/results/interruptions.csv, a row a trial; it goes on where it stopped. TRIALS
(100) is the number for each command and signal; half of it is that of disk sizes for each command.

A signal comes at a random moment of a command's life; Ctrl-C goes to all processes, as from a
terminal, SIGTERM to the first one alone. `seconds` is the time to exit. Then the command (`train`
with --resume) is given again, and `identical` says whether the result equals, byte for byte, that
of a command that nobody disturbed. A full disk is a limit on the size of files, at which writing
fails in the same way; there `traceback` also counts anything left half-written. An exit code of -2
is what a shell calls 130, too: Python ends so if Ctrl-C came while it built a class.
"""

from __future__ import annotations

import csv
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safer_offline.datasets import load_dataset, peek_metadata
from safer_offline.errors import SaferOfflineError

RESULTS = Path(__file__).parent / "results" / "interruptions.csv"
COLUMNS = ("command", "disturbed by", "at", "exit code", "seconds", "traceback", "identical")
NETS = ("--set", "hidden_sizes=16,16", "--set", "recovery_states=200", "--set", "batch_size=32")
LEARN = ("--cost-limit", "60", "--steps", "600", *NETS)
COMMANDS = {
    "collect": ("collect", "ball-run", "--transitions", "18000", "--workers", "2", "-o", "out.h5"),
    "train": ("train", "data.h5", *LEARN, "-o", "out"),
    "evaluate": (
        "evaluate", "run", "--episodes", "32", "--attacks", "natural,uniform,gaussian",
        "--workers", "2", "-o", "out",
    ),
    "convert": ("data", "convert", "data.h5", "--to", "hdf5", "-o", "out.h5"),
    "filter": ("data", "filter", "data.h5", "--top-return", "0.9", "-o", "out.h5"),
    "split": ("data", "split", "data.h5", "-o", "out"),
}  # fmt: skip
INTERRUPTED = ("collect", "train", "evaluate")


def start(
    folder: Path, arguments: tuple[str, ...], *, limit: int | None = None
) -> subprocess.Popen[str]:
    def restrict() -> None:
        # A shell lets what it starts in the background ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "safer_offline", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=restrict,  # noqa: PLW1509 - one thread
    )


def finish(folder: Path, arguments: tuple[str, ...]) -> None:
    process = start(folder, arguments)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors)


def again(name: str) -> tuple[str, ...]:
    return (*COMMANDS[name], "--resume") if name == "train" else COMMANDS[name]


def fingerprint(name: str, folder: Path) -> str:
    """What must not depend on disturbances."""
    if name in ("train", "evaluate"):
        file = "policy.safetensors" if name == "train" else "episodes.csv"
        return hashlib.sha256((folder / "out" / file).read_bytes()).hexdigest()
    files = [folder / "out.h5"] if name != "split" else sorted((folder / "out").glob("*.h5"))
    return " ".join(peek_metadata(file).content_sha256 for file in files)


def forget(folder: Path) -> None:
    for path in folder.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_whole(folder: Path) -> bool:
    """Nothing half-written: no temporary names, and every dataset can be read."""
    for path in folder.rglob("*"):
        if ".tmp" in path.name:
            return False
        try:
            if path.suffix == ".h5":
                load_dataset(path)
        except SaferOfflineError:
            return False
    return True


def interrupt(name: str, number: int, folder: Path, life: float, chance: random.Random) -> dict:
    forget(folder)
    process = start(folder, COMMANDS[name])
    moment = chance.uniform(0.1, life)
    try:
        process.wait(moment)
        asked = time.monotonic()
    except subprocess.TimeoutExpired:
        asked = time.monotonic()
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, errors = process.communicate()
    seconds = time.monotonic() - asked
    row = {
        "at": f"{moment:.2f} s", "exit code": process.returncode, "seconds": round(seconds, 2),
        "traceback": "Traceback" in errors,
    }  # fmt: skip
    if process.returncode:
        finish(folder, again(name))
    return row


def fill(name: str, size: int, folder: Path) -> dict:
    forget(folder)
    begun = time.monotonic()
    process = start(folder, COMMANDS[name], limit=size)
    _, errors = process.communicate()
    row = {
        "at": f"{size} bytes", "exit code": process.returncode,
        "seconds": round(time.monotonic() - begun, 2),
        "traceback": "Traceback" in errors or not is_whole(folder),
    }  # fmt: skip
    if process.returncode:
        finish(folder, again(name))
    return row


def largest_file(folder: Path) -> int:
    files = [path for out in folder.glob("out*") for path in (out, *out.rglob("*"))]
    return max(path.stat().st_size for path in files if path.is_file())


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    done: list[tuple[str, str]] = []
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            done = [(row["command"], row["disturbed by"]) for row in csv.DictReader(file)]
    else:
        with RESULTS.open("w", newline="") as file:
            csv.DictWriter(file, COLUMNS).writeheader()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = ("collect", "ball-circle", "--transitions", "8000", "-o", "data.h5")
        finish(folder, data)
        finish(folder, ("train", "data.h5", *LEARN, "-o", "run"))
        expected, lives, sizes = {}, {}, {}
        for name, arguments in COMMANDS.items():
            forget(folder)
            begun = time.monotonic()
            finish(folder, arguments)
            lives[name] = time.monotonic() - begun
            expected[name] = fingerprint(name, folder)
            sizes[name] = largest_file(folder)
        for trial in range(trials):
            for name in COMMANDS:
                disturbances = ["full disk"] if trial % 2 == 0 else []
                if name in INTERRUPTED:
                    disturbances += ["SIGINT", "SIGTERM"]
                for how in disturbances:
                    if done.count((name, how)) > (trial // 2 if how == "full disk" else trial):
                        continue
                    chance = random.Random(f"{name} {how} {trial}")
                    if how == "full disk":
                        row = fill(name, chance.randrange(1, sizes[name]), folder)
                    else:
                        number = getattr(signal, how)
                        row = interrupt(name, number, folder, lives[name], chance)
                    row["identical"] = fingerprint(name, folder) == expected[name]
                    with RESULTS.open("a", newline="") as file:
                        csv.DictWriter(file, COLUMNS).writerow(
                            {"command": name, "disturbed by": how, **row}
                        )


if __name__ == "__main__":
    main()
