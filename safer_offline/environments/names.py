"""What the name of an environment means, and what to say if it means nothing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from safer_offline.environments.tasks import ENVIRONMENT_IDS, find_environment
from safer_offline.errors import UsageError
from safer_offline.importing import find_attribute, import_module, nearest

_OUR_OWN = re.compile(r"^(safer_offline[\w.]*:)?(safer_offline/)?")
"""What Gymnasium wants before the id of a task of ours: the module, the namespace, or both."""


def resolve_name(name: str) -> str:
    """The id of a task of ours, Gymnasium id (with its module, if one was named), or factory.

    Raises:
        UsageError: If there is no such environment; the message names the nearest one.
        SaferOfflineError: If importing its module fails.
    """
    env_id = find_environment(_OUR_OWN.sub("", name, count=1))
    if env_id is not None:
        return env_id
    if ":" in name:
        module, _, attribute = name.partition(":")
        _resolve_in_module(name, module, attribute)
        return name
    if name in gymnasium.registry:
        return name
    raise UsageError(
        f"unknown environment '{name}'{nearest(name, [*ENVIRONMENT_IDS, *gymnasium.registry])} "
        "An environment of your own is named 'module:function' or 'module:Id-v0'"
    )


def is_factory(env_id: str) -> bool:
    """Whether a resolved name is `module:factory`, not `module:Id-v0` or an id."""
    module, _, attribute = env_id.partition(":")
    return (
        bool(attribute)
        and find_attribute(import_module(module, source=env_id), attribute) is not None
    )


def find_factory(env_id: str, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that `module:factory` names.

    Raises:
        UsageError: If it is no function, or does not take these arguments.
    """
    module, _, attribute = env_id.partition(":")
    factory: object = find_attribute(import_module(module, source=env_id), attribute)
    if isinstance(factory, gymnasium.Env):
        raise UsageError(
            f"{env_id} is one environment, but each process makes its own: name the class, or a "
            "function that makes one"
        )
    if not callable(factory):
        raise UsageError(f"{env_id} is a {type(factory).__name__}, not a function or class")
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        raise UsageError(
            f"{env_id} does not take these arguments ({', '.join(kwargs) or 'none'}): {error}"
        ) from None
    except ValueError:
        pass  # written in C, without a signature
    return factory


def _resolve_in_module(name: str, module: str, attribute: str) -> None:
    if not module or not attribute:
        raise UsageError(f"'{name}' is no environment: write 'module:function'")
    found = import_module(module, source=name)
    if find_attribute(found, attribute) is None and attribute not in gymnasium.registry:
        offered = [n for n, thing in vars(found).items() if callable(thing) and n[0] != "_"]
        raise UsageError(
            f"the module '{module}' has neither a function nor an environment '{attribute}'"
            f"{nearest(attribute, [*offered, *gymnasium.registry])}"
        )
