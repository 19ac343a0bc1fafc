"""Code of the user's own, named as `module:object`; the module may lie in the current folder."""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from safer_offline.errors import SaferOfflineError, UsageError


def find_object(source: str, *, kind: str, folder: Path | None = None) -> Any:  # noqa: ANN401
    """What `module:object` names.

    Args:
        source: The name; `object` may have dots in it.
        kind: What is wanted, for messages, such as `attack`.
        folder: Where modules may lie besides the current folder.

    Raises:
        UsageError: If there is no such module or no such object in it; the message names the
            nearest one.
        SaferOfflineError: If importing the module fails.
    """
    module, _, attribute = source.partition(":")
    if not module or not attribute:
        raise UsageError(f"'{source}' is no {kind}: write 'module:object'")
    imported = import_module(module, source=source, folder=folder)
    found = find_attribute(imported, attribute)
    if found is None:
        offered = [name for name, thing in vars(imported).items() if callable(thing)]
        raise UsageError(f"the module '{module}' has no '{attribute}'{nearest(attribute, offered)}")
    return found


def import_module(module: str, *, source: str, folder: Path | None = None) -> ModuleType:
    """A module by its dotted name, which may lie in the current folder or in `folder`.

    Args:
        module: The dotted name.
        source: The whole of what the user wrote, for messages.
        folder: Where it may lie besides.

    Raises:
        UsageError: If there is no such module.
        SaferOfflineError: If importing it fails.
    """
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise UsageError(
            f"'{module}' is a file, but a module is wanted: "
            f"'{dotted}:{source.partition(':')[2]}', in the folder from which it can be imported"
        )
    places = [Path.cwd()] if folder is None else [Path.cwd(), folder.resolve()]
    # As `python -m` has it; for good, since the module may import its neighbours later.
    for place in map(str, places):
        if place not in sys.path:
            sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Else it is the module itself that imports something which is not there.
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            modules = [path.stem for place in places for path in place.glob("*.py")]
            raise UsageError(
                f"there is no module '{error.name}' for '{source}', neither installed nor in "
                f"{' or '.join(map(str, places))}{nearest(module, modules)}"
            ) from None
        raise SaferOfflineError(f"importing '{module}' failed: {failure_of(error)}") from error
    except Exception as error:
        raise SaferOfflineError(f"importing '{module}' failed: {failure_of(error)}") from error


def find_attribute(module: ModuleType, dotted: str) -> Any:  # noqa: ANN401 - whatever stands there
    """What a module holds under a name, dots allowed; None if there is no such thing."""
    try:
        return functools.reduce(getattr, dotted.split("."), module)
    except AttributeError:
        return None


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, if any is near."""
    by_name = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.4)
    return f"; the nearest known one is '{by_name[found[0]]}'." if found else "."


def failure_of(error: BaseException) -> str:
    """An exception of the user's own code, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
