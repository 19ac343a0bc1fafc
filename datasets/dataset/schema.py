"""File format v1: which arrays a dataset file holds and what its attributes say.

A file is one flat HDF5 in the layout of DSRL. Every array has one row per transition (N rows,
whole episodes one after the other); everything else is an attribute of the root group, because
peers that read this layout slice every array they find by rows.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safer_offline.context import BoxSpace, EnvironmentContext
from safer_offline.errors import DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "safer-offline/1"
MATRICES = ("observations", "next_observations", "actions")
FLOAT_ARRAYS = (*MATRICES, "rewards", "costs")
FLAG_ARRAYS = ("terminals", "timeouts")
ARRAYS = (*FLOAT_ARRAYS, *FLAG_ARRAYS)
INFO_PREFIX = "infos/"
IDENTIFIERS = ("infos/episode_id", "infos/seed", "infos/policy_id")

# HDF5 keeps an attribute in an object header message, which holds just under 64 KiB.
MAX_ATTRIBUTE_BYTES = 64_000


@dataclass(frozen=True, kw_only=True)
class BehaviorPolicy:
    """One of the policies that acted; `infos/policy_id` holds its place in the list.

    Args:
        name: What to call it in tables and plots.
        share: The share of the episodes it was asked to act in, 0 to 1.
        description: How it acts, in a few words.
        checkpoint_sha256: Hash of its weights, for a trained policy.
        parameters: Its source and settings (JSON types).
    """

    name: str
    share: float
    description: str = ""
    checkpoint_sha256: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file says about itself in its root attributes; every entry may be unknown.

    The last four describe the arrays: `save_dataset` computes them, whatever they were before.
    """

    name: str = ""
    """What to call the dataset, as Minari names them: `bullet/car-circle/mixed-v1`."""
    description: str = ""
    env_id: str = ""
    env_spec: Mapping[str, Any] | None = None
    """Gymnasium's specification, `json.loads(spec.to_json())`."""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    cost_key: str | None = None
    """Where the environment's `info` held the cost of a step."""
    max_episode_steps: int | None = None
    observation_space: BoxSpace | None = None
    action_space: BoxSpace | None = None
    cost_limit: float | None = None
    cost_definition: str = ""
    reference_scores: Mapping[str, float] = field(default_factory=dict)
    """`return_min`, `return_max` and `cost_max` of an episode: what scores are normalised by."""
    base_seed: int | None = None
    behavior_policies: tuple[BehaviorPolicy, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""
    """UTC, ISO 8601."""
    build_seconds: float | None = None
    """Wall time of the collection; unknown if it was interrupted."""
    command: str = ""
    git_commit: str = ""
    recipe: str = ""
    """The recipe that it was collected by, TOML; empty for a dataset made in another way."""
    license: str = ""
    author: str = ""
    parents: tuple[str, ...] = ()
    """`content_sha256` of the datasets that this one was made from."""
    num_episodes: int | None = None
    num_transitions: int | None = None
    array_sha256: Mapping[str, str] = field(default_factory=dict)
    content_sha256: str = ""

    @property
    def context(self) -> EnvironmentContext:
        """The environment that the data come from, as far as the file tells.

        A file that names the cost key tells all arguments, so that no `env_kwargs` then mean none.
        """
        told = self.env_kwargs or self.cost_key is not None
        return EnvironmentContext(
            env_id=self.env_id,
            kwargs=self.env_kwargs if told else None,
            cost_key=self.cost_key,
            max_episode_steps=self.max_episode_steps,
            observation_space=self.observation_space,
            action_space=self.action_space,
            versions=self.versions,
        )

    def without_content(self) -> Metadata:
        """The same metadata for other arrays: what described the old ones is forgotten."""
        return dataclasses.replace(
            self, num_episodes=None, num_transitions=None, array_sha256={}, content_sha256=""
        )

    def to_attributes(self) -> dict[str, str | int | float]:
        """The attributes to write; unknown entries are left out.

        Raises:
            DataError: If an attribute is larger than HDF5 can store.
        """
        attributes: dict[str, str | int | float] = {"schema": SCHEMA}
        unknown = Metadata()
        for name in _FIELDS:
            value = getattr(self, name)
            if value is None or value == getattr(unknown, name):
                continue
            attributes[name] = _encode_json(value) if name in _JSON_DECODERS else value
        for name, attribute in attributes.items():
            size = len(attribute.encode()) if isinstance(attribute, str) else 0
            if size > MAX_ATTRIBUTE_BYTES:
                raise DataError(
                    f"the attribute takes {size} bytes, HDF5 stores at most {MAX_ATTRIBUTE_BYTES}",
                    field=name,
                    remedy="shorten it; values per episode belong in an array, infos/NAME",
                )
        return attributes

    @classmethod
    def from_attributes(
        cls, attributes: Mapping[str, Any], *, path: str | Path | None = None
    ) -> Metadata:
        """Read the attributes of a file; without our `schema` they are not ours and are ignored.

        Args:
            attributes: As h5py gives them, or as `to_attributes` made them.
            path: The file, for messages.

        Raises:
            DataError: If the file has a schema of another major version, or an attribute does not
                hold what its name promises.
        """
        schema = attributes.get("schema")
        if isinstance(schema, bytes):
            schema = schema.decode(errors="replace")
        if not isinstance(schema, str) or not schema.startswith("safer-offline/"):
            return cls()
        if schema.removeprefix("safer-offline/").split(".")[0] != "1":
            raise DataError(
                f"the file has schema '{schema}', this version reads '{SCHEMA}'",
                path=path,
                field="schema",
                remedy="update safer-offline to the version that wrote the file",
            )
        values: dict[str, Any] = {}
        for name in _FIELDS:
            if name not in attributes:
                continue
            try:
                values[name] = _decode(name, attributes[name])
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise DataError(
                    f"the attribute cannot be understood ({error})",
                    path=path,
                    field=name,
                    remedy="delete or rewrite the attribute, or get the original file again",
                ) from error
        if "cost_key" not in values and values.get("recipe"):
            values["cost_key"] = _cost_key_of(values["recipe"])
        return cls(**values)


_FIELDS = tuple(entry.name for entry in dataclasses.fields(Metadata))


def _cost_key_of(recipe: str) -> str | None:
    """Files from before `cost_key` tell it in their recipe, unless it is the usual one."""
    try:
        environment = tomllib.loads(recipe)["environment"]
    except (tomllib.TOMLDecodeError, KeyError):
        return None
    key = environment.get("cost_key", "cost") if isinstance(environment, dict) else None
    return key if isinstance(key, str) else None


def _encode_json(value: object) -> str:
    def encode(part: object) -> object:
        if isinstance(part, BoxSpace):
            return part.to_json()
        if isinstance(part, BehaviorPolicy):
            return dataclasses.asdict(part)
        raise TypeError(f"{type(part).__name__} has no place in a JSON attribute")

    return json.dumps(value, default=encode, sort_keys=True)


def _mapping(value: Any) -> dict[str, Any]:  # noqa: ANN401 - parsed JSON
    if not isinstance(value, dict):
        raise TypeError("it is no JSON object")
    return value


def _behavior_policy(value: Any) -> BehaviorPolicy:  # noqa: ANN401
    # A later version may say more about a policy than this one knows.
    known = {entry.name for entry in dataclasses.fields(BehaviorPolicy)}
    entries = {key: entry for key, entry in _mapping(value).items() if key in known}
    return BehaviorPolicy(**entries)


def _strings(value: Any) -> dict[str, str]:  # noqa: ANN401
    return {str(key): str(entry) for key, entry in _mapping(value).items()}


def _numbers(value: Any) -> dict[str, float]:  # noqa: ANN401
    numbers = {str(key): float(entry) for key, entry in _mapping(value).items()}
    if not all(math.isfinite(number) for number in numbers.values()):
        raise ValueError("a number is not finite")
    return numbers


_JSON_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "env_spec": _mapping,
    "env_kwargs": _mapping,
    "observation_space": BoxSpace.from_json,
    "action_space": BoxSpace.from_json,
    "reference_scores": _numbers,
    "behavior_policies": lambda value: tuple(_behavior_policy(part) for part in value),
    "versions": _strings,
    "parents": lambda value: tuple(str(part) for part in value),
    "array_sha256": _strings,
}
_REAL_NUMBERS = ("cost_limit", "build_seconds")
_INTEGERS = ("max_episode_steps", "base_seed", "num_episodes", "num_transitions")


def _decode(name: str, value: object) -> object:
    """The value of one entry of `Metadata` from its attribute."""
    if name in _INTEGERS:
        if not isinstance(value, int | np.integer):
            raise TypeError("it is no integer")
        return int(value)
    if name in _REAL_NUMBERS:
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise TypeError("it is no finite number")
        return float(value)
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return _JSON_DECODERS[name](json.loads(value)) if name in _JSON_DECODERS else value
