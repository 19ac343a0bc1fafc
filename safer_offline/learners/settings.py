"""Settings given as text, NAME=VALUE, turned into a configuration."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Sequence

from safer_offline.errors import UsageError
from safer_offline.learners.safer import SAFERConfig


def parse_settings(config: SAFERConfig, settings: Sequence[str]) -> SAFERConfig:
    """The configuration with some fields replaced.

    Args:
        config: Where all other values come from.
        settings: Such as `margin=0.8` or `hidden_sizes=256,256`.

    Raises:
        UsageError: If a name is unknown (the message names the nearest one) or a value is not of
            the field's type.
    """
    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write it as NAME=VALUE, such as margin=0.8")
        fields = {field.name for field in dataclasses.fields(config)}
        if name not in fields:
            nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)[0]
            raise UsageError(f"--set {setting}: there is no '{name}'; the nearest is '{nearest}'")
        values[name] = _parse_like(getattr(config, name), text, setting=setting)
    return dataclasses.replace(config, **values)  # type: ignore[arg-type]


def _parse_like(current: object, text: str, *, setting: str) -> object:
    """The value that `text` means for a field that now holds `current`."""
    if isinstance(current, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(current, tuple):
        value = value if isinstance(value, tuple) else (value,)
        fits = all(type(part) is type(current[0]) for part in value)
    elif isinstance(current, float):
        value = float(value) if type(value) is int else value
        fits = type(value) is float
    else:
        fits = type(value) is type(current)
    if not fits:
        raise UsageError(f"--set {setting}: the value must look like {current!r}")
    return value
