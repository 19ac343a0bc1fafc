"""Settings of the numerical libraries that must stand before NumPy and torch are imported."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

# Threads that spin while they wait make two busy processes on two cores many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def has_avx2() -> bool:
    """Whether this processor is known to have the instructions that every x86-64 one has today."""
    try:
        return platform.machine() == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


KERNELS = {
    "numpy": {"OPENBLAS_CORETYPE": "Haswell"},
    "torch": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
}
"""What makes a library use the same routines on x86-64 processors with AVX2.

Each chooses its own by processor. They round differently, and simulators and trainings compute with
them: one choice makes the same dataset of a recipe on all that we tried, and the same policy of a
dataset with AVX-512 and without; on an Intel processor trainings still part by rounding.
It costs no time with networks of this size.
"""


def choose_kernels(libraries: Iterable[str]) -> None:
    """Choose for libraries that are still to be imported, here or in processes started from here.

    What somebody has set stays. Without AVX2, or where that is not known, nothing is chosen.
    """
    if has_avx2():
        for library in libraries:
            for name, value in KERNELS[library].items():
                os.environ.setdefault(name, value)


# Where a library is there already it is too late; processes started from here must then choose as
# it did.
choose_kernels(library for library in KERNELS if library not in sys.modules)
