"""Settings as text: what a class takes, in words, and values from `NAME=VALUE`.

Serves the configurations of algorithms and the constructors of attacks alike: both say by type
annotations what they take.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from safer_offline.errors import UsageError

C = TypeVar("C")

REQUIRED = inspect.Parameter.empty
"""The default of a setting that has none."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that a class may be told when it is made.

    Attributes:
        name: What it is called.
        annotation: Its type; `Any` where nobody said.
        default: What it is if nobody says; `REQUIRED` if somebody must.
        explanation: What the docstring of the class says about it.
    """

    name: str
    annotation: Any
    default: Any
    explanation: str = ""


def settings_of(thing: type) -> dict[str, Setting]:
    """What the constructor of a class takes by name, in its order.

    Types, defaults and explanations come from annotations, signature and docstring (its sections
    `Attributes` and `Args`), those of base classes included.
    """
    hints = _type_hints(thing)
    explanations: dict[str, str] = {}
    for base in reversed(thing.__mro__):
        own = _explanations(base.__dict__.get("__doc__") or "")
        explanations |= {n: text for n, text in own.items() if not text.startswith("See ")}
    keywords = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        name: Setting(
            name=name,
            annotation=hints.get(name, Any),
            default=_default(thing, parameter),
            explanation=explanations.get(name, ""),
        )
        for name, parameter in inspect.signature(thing).parameters.items()
        if parameter.kind in keywords
    }


def parse_settings(config: C, settings: Sequence[str], *, option: str = "--set") -> C:
    """The configuration with some fields replaced.

    Args:
        config: A dataclass; where all other values come from.
        settings: Such as `margin=0.8` or `hidden_sizes=256,256`.
        option: How the user gave them, for messages.

    Raises:
        UsageError: If a name is unknown (the message names the nearest one) or a value is not of
            the field's type.
    """
    known = {
        name: dataclasses.replace(setting, default=getattr(config, name))
        for name, setting in settings_of(type(config)).items()
    }
    values = parse_values(known, settings, option=option)
    replaced: C = dataclasses.replace(config, **values)  # type: ignore[type-var]
    return replaced


def parse_values(
    known: Mapping[str, Setting], settings: Sequence[str], *, option: str, prefix: str = ""
) -> dict[str, Any]:
    """The values that texts like `margin=0.8` give to settings.

    Args:
        known: Settings that there are, by name.
        settings: The texts.
        option: How the user gave them, for messages, like `prefix`.
        prefix: What stood before each text.

    Raises:
        UsageError: See `parse_settings`.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        given = f"{option} {prefix}{setting}"
        if not equals:
            example = next(iter(known.values()), None)
            such_as = f", such as {prefix}{_example(example)}" if example else ""
            raise UsageError(f"{given}: write it as {prefix}NAME=VALUE{such_as}")
        name = name.strip()
        require_known(name, known, given=given)
        values[name] = _parse(known[name], text.strip(), given=given)
    return values


def require_known(name: str, known: Mapping[str, Setting], *, given: str) -> None:
    """Refuse the name of a setting that there is not.

    Raises:
        UsageError: It names the nearest one.
    """
    if name in known:
        return
    if not known:
        raise UsageError(f"{given}: there is no '{name}', nor anything else to set")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise UsageError(f"{given}: there is no '{name}'; the nearest is '{near}'")


def fits(value: object, annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether a value is of a type; true where the type is too special to tell."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin in (tuple, list):
        if not isinstance(value, origin):
            return False
        if origin is list or parts[-1:] == (...,):
            return all(fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(fits, value, parts))
    if annotation is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(annotation, type):
        return isinstance(value, annotation)
    return True


def describe_type(annotation: Any) -> str:  # noqa: ANN401 - any annotation
    """A type in words that also say how to write its values."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "none"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe_type, parts)))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (tuple, list):
        if origin is list or parts[-1:] == (...,):
            return f"{describe_type(parts[0])}s separated by commas"
        return ",".join(map(describe_type, parts))
    words = {bool: "true or false", int: "whole number", float: "number", str: "word"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def write_value(value: object) -> str:
    """A value as it would be written after `NAME=`."""
    if isinstance(value, tuple | list):
        return ",".join(map(write_value, value)) + ("," if len(value) == 1 else "")
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)


def _parse(setting: Setting, text: str, *, given: str) -> Any:  # noqa: ANN401 - of the setting's type
    annotation = setting.annotation
    if annotation is Any and setting.default not in (REQUIRED, None):
        annotation = type(setting.default)
    for value in _readings(text):
        for candidate in (value, _as_tuple(value), _as_list(value)):
            if fits(candidate, annotation):
                return _with_floats(candidate, annotation)
    kind = describe_type(annotation)
    example = "" if setting.default is REQUIRED else write_value(setting.default)
    wanted = f"look like {example} ({kind})" if example else f"be {kind}"
    raise UsageError(f"{given}: the value must {wanted}")


def _example(setting: Setting) -> str:
    default = "VALUE" if setting.default is REQUIRED else write_value(setting.default)
    return f"{setting.name}={default}"


def _readings(text: str) -> list[Any]:
    """What a text may mean, the likeliest first; the text itself comes last."""
    words: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return [words[text.lower()], text]
    readings: list[Any] = []
    try:
        readings.append(ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if text.lower().lstrip("+-") in ("inf", "nan", "infinity"):
            readings.append(float(text))
        elif "," in text:
            readings.append(tuple(part.strip() for part in text.split(",") if part.strip()))
    return [*readings, text]


def _as_tuple(value: object) -> tuple[Any, ...]:
    if isinstance(value, tuple | list):
        return tuple(value)
    return () if value == "" else (value,)


def _as_list(value: object) -> list[Any]:
    return list(_as_tuple(value))


def _with_floats(value: Any, annotation: Any) -> Any:  # noqa: ANN401
    """The value with whole numbers turned into floats where the type says so."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        exact = [part for part in parts if isinstance(part, type) and type(value) is part]
        chosen = exact[0] if exact else next(part for part in parts if fits(value, part))
        return _with_floats(value, chosen)
    if origin in (tuple, list):
        each = parts[:1] * len(value) if origin is list or parts[-1:] == (...,) else parts
        return origin(map(_with_floats, value, each))
    return float(value) if annotation is float else value


def _type_hints(thing: type) -> dict[str, Any]:
    """Types of the arguments of a class, without those that cannot be found out."""
    constructor = vars(thing).get("__init__") or thing.__init__  # type: ignore[misc]
    hints: dict[str, Any] = {}
    for source in (thing, constructor):
        try:
            hints |= typing.get_type_hints(source)
        except Exception:  # names that only type checkers import, or newer syntax
            namespace = vars(sys.modules.get(thing.__module__, typing))
            for name, annotation in getattr(source, "__annotations__", {}).items():
                hints[name] = _evaluate(annotation, namespace)
    return hints


def _evaluate(annotation: object, namespace: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**vars(typing), **namespace})
    except Exception:
        return Any


def _default(thing: type, parameter: inspect.Parameter) -> Any:  # noqa: ANN401
    """A default; dataclasses show a placeholder in the signature where a factory makes it."""
    for field in dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ():
        if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return parameter.default


def _explanations(docstring: str) -> dict[str, str]:
    """The entries of the sections `Attributes` and `Args` of a docstring, by name."""
    found: dict[str, str] = {}
    lines = inspect.cleandoc(docstring).splitlines()
    inside, name = False, ""
    for line in lines:
        if line and not line.startswith(" "):
            inside = line.strip() in ("Attributes:", "Args:")
        elif inside and (entry := re.fullmatch(r" {4}(\w+)(?: \([^)]*\))?: *(.*)", line)):
            name, found[entry[1]] = entry[1], entry[2]
        elif inside and name in found and line.strip():
            found[name] += " " + line.strip()
    return found
