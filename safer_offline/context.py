"""What an environment is, as datasets, policies and evaluations carry it along.

Whoever collects writes it down; training copies it from the file into the policy; an evaluation
makes that environment again and says what it made. Nobody is asked twice, and nothing is guessed:
what is unknown stays None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True, kw_only=True)
class BoxSpace:
    """A box of vectors: the observation or action space of the environment.

    Args:
        low: Lower bound of each dimension; -inf where there is none.
        high: Upper bound of each dimension.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high):
            raise ValueError(f"{len(self.low)} lower bounds but {len(self.high)} upper bounds")

    @property
    def size(self) -> int:
        """Number of dimensions."""
        return len(self.low)

    @classmethod
    def from_gymnasium(cls, space: gymnasium.spaces.Box) -> BoxSpace:
        """The same box without Gymnasium."""
        return cls(
            low=tuple(float(bound) for bound in space.low),
            high=tuple(float(bound) for bound in space.high),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BoxSpace:
        """Inverse of `to_json`."""
        return cls(
            low=tuple(float(bound) for bound in value["low"]),
            high=tuple(float(bound) for bound in value["high"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The dictionary that Minari writes for a Gymnasium box, so that peers can read it."""
        return {
            "type": "Box",
            "dtype": "float32",
            "shape": [self.size],
            "low": list(self.low),
            "high": list(self.high),
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something in which two contexts contradict one another.

    Attributes:
        name: The entry of `EnvironmentContext`.
        carried: What the first says.
        actual: What the other says.
    """

    name: str
    carried: Any
    actual: Any


@dataclass(frozen=True, kw_only=True)
class EnvironmentContext:
    """Which environment data or a policy come from; whatever is unknown is None or empty.

    Attributes:
        env_id: The id of a task of ours, a Gymnasium id, or `module:factory`.
        kwargs: Arguments it was made with; an empty mapping says that there were none.
        cost_key: Where its `info` holds the cost of a step.
        max_episode_steps: The step limit of an episode.
        observation_space: Bounds of the observations.
        action_space: Bounds of the actions.
        versions: Of the packages that simulate it.
    """

    env_id: str = ""
    kwargs: Mapping[str, Any] | None = None
    cost_key: str | None = None
    max_episode_steps: int | None = None
    observation_space: BoxSpace | None = None
    action_space: BoxSpace | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EnvironmentContext:
        """Inverse of `to_json`; entries of a later version are left out."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        entries = {name: value for name, value in values.items() if name in known}
        for name in _SPACES:
            if entries.get(name) is not None:
                entries[name] = BoxSpace.from_json(entries[name])
        return cls(**entries)

    def to_json(self) -> dict[str, Any]:
        """Everything that is known, as JSON types."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values |= {
            name: None if values[name] is None else values[name].to_json() for name in _SPACES
        }
        return {name: value for name, value in values.items() if value not in (None, "")}

    def differences(self, actual: EnvironmentContext) -> tuple[Difference, ...]:
        """Where another context contradicts this one; what one of them leaves open does not.

        Versions are left out: they are told, but another version is no other environment.
        """
        return tuple(self._differences(actual))

    def is_task_of(self, actual: EnvironmentContext) -> bool:
        """Whether an episode return means the same in both, as far as they tell."""
        telling = {"env_id", "kwargs", "max_episode_steps"}
        return not any(difference.name in telling for difference in self._differences(actual))

    def _differences(self, actual: EnvironmentContext) -> Iterator[Difference]:
        for entry in dataclasses.fields(self):
            mine, other = getattr(self, entry.name), getattr(actual, entry.name)
            known = mine not in (None, "") and other not in (None, "")
            agree = same_name(mine, other) if entry.name == "env_id" else mine == other
            if entry.name != "versions" and known and not agree:
                yield Difference(name=entry.name, carried=mine, actual=other)


def same_name(one: str, other: str) -> bool:
    """Whether two names mean one environment: Gymnasium's ids may have their module in front."""
    return one == other or one.rpartition(":")[2] == other or one == other.rpartition(":")[2]


_SPACES = ("observation_space", "action_space")
