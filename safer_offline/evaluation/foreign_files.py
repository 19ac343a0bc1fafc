"""Policies of others in files, and by name."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safer_offline.datasets.behaviors.learned.stable_baselines import load_archive
from safer_offline.datasets.behaviors.sources import is_python
from safer_offline.errors import CheckpointError, UsageError
from safer_offline.importing import find_object


def load_foreign(name: str) -> tuple[object, str] | None:
    """What a text names that is no run of ours, and a digest of it; None if it names none.

    Args:
        name: A `.zip` of Stable-Baselines3 (which holds pickled Python: only load those that you
            trust), a TorchScript file `.pt` or `.ts`, a program of `torch.export` (`.pt2`), a model
            `.onnx`, or `module:object` of one's own.

    Raises:
        UsageError: If there is no such module or object, or no such file, or a package is missing
            that reads it.
        DataError: If an archive of Stable-Baselines3 cannot be read.
        CheckpointError: If another file cannot.
    """
    path = Path(name)
    if load := _LOADERS.get(path.suffix):
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        return load(path), hashlib.sha256(path.read_bytes()).hexdigest()
    if is_python(name) and not path.exists():
        found = find_object(name, kind="policy")
        return found, hashlib.sha256(f"{name}\n{_source_of(name)}".encode()).hexdigest()
    return None


class OnnxPolicy:
    """A model in ONNX's format: its first output for its first input. No gradients pass through it.

    Args:
        path: The file.

    Raises:
        UsageError: If onnxruntime is not installed.
        CheckpointError: If it is no such model, or takes more than one batch of observations.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 - an optional package
        except ImportError:
            raise UsageError(
                f"{path} is read by onnxruntime, which is not installed: "
                "pip install 'safer-offline[onnx]'"
            ) from None
        options = onnxruntime.SessionOptions()
        # As everywhere here: one thread, so that sums do not depend on the machine.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CheckpointError(
                f"the file is no ONNX model ({_first_line(error)})",
                path=path,
                remedy="export it again, or name a function that runs it: module:function",
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or inputs[0].type not in _NUMBERS:
            told = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise CheckpointError(
                f"the model does not take one batch of observations, but {told}",
                path=path,
                remedy="name a function that runs it: module:function",
            )
        self._input = inputs[0]
        # A number where others have a name: it was exported for batches of that size only.
        self._rows = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None
        if self._rows not in (None, 1):
            raise CheckpointError(
                f"the model takes batches of {self._rows} observations only",
                path=path,
                remedy="export it with a batch dimension that is free (dynamic_axes), or of 1",
            )

    def predict(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """Actions (B, da) of observations (B, ds)."""
        numbers = observations.astype(_NUMBERS[self._input.type])
        parts = np.split(numbers, len(numbers)) if self._rows == 1 else [numbers]
        answers = [self._session.run(None, {self._input.name: part})[0] for part in parts]
        return np.concatenate(answers)


_NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64}


def _torchscript(path: Path) -> object:
    try:
        return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise CheckpointError(
            f"the file is no TorchScript ({_first_line(error)})",
            path=path,
            remedy="write it with torch.jit.script(network).save(path), or name a function "
            "that loads it: module:function",
        ) from error


def _exported(path: Path) -> object:
    try:
        return torch.export.load(path).module()
    except Exception as error:
        raise CheckpointError(
            f"the file is no program of torch.export ({_first_line(error)})",
            path=path,
            remedy="write it with torch.export.save(program, path), its batch dimension free "
            "(dynamic_shapes)",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_LOADERS: dict[str, Callable[[Path], object]] = {
    ".zip": load_archive,
    ".pt": _torchscript,
    ".ts": _torchscript,
    ".pth": _torchscript,
    ".pt2": _exported,
    ".onnx": OnnxPolicy,
}


def _source_of(name: str) -> str:
    """The text of the module, so that another version of it is another policy."""
    try:
        return inspect.getsource(sys.modules[name.partition(":")[0]])
    except (OSError, TypeError):
        return ""
