"""Clips show the recorded episodes, as the simulator draws them."""

import io
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from PIL import Image
from toy_environments import Point

from safer_offline import evaluate
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.evaluation import film as filming
from safer_offline.evaluation.film import drawn_environment, film
from safer_offline.evaluation.outputs import save

SOURCE = EnvironmentSource(name="ball-run", max_episode_steps=6)


class Drawn(Point):
    """Draws where it is, as a grey that gets lighter to the right."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}
    shift = 0.0

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def observe(self):
        return self.x + (self.shift if self.render_mode else 0.0)

    def render(self):
        return np.full((60, 80, 3), np.clip(128 + 60 * self.x[0], 0, 255), np.uint8)


gymnasium.register("ToyDrawn-v0", entry_point="test_film:Drawn", max_episode_steps=12)
TOY = EnvironmentSource(name="ToyDrawn-v0")


def drive(observation):
    return [1.5 if observation[0] < 1 else -1.5, 0.2]


def recorded(source=TOY, **settings):
    settings = {
        "attacks": "natural,search", "epsilon": 0.5, "episodes": 3, "workers": 0, "cost_limit": 3,
        "progress": False, "film": True, "attack_set": ["search.queries=3"],
    } | settings  # fmt: skip
    return evaluate(drive, env=source, **settings)


def frames_of(clip):
    image = Image.open(io.BytesIO(clip))
    assert image.info["duration"] == filming.PERIOD
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
    return frames


def test_each_panel_is_where_the_robot_was(tmp_path):
    report = recorded()
    frames = frames_of(report.clip)
    shown = [path for path in report.paths if path.role == "worst"]
    assert len(frames) == 13
    width, height = filming.PANEL
    assert frames[0].shape == (height + filming.CAPTION, width * len(shown), 3)
    for panel, path in enumerate(shown):
        middle = (slice(filming.CAPTION + 50, height - 50), slice(panel * width + 50, None))
        seen = [float(frame[middle][:, : width - 100].mean()) for frame in frames[:-1]]
        assert seen == pytest.approx(np.clip(128 + 60 * path.true[:, 0], 0, 255), abs=3)
    assert "clip.gif" in {file.name for file in save(report, tmp_path)}


def test_long_episodes_are_shown_in_steps(monkeypatch):
    monkeypatch.setattr(filming, "FRAMES", 5)
    assert len(frames_of(recorded().clip)) == 5  # steps 0, 3, 6, 9 and the end


def test_bullet_draws_itself():
    report = recorded(SOURCE, episodes=1, attacks="natural", epsilon=0.1, attack_set=[])
    frames = frames_of(report.clip)
    assert len(frames) == 7
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) > 20 for frame in frames)


def test_what_does_not_draw_is_refused_before_the_first_episode():
    with pytest.raises(UsageError, match=r"cannot be filmed.*render_mode"):
        recorded(EnvironmentSource(name="toy_environments:ToyPoint-v0"))


def test_another_episode_than_the_recorded_one_is_not_shown(monkeypatch):
    report = recorded(film=False, record=True)
    assert report.clip == b""
    monkeypatch.setattr(Drawn, "shift", 0.1)
    environment = drawn_environment(TOY)
    with pytest.raises(SaferOfflineError, match="not where it was"):
        film(report.paths, environment)
