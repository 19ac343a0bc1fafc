"""Who acts, by name: a family of the task, a checkpoint, or Python of the user's own."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safer_offline.datasets.behaviors import behaviors_for
from safer_offline.datasets.behaviors.base import BehaviorFamily, Controller, FloatArray
from safer_offline.datasets.behaviors.learned.checkpoint_policies import (
    actor_family,
    checkpoint_family,
)
from safer_offline.datasets.behaviors.learned.families import packaged_actors
from safer_offline.errors import UsageError
from safer_offline.importing import find_object

CHECKPOINT = "checkpoint:"
PACKAGED = "packaged:"


def behavior_from_source(
    source: str,
    *,
    env_id: str,
    parameters: Mapping[str, Any] | None = None,
    base: Path | None = None,
    name: str | None = None,
) -> BehaviorFamily:
    """The behaviour that a text names.

    * `frontier`: a family that is registered for the environment.
    * `checkpoint:PATH`: an actor file of `safer-offline behaviors train`, a run directory or
      `policy.safetensors` of `safer-offline train`, or a `.zip` of Stable-Baselines3 (which holds
      pickled Python: only load those that you trust).
    * `packaged:ant-run`: an actor file that comes with the package.
    * `module:object`: Python of the user's own. A `BehaviorFamily` is used as it is. A class is
      built once an episode, as `Class(generator, **parameters)` with the episode's own NumPy
      generator, and the instance is called each step with the observation. Anything else that can
      be called is the policy itself: called each step with the observation (and the parameters by
      name), it returns the action. Randomness must come from the generator, or a dataset cannot be
      collected again.

    Args:
        source: One of the above.
        env_id: Environment that it shall act in, by its full name.
        parameters: Settings of the policy, where it takes any; see `checkpoint_policies`.
        base: Folder where relative paths of checkpoints begin, and where the user's modules may
            lie besides the current folder; None is the current one.
        name: What to call it; None takes the family's own, or the file's or object's name.

    Raises:
        UsageError: If nothing has that name, or it does not fit the environment.
        DataError: If a checkpoint is damaged.
        SaferOfflineError: If the user's module cannot be imported.
    """
    parameters = dict(parameters or {})
    if source.startswith(CHECKPOINT):
        path = Path(source.removeprefix(CHECKPOINT)).expanduser()
        return checkpoint_family(
            path if base is None else base / path, env_id=env_id, parameters=parameters, name=name
        )
    if source.startswith(PACKAGED):
        packaged = source.removeprefix(PACKAGED)
        return actor_family(
            packaged_actors(packaged), env_id=env_id, parameters=parameters, name=name or packaged
        )
    if is_python(source):
        return _python_family(source, parameters=parameters, base=base, name=name)
    return _registered_family(source, env_id=env_id, parameters=parameters, name=name)


def is_python(source: str) -> bool:
    """Whether a text names Python of the user's own."""
    return ":" in source and not source.startswith((CHECKPOINT, PACKAGED))


def _registered_family(
    source: str, *, env_id: str, parameters: Mapping[str, Any], name: str | None
) -> BehaviorFamily:
    hint = "A checkpoint is named 'checkpoint:PATH', a policy of your own 'module:function'"
    if "/" in source or Path(source).suffix in (".safetensors", ".zip", ".py"):
        raise UsageError(f"'{source}' is no behaviour. {hint}")
    families = {family.name: family for family in behaviors_for(env_id)}
    if source not in families:
        near = difflib.get_close_matches(source, families, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"{env_id} has no behaviour '{source}'; the nearest of {', '.join(families)} is "
            f"'{near}'. {hint}"
        )
    if parameters:
        raise UsageError(f"the behaviour '{source}' takes no parameters, but got {parameters}")
    return _named(families[source], name)


def _python_family(
    source: str, *, parameters: Mapping[str, Any], base: Path | None, name: str | None
) -> BehaviorFamily:
    """An object of the user's as a behaviour; see `behavior_from_source` for the rule."""
    found = find_object(source, kind="behaviour", folder=base)
    if isinstance(found, BehaviorFamily):
        if parameters:
            raise UsageError(f"{source} is a family, which takes no parameters: {parameters}")
        return _named(found, name)
    if not callable(found):
        raise UsageError(
            f"{source} is a {type(found).__name__}; name a function of the observation, a class "
            "of policies, or a BehaviorFamily"
        )
    is_class = inspect.isclass(found)
    try:
        inspect.signature(found).bind(None, **parameters)
    except TypeError as error:
        wanted = "the generator of an episode" if is_class else "an observation"
        keywords = f" and {', '.join(parameters)}" if parameters else ""
        raise UsageError(f"{source} must take {wanted}{keywords}: {error}") from None
    except ValueError:
        pass  # written in C, without a signature

    def draw(generator: np.random.Generator) -> Controller:
        if is_class:
            return _checked(found(generator, **parameters), source)
        return _checked(functools.partial(found, **parameters) if parameters else found, source)

    return BehaviorFamily(
        name=name or source.rpartition(":")[2].rpartition(".")[2],
        description=(inspect.getdoc(found) or source).partition("\n")[0],
        draw=draw,
    )


def _checked(policy: object, source: str) -> Controller:
    """A controller that calls the policy and insists on a vector of finite numbers."""
    if not callable(policy):
        raise UsageError(f"instances of {source} cannot be called with an observation")

    def act(observation: FloatArray) -> list[float]:
        # A copy: a policy of the user's must not write into what is being recorded.
        given: Any = policy(observation.copy())
        try:
            action = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            action = np.array(np.nan)
        if action.ndim != 1 or not np.isfinite(action).all():
            raise UsageError(
                f"{source} must return a list or array of finite numbers, one an actuator; it "
                f"returned {given!r}"
            )
        numbers: list[float] = action.tolist()
        return numbers

    return act


def _named(family: BehaviorFamily, name: str | None) -> BehaviorFamily:
    return family if name is None else dataclasses.replace(family, name=name)
