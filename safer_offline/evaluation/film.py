"""A clip of an episode without attack beside the same one under attack, drawn by the simulator."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.tasks import BULLET_IDS
from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.evaluation.paths import EpisodePath
from safer_offline.registration import registered_id

FRAMES = 200
"""At most; of a longer episode every second, third, ... step is shown."""
PERIOD = 100
"""Milliseconds between two frames, as GIFs count them: 20 seconds in all."""
PANEL = (360, 270)
CAPTION = 18
COLOURS = 128

_SAME = 1e-4
"""How far an observation may be off where an environment that draws simulates once more."""


def drawn_environment(source: EnvironmentSource) -> gymnasium.Env[Any, Any]:
    """The environment as it draws itself.

    Raises:
        UsageError: If it does not draw.
    """
    env_id = source.env_id
    if env_id in BULLET_IDS:
        return gymnasium.make(registered_id(env_id), render_mode="rgb_array").unwrapped
    kwargs = {**source.kwargs, "render_mode": "rgb_array"}
    try:
        environment = replace(source, kwargs=kwargs).make_gymnasium()
    except SaferOfflineError as error:
        raise UsageError(
            f"{source.name} cannot be filmed, for it takes no render_mode='rgb_array' ({error})"
        ) from error
    if environment.render_mode != "rgb_array":
        environment.close()
        raise UsageError(
            f"{source.name} cannot be filmed, for its render_mode is {environment.render_mode!r} "
            "even where 'rgb_array' is asked for"
        )
    return environment


def film(paths: Sequence[EpisodePath], environment: gymnasium.Env[Any, Any]) -> bytes:
    """The worst recorded episode as an animated GIF, its paths beside each other.

    Args:
        paths: Recorded ones, see `record_paths`.
        environment: See `drawn_environment`.

    Raises:
        SaferOfflineError: If the environment, when it draws, does otherwise than when it does not.
    """
    shown = [path for path in paths if path.role == paths[0].role]
    longest = max(len(path.costs) for path in shown)
    every = math.ceil(longest / FRAMES)
    panels = [list(_panels(path, environment, every=every)) for path in shown]
    count = max(map(len, panels))
    frames = []
    for step in range(count):
        # Who has ended stands still.
        images = [several[min(step, len(several) - 1)] for several in panels]
        frames.append(np.concatenate(images, axis=1))
    first, *rest = (
        Image.fromarray(frame).quantize(COLOURS, dither=Image.Dither.NONE) for frame in frames
    )
    content = io.BytesIO()
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=PERIOD, loop=0)
    return content.getvalue()


def _panels(
    path: EpisodePath, environment: gymnasium.Env[Any, Any], *, every: int
) -> Iterator[NDArray[np.uint8]]:
    """Each shown step of one episode, with what it has cost so far."""
    space = environment.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    observation, _ = environment.reset(seed=path.seed)
    cost = 0.0
    for step, (true, action) in enumerate(zip(path.true, path.actions, strict=True)):
        if not np.allclose(observation, true, rtol=_SAME, atol=_SAME):
            raise SaferOfflineError(
                f"the environment cannot be filmed: at step {step} of episode {path.episode} it is "
                "not where it was when it was simulated without drawing"
            )
        if step % every == 0:
            yield _captioned(environment.render(), f"{path.attack}: cost {cost:g}", cost > 0)
        observation, *_ = environment.step(np.clip(action, space.low, space.high))
        cost += float(path.costs[step])
    yield _captioned(environment.render(), f"{path.attack}: cost {cost:g}", cost > 0)


def _captioned(picture: object, text: str, unsafe: bool) -> NDArray[np.uint8]:
    panel = Image.new("RGB", (PANEL[0], PANEL[1] + CAPTION), "white")
    panel.paste(Image.fromarray(np.asarray(picture, np.uint8)).resize(PANEL), (0, CAPTION))
    ImageDraw.Draw(panel).text((6, 3), text, fill=(0xD5, 0x5E, 0) if unsafe else (0x33, 0x33, 0x33))
    return np.asarray(panel)
