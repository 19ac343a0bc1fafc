"""Settings of the training of a behaviour."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from safer_offline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BehaviorTrainingConfig:
    """Settings of a training; the defaults are those that the packaged actors were trained with.

    Attributes:
        steps: Environment steps in all.
        penalties: What a unit of cost may take from the reward; each episode draws one.
        snapshots: Shares of the steps after which the networks are kept. Early ones drive worse,
            which gives a dataset its lower qualities.
        approach_reward: Circle tasks only: added to the training reward for each metre of progress
            towards the track; the reward near the centre, where episodes begin, is almost zero.
            Logs and scores count the task's own reward.
        alive_reward: Added to the training reward at each step that does not end in a fall.
        reward_scale: Factor of the whole training reward. SAC weighs it against the entropy of the
            actions, and tasks whose steps pay about 0.1 drown in it.
        hidden_sizes: Hidden layers of actor and critics.
        learning_rate: Of Adam, for actor, critics and temperature.
        discount: Of future rewards.
        averaging_rate: Share of the critics that enters their targets at each update.
        batch_size: Transitions an update.
        environments: Episodes that run side by side, in this process.
        gradient_steps: Updates after each step of all environments.
        random_steps: Steps of random actions before learning starts.
        evaluation_episodes: Episodes a penalty and snapshot to measure at the end; 0 measures none.
        log_every: Steps between two rows a penalty of the log.
    """

    steps: int = 500_000
    penalties: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    snapshots: tuple[float, ...] = (0.2, 0.5, 1.0)
    approach_reward: float = 0.0
    alive_reward: float = 0.0
    reward_scale: float = 1.0
    hidden_sizes: tuple[int, ...] = (128, 128)
    learning_rate: float = 7.3e-4
    discount: float = 0.98
    averaging_rate: float = 0.02
    batch_size: int = 256
    environments: int = 4
    gradient_steps: int = 2
    random_steps: int = 5_000
    evaluation_episodes: int = 5
    log_every: int = 10_000

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.penalties, self.penalties[1:], strict=False))
        rising = all(a < b for a, b in zip(self.snapshots, self.snapshots[1:], strict=False))
        for holds, problem in (
            (self.steps >= 1, f"steps must be at least 1, not {self.steps}"),
            (
                bool(self.penalties) and ascending and 0 <= self.penalties[0] < math.inf,
                f"penalties must be ascending numbers >= 0, not {self.penalties}",
            ),
            (
                bool(self.snapshots) and rising and self.snapshots[-1] <= 1 < 1 + self.snapshots[0],
                f"snapshots must be ascending shares of the steps, not {self.snapshots}",
            ),
            (
                bool(self.hidden_sizes) and min(self.hidden_sizes) >= 1,
                f"hidden_sizes must be one or more numbers >= 1, not {self.hidden_sizes}",
            ),
            (self.learning_rate > 0, "learning_rate must be positive"),
            (0 < self.discount < 1, "discount must be between 0 and 1"),
            (0 < self.averaging_rate <= 1, "averaging_rate must be above 0 and at most 1"),
            (self.reward_scale > 0, "reward_scale must be positive"),
            (
                min(self.approach_reward, self.alive_reward) >= 0,
                "approach_reward and alive_reward must not be negative",
            ),
            (self.evaluation_episodes >= 0, "evaluation_episodes must not be negative"),
            (self.random_steps >= 0, "random_steps must not be negative"),
            (
                min(self.batch_size, self.environments, self.gradient_steps, self.log_every) >= 1,
                "batch_size, environments, gradient_steps and log_every must be at least 1",
            ),
        ):
            if not holds:
                raise UsageError(problem)

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """Environment steps after which the networks are kept."""
        return tuple(sorted({max(1, round(share * self.steps)) for share in self.snapshots}))

    def with_settings(self, settings: Sequence[str]) -> BehaviorTrainingConfig:
        """The configuration with some fields replaced.

        Args:
            settings: Such as `learning_rate=1e-3` or `penalties=0,1,2,4`.

        Raises:
            UsageError: If a name is unknown (the message names the nearest one) or a value is not
                of the field's type.
        """
        names = [field.name for field in dataclasses.fields(self)]
        values: dict[str, object] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise UsageError(f"{setting}: write it as NAME=VALUE, such as learning_rate=1e-3")
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
                raise UsageError(f"{setting}: there is no '{name}'; the nearest is '{near}'")
            current = getattr(self, name)
            try:
                if isinstance(current, tuple):
                    values[name] = tuple(type(current[0])(part) for part in text.split(","))
                else:
                    values[name] = type(current)(text)
            except ValueError:
                raise UsageError(f"{setting}: the value must look like {current!r}") from None
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]
