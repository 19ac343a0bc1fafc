"""Policies that Stable-Baselines3 trained, as behaviours."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from safer_offline.datasets.behaviors.base import Controller, FloatArray
from safer_offline.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stable_baselines3.common.base_class import BaseAlgorithm

ALGORITHMS = ("A2C", "DDPG", "PPO", "SAC", "TD3")
"""Those whose actions are continuous."""


def stable_baselines(purpose: str) -> Any:  # noqa: ANN401 - an optional module
    """The package `stable_baselines3`.

    Args:
        purpose: What needs it, for the message.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        # Where the old package gym is installed too, it prints a paragraph about its age.
        with contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module("stable_baselines3")
    except ImportError as error:
        raise UsageError(
            f"{purpose} needs Stable-Baselines3 ({error}): pip install 'safer-offline[behaviors]'"
        ) from error


def load_archive(path: Path, *, algorithm: str | None = None) -> BaseAlgorithm:
    """The model in an archive that `model.save` of Stable-Baselines3 wrote.

    Such archives hold pickled Python, which can do anything when it is loaded: load only archives
    that you trust.

    Args:
        path: The archive.
        algorithm: One of `ALGORITHMS`; None finds out.

    Raises:
        UsageError: If Stable-Baselines3 is missing, or the algorithm is none that we know.
        DataError: If the archive cannot be read.
    """
    module = stable_baselines(f"the policy {path}")
    remedy = "give an archive that model.save(...) of Stable-Baselines3 wrote"
    if algorithm is None:
        try:
            algorithm = _find_algorithm(path)
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"the archive cannot be read ({error})", path=path, remedy=remedy
            ) from error
    names = {name.lower(): name for name in ALGORITHMS}
    if algorithm.lower() not in names:
        raise UsageError(
            f"{path}: the algorithm '{algorithm}' is not supported; there are "
            f"{', '.join(ALGORITHMS)} (say algorithm=...)"
        )
    try:
        loader = getattr(module, names[algorithm.lower()])
        return cast("BaseAlgorithm", loader.load(path, device="cpu"))
    except Exception as error:  # whatever unpickling raises where an archive surprises it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"the archive cannot be loaded as {algorithm} ({reason})", path=path, remedy=remedy
        ) from error


def _find_algorithm(path: Path) -> str:
    """The algorithm of an archive, from the part of it that is plain JSON; nothing is unpickled."""
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    module = str(data["policy_class"]["__module__"])
    package, _, rest = module.partition(".")
    if package != "stable_baselines3":
        return module
    if rest.startswith("common"):  # A2C and PPO have the same policies
        return "PPO" if "clip_range" in data else "A2C"
    if rest.startswith("td3") and data.get("policy_delay") == 1:  # how DDPG differs from TD3
        return "DDPG"
    return rest.split(".")[0].upper()


def archive_controller(
    model: BaseAlgorithm, generator: np.random.Generator, *, deterministic: bool
) -> Controller:
    """Acts as the model does.

    Args:
        model: As `load_archive` returns it.
        generator: Draws its actions, if they are not deterministic.
        deterministic: Whether it acts by its mean.
    """
    seed: Callable[[int], object] = importlib.import_module("torch").manual_seed

    def act(observation: FloatArray) -> list[float]:
        if not deterministic:
            # It draws from PyTorch's global generator, which others draw from, too.
            seed(int(generator.integers(2**63)))
        try:
            action, _ = model.predict(observation, deterministic=deterministic)
        except ValueError as error:
            raise UsageError(f"the policy does not fit this environment: {error}") from error
        numbers: list[float] = np.asarray(action, dtype=np.float32).tolist()
        return numbers

    return act
