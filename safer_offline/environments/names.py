"""What the name of an environment means, and what to say if it means nothing."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from safer_offline.environments.tasks import ENVIRONMENT_IDS, find_environment
from safer_offline.errors import SaferOfflineError, UsageError


def resolve_name(name: str) -> str:
    """The Bullet id, Gymnasium id (with its module, if one was named) or `module:factory`.

    Raises:
        UsageError: If there is no such environment; the message names the nearest one.
        SaferOfflineError: If importing its module fails.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        _resolve_in_module(name, module, attribute)
        return name
    env_id = find_environment(name)
    if env_id is not None:
        return env_id
    if name in gymnasium.registry:
        return name
    raise UsageError(
        f"unknown environment '{name}'{_nearest(name, [*ENVIRONMENT_IDS, *gymnasium.registry])} "
        "An environment of your own is named 'module:function' or 'module:Id-v0'"
    )


def is_factory(env_id: str) -> bool:
    """Whether a resolved name is `module:factory`, not `module:Id-v0` or an id."""
    module, _, attribute = env_id.partition(":")
    return bool(attribute) and _attribute(_import(env_id, module), attribute) is not None


def find_factory(env_id: str, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that `module:factory` names.

    Raises:
        UsageError: If it is no function, or does not take these arguments.
    """
    module, _, attribute = env_id.partition(":")
    factory: object = _attribute(_import(env_id, module), attribute)
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


def failure_of(error: BaseException) -> str:
    """An exception of the user's own code, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _resolve_in_module(name: str, module: str, attribute: str) -> None:
    if not module or not attribute:
        raise UsageError(f"'{name}' is no environment: write 'module:function'")
    found = _import(name, module)
    if _attribute(found, attribute) is None and attribute not in gymnasium.registry:
        offered = [n for n, thing in vars(found).items() if callable(thing) and n[0] != "_"]
        raise UsageError(
            f"the module '{module}' has neither a function nor an environment '{attribute}'"
            f"{_nearest(attribute, [*offered, *gymnasium.registry])}"
        )


def _import(name: str, module: str) -> ModuleType:
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise UsageError(
            f"'{module}' is a file, but a module is wanted: "
            f"'{dotted}:{name.partition(':')[2]}', in the folder from which it can be imported"
        )
    here = str(Path.cwd())
    # As `python -m` has it; for good, since the module may import its neighbours later.
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Else it is the module itself that imports something which is not there.
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            modules = [path.stem for path in Path.cwd().glob("*.py")]
            raise UsageError(
                f"there is no module '{error.name}' for '{name}', neither installed nor in "
                f"{here}{_nearest(module, modules)}"
            ) from None
        raise SaferOfflineError(f"importing '{module}' failed: {failure_of(error)}") from error
    except Exception as error:
        raise SaferOfflineError(f"importing '{module}' failed: {failure_of(error)}") from error


def _attribute(module: ModuleType, dotted: str) -> Any:  # noqa: ANN401 - whatever stands there
    try:
        return functools.reduce(getattr, dotted.split("."), module)
    except AttributeError:
        return None


def _nearest(name: str, known: Iterable[str]) -> str:
    by_name = {one.lower(): one for one in known}
    nearest = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.4)
    return f"; the nearest known one is '{by_name[nearest[0]]}'." if nearest else "."
