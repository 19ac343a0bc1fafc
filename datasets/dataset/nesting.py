"""Columns within columns: `robot/qpos` is the entry `qpos` of the dictionary `robot` elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Columns without dictionaries, under joined names. Inverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, values in (columns or {}).items():
        if isinstance(values, Mapping):
            flat |= {f"{name}/{inner}": part for inner, part in flatten(values).items()}
        else:
            flat[str(name)] = values
    return flat


def nest(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionaries within dictionaries. No name may be an array and the beginning of others."""
    nested: dict[str, Any] = {}
    for name, column in columns.items():
        *groups, last = name.split("/")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = column
    return nested
