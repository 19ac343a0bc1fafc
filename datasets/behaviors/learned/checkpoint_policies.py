"""Checkpoints as behaviours: our actors, our trained policies, and those of Stable-Baselines3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safer_offline.datasets.behaviors.base import BehaviorFamily, Controller, FloatArray
from safer_offline.datasets.behaviors.learned.actor_files import (
    ActorFile,
    is_actor_file,
    load_actors,
)
from safer_offline.datasets.behaviors.learned.families import learned_family
from safer_offline.datasets.behaviors.learned.stable_baselines import (
    archive_controller,
    load_archive,
)
from safer_offline.errors import UsageError

POLICY_FILE = "policy.safetensors"
"""What `safer-offline train` calls the policy in its run directory."""


def checkpoint_family(
    path: Path, *, env_id: str, parameters: Mapping[str, Any], name: str | None = None
) -> BehaviorFamily:
    """The policy in a file or run directory, as a behaviour.

    Args:
        path: An actor file (`safer-offline behaviors train`), a run directory or its
            `policy.safetensors` (`safer-offline train`), or a `.zip` of Stable-Baselines3.
        env_id: Environment that it shall act in.
        parameters: `deterministic_share` for all; see `actor_family` for actor files; `algorithm`
            for archives.
        name: What to call it; None takes the file's name.

    Raises:
        UsageError: If there is no such file, it is of another environment, or a parameter is off.
        DataError: If it is damaged or foreign.
    """
    if path.is_dir():
        name, path = name or path.name, path / POLICY_FILE
    if not path.is_file():
        raise UsageError(
            f"there is no checkpoint {path}; give an actor file of `safer-offline behaviors "
            "train`, a run directory of `safer-offline train`, or a .zip of Stable-Baselines3"
        )
    name = name or path.stem
    if path.suffix == ".zip":
        return _archive_family(path, parameters=parameters, name=name)
    if is_actor_file(path):
        return actor_family(load_actors(path), env_id=env_id, parameters=parameters, name=name)
    return _trained_family(path, env_id=env_id, parameters=parameters, name=name)


def actor_family(
    file: ActorFile, *, env_id: str, parameters: Mapping[str, Any], name: str
) -> BehaviorFamily:
    """The actors of a file as a behaviour.

    Args:
        file: As `load_actors` returns it.
        env_id: Environment that it shall act in.
        parameters: `snapshots` (a list of training steps; the last snapshot unless told
            otherwise), `penalties` (lowest and highest; all that was trained), and
            `deterministic_share`, `noise`, `burst_rate`, `switch_every` as in `learned_family`.
        name: What to call it.
    """
    known = "snapshots", "penalties", "deterministic_share", "noise", "burst_rate", "switch_every"
    _require_known(parameters, known)
    _require_same_environment(file.info.env_id, env_id, file.path)
    by_steps = {actor.snapshot.steps: actor for actor in file.actors}
    wanted = _numbers(parameters, "snapshots") or [file.actors[-1].snapshot.steps]
    missing = [steps for steps in wanted if steps not in by_steps]
    if missing:
        raise UsageError(
            f"{file.path} holds no snapshot after {missing[0]:g} steps; there are "
            f"{', '.join(map(str, by_steps))}"
        )
    penalties = _numbers(parameters, "penalties")
    if penalties is not None and len(penalties) != 2:
        raise UsageError(f"penalties must be the lowest and the highest, not {penalties}")
    settings = {key: _number(parameters, key) for key in known[2:] if key in parameters}
    steps = ", ".join(f"{int(steps):,}" for steps in wanted)
    return learned_family(
        name,
        f"{file.info.algorithm} trained with penalties from {file.info.penalties[0]:g} to "
        f"{file.info.penalties[-1]:g}, after {steps} steps",
        [by_steps[int(steps)] for steps in wanted],
        penalties=None if penalties is None else (penalties[0], penalties[1]),
        checkpoint_sha256=file.sha256,
        **settings,
    )


def _trained_family(
    path: Path, *, env_id: str, parameters: Mapping[str, Any], name: str
) -> BehaviorFamily:
    """A policy that `safer-offline train` wrote."""
    # Datasets know nothing of learning but this, and nobody else shall wait for PyTorch.
    import torch  # noqa: PLC0415

    from safer_offline.policies.trained import load_policy  # noqa: PLC0415

    _require_known(parameters, ("deterministic_share",))
    policy = load_policy(path)
    if policy.remembers:
        raise UsageError(
            f"{path} holds a policy ({policy.info.algorithm}) that must be told what it earns, "
            "which a collection does not: let one without a memory act"
        )
    _require_same_environment(policy.env_id, env_id, path)

    def controller(generator: np.random.Generator, deterministic: bool) -> Controller:
        def act(observation: FloatArray) -> list[float]:
            action = policy.predict(observation)
            if not deterministic:
                with torch.no_grad():
                    _, std = policy.action_distribution(torch.from_numpy(observation[None]))
                action = action + std[0].numpy() * generator.standard_normal(len(action))
            numbers: list[float] = action.tolist()
            return numbers

        return act

    return BehaviorFamily(
        name=name,
        description=f"a policy that {policy.info.algorithm} learned offline",
        draw=_sometimes_deterministic(controller, parameters),
        checkpoint_sha256=_sha256(path),
        context=policy.context,
    )


def _archive_family(path: Path, *, parameters: Mapping[str, Any], name: str) -> BehaviorFamily:
    """A model that Stable-Baselines3 saved."""
    _require_known(parameters, ("algorithm", "deterministic_share"))
    algorithm = parameters.get("algorithm")
    model = load_archive(path, algorithm=None if algorithm is None else str(algorithm))

    def controller(generator: np.random.Generator, deterministic: bool) -> Controller:
        return archive_controller(model, generator, deterministic=deterministic)

    return BehaviorFamily(
        name=name,
        description=f"a policy that {type(model).__name__} of Stable-Baselines3 learned",
        draw=_sometimes_deterministic(controller, parameters),
        checkpoint_sha256=_sha256(path),
    )


def _sometimes_deterministic(
    controller: Callable[[np.random.Generator, bool], Controller], parameters: Mapping[str, Any]
) -> Callable[[np.random.Generator], Controller]:
    """Draws for each episode whether it is driven by the mean action; half are by default."""
    share = _number(parameters, "deterministic_share", 0.5)
    if not 0 <= share <= 1:
        raise UsageError(f"deterministic_share must be between 0 and 1, not {share:g}")

    def draw(generator: np.random.Generator) -> Controller:
        return controller(generator, bool(generator.random() < share))

    return draw


def _require_known(parameters: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in parameters:
        if key not in known:
            raise UsageError(f"this policy takes no parameter '{key}'; it takes {', '.join(known)}")


def _require_same_environment(trained: str | None, env_id: str, path: Path) -> None:
    # Sizes are no sign: the car and the ball observe and act in as many numbers.
    if trained and trained != env_id:
        raise UsageError(f"{path} was trained in {trained} and cannot act in {env_id}")


def _number(parameters: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    value = parameters.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"the parameter '{key}' must be a number, not {value!r}")
    return float(value)


def _numbers(parameters: Mapping[str, Any], key: str) -> list[float] | None:
    if key not in parameters:
        return None
    value = parameters[key]
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not values:
        raise UsageError(f"the parameter '{key}' must not be empty")
    return [_number({key: entry}, key) for entry in values]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
