"""Checkpoints: all that a training needs to go on, in one file that proves its own health."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safer_offline.errors import CheckpointError
from safer_offline.files import write_atomically

FORMAT = "safer-offline/checkpoint/1"
CHECKPOINT_FILE = "checkpoint.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types, whole or not at all.

    PyTorch's file format does not notice a flipped bit, so a digest of the state goes along.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "sha256": digest(state), "state": state}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; code hidden in the file is never run.

    Raises:
        CheckpointError: If it is missing, damaged or not ours.
    """
    remedy = "delete the file and train again, or resume from another run directory"
    if not path.is_file():
        raise CheckpointError("there is no checkpoint", path=path, remedy=remedy)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever PyTorch raises where a damaged file surprises it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"the checkpoint cannot be read ({reason})", path=path, remedy=remedy
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError("this is no checkpoint of safer-offline", path=path, remedy=remedy)
    state: dict[str, Any] = content.get("state", {})
    if digest(state) != content.get("sha256"):
        raise CheckpointError(
            "the checkpoint is damaged (its digest differs)", path=path, remedy=remedy
        )
    return state


def digest(state: object) -> str:
    """SHA-256 over the types, shapes and bytes of a tree of tensors and plain values."""
    sha256 = hashlib.sha256()

    def absorb(node: object) -> None:
        if isinstance(node, Tensor):
            sha256.update(f"{node.dtype}{tuple(node.shape)}".encode())
            sha256.update(node.detach().contiguous().numpy().tobytes())
        elif isinstance(node, Mapping):
            sha256.update(f"map{len(node)}".encode())
            for key, value in node.items():
                sha256.update(repr(key).encode())
                absorb(value)
        elif isinstance(node, list | tuple):
            sha256.update(f"list{len(node)}".encode())
            for value in node:
                absorb(value)
        else:
            sha256.update(repr(node).encode())

    absorb(state)
    return sha256.hexdigest()
