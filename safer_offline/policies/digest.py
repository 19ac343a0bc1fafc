"""A digest of weights and settings, by which files prove that they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def digest(state: object) -> str:
    """SHA-256 over the types, shapes and bytes of a tree of tensors and plain values."""
    sha256 = hashlib.sha256()

    def absorb(node: object) -> None:
        if isinstance(node, Tensor):
            sha256.update(f"{node.dtype}{tuple(node.shape)}".encode())
            sha256.update(node.detach().cpu().contiguous().numpy().tobytes())
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
