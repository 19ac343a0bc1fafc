"""Checkpoints: all that a training needs to go on, in one file that proves its own health."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from safer_offline.errors import CheckpointError
from safer_offline.files import write_atomically
from safer_offline.policies.digest import digest

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
