"""Settings of the numerical libraries that must stand before NumPy and torch are imported."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

# Threads that spin while they wait make two busy processes on two cores many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def has_avx2() -> bool:
    """Whether this processor is known to have the instructions that every x86-64 one has today."""
    try:
        return platform.machine() == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


# NumPy's BLAS chooses its kernels by processor. They round differently, and the simulators compute
# with them: one choice for all of these processors makes the same dataset on all of them. Where
# NumPy is there already it is too late; processes started from here must then choose as it did.
if has_avx2() and "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
