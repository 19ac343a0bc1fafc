"""What it costs to use the same routines on every processor, and what comes of it.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/arithmetic.py FOLDER
    (four minutes of CPU time)

1,200 updates of SAFER on Car-Circle, one thread, in turn with the routines that the libraries
choose for this processor (`own`), with those that the command line chooses on every x86-64
processor with AVX2 (`chosen`), and with these while NumPy does not use its own for AVX-512 either
(`chosen, no AVX-512`). FOLDER keeps the dataset. Writes benchmarks/results/arithmetic.csv.

seconds       CPU time of the training
policy        its fingerprint: equal where all numbers are, to the last bit
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from datasets_of_tasks import dataset_of

from safer_offline.cli.arithmetic import KERNELS

RESULTS = Path(__file__).parent / "results" / "arithmetic.csv"
ROUNDS = 3
PROGRAM = """
import sys, time, torch
from safer_offline import SAFERConfig, train
torch.set_num_threads(1)
start = time.process_time()
run = train(SAFERConfig(), sys.argv[1], out=sys.argv[2], steps=1200, progress=False)
print(time.process_time() - start, run.policy.fingerprint)
"""


def processor() -> str:
    """Its name, as far as the kernel knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def trained(data: Path, environment: dict[str, str]) -> tuple[float, str]:
    """CPU seconds and fingerprint of a training in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PROGRAM, str(data), f"{folder}/run"]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    seconds, fingerprint = done.stdout.decode().split()
    return float(seconds), fingerprint


def main() -> None:
    data = dataset_of("car-circle", Path(sys.argv[1]))
    chosen = {name: value for names in KERNELS.values() for name, value in names.items()}
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    avx512 = " ".join(name for name in found if name.startswith(("AVX512", "X86_V4")))
    own = {name: value for name, value in os.environ.items() if name not in chosen}
    ways = {"own": own, "chosen": own | chosen}
    if avx512:
        ways["chosen, no AVX-512"] = own | chosen | {"NPY_DISABLE_CPU_FEATURES": avx512}
    rows = []
    for number in range(ROUNDS):
        for name, environment in ways.items():
            seconds, policy = trained(data, environment)
            row = {"processor": processor(), "avx512": bool(avx512), "round": number}
            rows.append(row | {"routines": name, "seconds": round(seconds, 1), "policy": policy})
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
