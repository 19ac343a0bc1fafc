"""MuJoCo's runners, below, at and above their speed limit.

Each robot has an actor file: networks from several moments of one training, each able to run for
any penalty on cost. What follows says which of them drive in which family, by the return and cost
that each was measured to reach (`safer-offline behaviors list` shows a part of that).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from safer_offline.datasets.behaviors.base import BehaviorFamily, Controller
from safer_offline.datasets.behaviors.families import Draw, broad, cautious, frontier, recovery
from safer_offline.datasets.behaviors.learned.families import packaged_drivers

Runners = Mapping[int, tuple[float, float]]
"""Penalties, from the least to the largest, by the training step of the network that runs."""


def _draw(runners: Runners, *, name: str, sha256: str, deterministic_share: float) -> Draw:
    """Draws a network of a packaged actor file, and a penalty from the range that goes with it."""
    draws = [
        packaged_drivers(
            name,
            sha256=sha256,
            snapshots=(step,),
            penalties=penalties,
            deterministic_share=deterministic_share,
        )
        for step, penalties in runners.items()
    ]

    def draw(generator: np.random.Generator) -> Controller:
        return draws[int(generator.integers(len(draws)))](generator)

    return draw


def _families(
    name: str,
    sha256: str,
    *,
    at_the_limit: Runners,
    in_and_out: Runners,
    below: Runners,
    all_sorts: Runners,
    noise: float,
    switch_every: float,
) -> tuple[BehaviorFamily, ...]:
    """The four families of a robot.

    Args:
        name: Of the actor file.
        sha256: Of the actor file.
        at_the_limit: About as fast as they may be.
        in_and_out: On both sides of the limit.
        below: Within the limit.
        all_sorts: Early and late, speeding and slow.
        noise: Largest scale of an episode's noise in the broad family; the others have a quarter of
            it. A robot that falls is lost, so how much it stands is its own.
        switch_every: Steps between changes of runner, where they change: one to two seconds.
    """
    runners = functools.partial(_draw, name=name, sha256=sha256)
    families = {
        "early to late networks, from speeding to slow, noisy, with changes of runner and bursts "
        "of random actions": broad(
            runners(all_sorts, deterministic_share=0.25),
            noise=noise,
            burst_rate=0.02 * noise,
            switch_every=5 * switch_every,
        ),
        "late networks, as fast as the speed limit allows or just above it": frontier(
            runners(at_the_limit, deterministic_share=0.8), noise=noise / 4
        ),
        "late networks that change every one or two seconds between speeding and slow": recovery(
            runners(in_and_out, deterministic_share=0.5),
            noise=noise / 4,
            switch_every=switch_every,
        ),
        "networks that keep below the speed limit nearly all of the time": cautious(
            runners(below, deterministic_share=0.8), noise=noise / 4
        ),
    }
    return tuple(
        dataclasses.replace(family, description=description, checkpoint_sha256=sha256)
        for description, family in families.items()
    )


HALFCHEETAH_VELOCITY = _families(
    "halfcheetah-velocity",
    "2e5fc36bef653e219187c276296ea8f827d0108a6ec906466a08c47213c28b28",
    at_the_limit={120_000: (3.5, 4.0), 160_000: (3.45, 4.0), 200_000: (3.7, 4.0)},
    in_and_out={120_000: (2.8, 4.0), 160_000: (3.0, 4.0), 200_000: (3.2, 4.0)},
    below={60_000: (3.7, 4.0), 160_000: (3.6, 4.0)},
    all_sorts={
        60_000: (2.5, 4.0),
        120_000: (2.5, 4.0),
        160_000: (3.0, 4.0),
        200_000: (0.0, 4.0),
    },
    noise=0.4,
    switch_every=40.0,
)

HOPPER_VELOCITY = _families(
    "hopper-velocity",
    "5176928bb7f5ed02d77a6a37e9c6bfa374b1e2987ce169acf0a92794adb58b2d",
    at_the_limit={100_000: (1.4, 1.9), 225_000: (1.7, 2.1), 250_000: (1.3, 2.6)},
    in_and_out={200_000: (0.7, 1.1), 250_000: (0.7, 2.5)},
    below={100_000: (1.6, 2.0), 225_000: (1.75, 2.1), 250_000: (2.3, 2.6)},
    all_sorts={
        100_000: (0.0, 4.0),
        200_000: (0.0, 1.2),
        225_000: (0.5, 2.2),
        250_000: (0.0, 4.0),
    },
    noise=0.2,
    switch_every=150.0,
)

ANT_VELOCITY = _families(
    "ant-velocity",
    "8e7a460ea180bc168ca99376aa5681f73f6702bfaefdb2438adb134ad0645e40",
    at_the_limit={245_000: (1.4, 2.0), 350_000: (1.6, 2.0)},
    in_and_out={245_000: (0.25, 2.0), 350_000: (0.0, 2.0)},
    below={70_000: (0.0, 0.75), 245_000: (1.8, 2.0)},
    all_sorts={
        70_000: (0.0, 2.0),
        175_000: (0.3, 2.0),
        245_000: (0.0, 2.0),
        350_000: (0.0, 2.0),
    },
    noise=0.4,
    switch_every=40.0,
)
