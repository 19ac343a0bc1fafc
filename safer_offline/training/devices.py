"""Where networks are trained: which devices there are, and which algorithms go there."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch

from safer_offline.errors import UsageError
from safer_offline.learners.base import Learner


def available_devices() -> tuple[str, ...]:
    """Names of the devices of this machine: `cpu`, and `cuda:0`, `cuda:1`, ... for its GPUs."""
    return ("cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count())))


def device_named(name: str | torch.device) -> torch.device:
    """The device of a name: `cpu`, `cuda` for the first GPU, `cuda:1` for the second.

    Raises:
        UsageError: If there is none of that name; it says which there are.
    """
    known = available_devices()
    there_are = f"there {'is only' if len(known) == 1 else 'are'} {', '.join(known)}"
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", str(name))
    if found is None:
        raise UsageError(
            f"there is no device '{name}' to train on: say cpu, or cuda, or cuda:1 for a second "
            f"GPU; on this machine {there_are}"
        )
    full = "cpu" if str(name) == "cpu" else f"cuda:{int(found[1] or 0)}"
    if full in known:
        return torch.device(full)
    raise UsageError(
        f"there is no device '{name}' on this machine, {there_are}{_why_no_gpu(known)}"
    )


def _why_no_gpu(known: tuple[str, ...]) -> str:
    if len(known) > 1:
        return ""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return (
            f": PyTorch {torch.__version__} is built without CUDA. Install a build that has it "
            "(https://pytorch.org/get-started), or leave --device out"
        )
    return ": PyTorch sees no GPU (does `nvidia-smi`?). Leave --device out to train on the CPU"


def placement(kind: type[Learner], device: torch.device) -> dict[str, Any]:
    """What to tell the constructor of a learner about the device; nothing on the CPU.

    Raises:
        UsageError: If it takes no device.
    """
    if device.type == "cpu":
        return {}
    if "device" not in inspect.signature(kind).parameters:
        raise UsageError(
            f"{kind.name} can only learn on the CPU: {kind.__name__}(...) takes no `device`. Leave "
            "--device out, or write it as a SimpleLearner (CONTRIBUTING.md), which takes one"
        )
    return {"device": device}
