"""One physics server of pybullet: its bodies, its parameters, its state."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safer_offline.errors import MissingSimulatorError

BODIES = Path(__file__).parent / "bodies"
GRAVITY = -9.81
SOLVER_ITERATIONS = 5
CONTACT_ERROR_REDUCTION = 0.9


class Engine:
    """A physics server of its own, without a window.

    pybullet's functions are attributes, bound to this server: a step calls a dozen of them, and
    finding each anew takes a good part of the time of a light task.

    Args:
        period: Seconds that a step takes.
        substeps: Steps of the integrator within it.
        visuals: Whether bodies get what only a renderer needs.

    Raises:
        MissingSimulatorError: If pybullet is not installed.
    """

    def __init__(self, *, period: float, substeps: int, visuals: bool) -> None:
        pybullet = import_pybullet()
        self.pybullet = pybullet
        self.visuals = visuals
        self._client: int = pybullet.connect(pybullet.DIRECT)
        for name, function in vars(pybullet).items():
            if inspect.isbuiltin(function):
                setattr(self, name, functools.partial(function, physicsClientId=self._client))
        self.setPhysicsEngineParameter(
            fixedTimeStep=period,
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
            numSubSteps=substeps,
        )
        self.setGravity(0, 0, GRAVITY)
        self.setDefaultContactERP(CONTACT_ERROR_REDUCTION)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - pybullet has no types
        if name == "pybullet":  # not yet there
            raise AttributeError(name)
        return getattr(self.pybullet, name)

    def load(self, name: str, *, flags: int = 0, **where: Any) -> int:  # noqa: ANN401
        """Add one body of `bodies/`; its number."""
        if not self.visuals:
            # The physics stays the same, bit for bit, but a car is built four times as fast.
            flags |= self.URDF_IGNORE_VISUAL_SHAPES
        path = str(BODIES / name)
        if path.endswith(".xml"):
            body: int = self.loadMJCF(path, flags=flags)[0]
        else:
            body = self.loadURDF(path, flags=flags, **where)
        return body

    def load_ground(self, name: str) -> int:
        """Add the ground; its number is 0, so it must be first."""
        ground = self.load(name)
        self.changeDynamics(ground, -1, lateralFriction=0.8, restitution=0.5)
        return ground

    def close(self) -> None:
        """Shut the server down; once is enough."""
        if self._client >= 0:
            self.disconnect()
            self._client = -1


def import_pybullet() -> Any:  # noqa: ANN401 - pybullet has no types
    """The module `pybullet`, without the line that it writes when it is first imported.

    Raises:
        MissingSimulatorError: If it is not installed.
    """
    try:
        with _without_banner():
            return importlib.import_module("pybullet")
    except ImportError as error:
        raise MissingSimulatorError(
            f"the Bullet tasks need the package 'pybullet' ({error}). "
            "Remedy: pip install pybullet-arm64, which has wheels for Linux (Intel and ARM) and "
            "macOS, Python 3.10 to 3.13. Training and everything about datasets works without it"
        ) from error


@contextlib.contextmanager
def _without_banner() -> Iterator[None]:
    """Hide what C code writes to the standard error: it is the file descriptor that must go."""
    if "pybullet" in sys.modules:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
