"""Time and peak memory of each step of `make demo`, without the install.

Command: OMP_WAIT_POLICY=PASSIVE python benchmarks/demo.py [car-circle|ball-circle] [FOLDER]
Writes benchmarks/results/demo_TASK.csv, and leaves what it made in FOLDER, if one is given.
The figures of memory are the largest single process of a step, as the kernel counts it; collection
and evaluation run one more such process for each core.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from safer_offline.machine import available_cores


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and GiB that a command took; it must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def main() -> None:
    task = sys.argv[1] if len(sys.argv) > 1 else "car-circle"
    program = shutil.which("safer-offline", path=str(Path(sys.executable).parent))
    assert program is not None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        data = str(folder / f"{task.replace('-', '_')}.h5")
        steps = {
            "collect": ["collect", task, "--out", data],
            "train": ["train", "--data", data, "--out", str(folder / "run")],
            "evaluate": ["evaluate", str(folder / "run"), "--record", "--out", str(folder)],
        }
        rows = []
        for step, arguments in steps.items():
            load = os.getloadavg()[0]
            seconds, memory = run([program, *arguments])
            rows.append(
                {
                    "step": step,
                    "minutes": round(seconds / 60, 2),
                    "peak_gib_of_a_process": round(memory, 2),
                    "cores": available_cores(),
                    "load_average_before": round(load, 1),
                }
            )
    target = Path(__file__).parent / "results" / f"demo_{task.replace('-', '_')}.csv"
    pd.DataFrame(rows).to_csv(target, index=False)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
