"""Recipes: one declarative TOML file a published dataset says who acts, where, and how long.

The file is the whole truth: the same recipe, with the same versions of the simulator, gives the
same content. It is stored in the dataset it made, so that anybody can make that again.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from safer_offline.datasets.behaviors.base import ExplorationNoise
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.tasks import find_environment, short_name
from safer_offline.errors import DataError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
DEFAULT_QUALITY = "mixed"

_KINDS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("str", "text", (str,)),
    ("int", "whole number", (int,)),
    ("float", "number", (int, float)),
    ("Mapping", "table", (Mapping,)),
)
"""How the type of an entry begins, what to call it, and what TOML gives for it."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One of those who act in a recipe.

    Attributes:
        policy: A family of the task (`frontier`), `checkpoint:FILE` or `module:callable`; see
            `behaviors.sources`.
        share: Its share of the episodes; the shares of a recipe are relative to their sum.
        name: What to call it in the dataset; empty takes the family's own name.
        noise: Added to its actions, beyond what it does by itself.
        parameters: Passed to the policy, where it takes any.
    """

    policy: str
    share: float = 1.0
    name: str = ""
    noise: ExplorationNoise | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share > 0):
            raise ValueError(f"the share of '{self.policy}' must be positive, not {self.share}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset is made.

    Attributes:
        name: What to call it, as Minari names datasets: `bullet/car-circle/mixed-v1`.
        environment: Where.
        behaviors: Who, and how often; one is drawn for each episode.
        transitions: How many to collect at least; episodes are never cut short.
        seed: Same recipe, same seed: same content.
        description: For tables and dataset cards.
        cost_definition: What costs how much.
        cost_limit: A limit that goes with the task, where there is one.
        reference_scores: What to normalise returns and costs by, see `Metadata`; empty takes the
            extremes of the dataset itself.
        license: Of the data, an SPDX identifier.
        author: Who answers for it.
        folder: Where relative paths of checkpoints begin; None is the current folder.
    """

    name: str = ""
    environment: EnvironmentSource
    behaviors: tuple[Actor, ...]
    transitions: int = 360_000
    seed: int = 0
    description: str = ""
    cost_definition: str = ""
    cost_limit: float | None = None
    reference_scores: Mapping[str, float] = field(default_factory=dict)
    license: str = ""
    author: str = ""
    folder: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.behaviors:
            raise UsageError("a recipe needs somebody who acts: one [[behaviors]] at least")
        if self.transitions < 1:
            raise UsageError(f"transitions must be at least 1, not {self.transitions}")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, but is {self.seed}")

    @property
    def shares(self) -> tuple[float, ...]:
        """How often each behaviour acts; they sum to one."""
        total = sum(actor.share for actor in self.behaviors)
        return tuple(actor.share / total for actor in self.behaviors)

    def instead(self, *, transitions: int | None = None, seed: int | None = None) -> Recipe:
        """The same recipe with another size or seed, under a name that says so.

        What it makes is not the dataset that others know by the recipe's name.

        Args:
            transitions: Instead of the recipe's number; None leaves it.
            seed: Instead of the recipe's.
        """
        changed: dict[str, Any] = {
            word: (value, getattr(self, word))
            for word, value in (("transitions", transitions), ("seed", seed))
            if value is not None and value != getattr(self, word)
        }
        if not changed:
            return self
        told = [f"{word} {new:,} instead of {old:,}" for word, (new, old) in changed.items()]
        note = f"Not the dataset of the recipe: {' and '.join(told)}."
        stem, version, number = self.name.rpartition("-v")
        stem = stem if version else self.name
        words = {"transitions": "n", "seed": "seed"}
        suffix = "".join(f"-{words[word]}{new}" for word, (new, _) in changed.items())
        return dataclasses.replace(
            self,
            **{word: new for word, (new, _) in changed.items()},
            name=self.name and f"{stem}{suffix}{version}{number if version else ''}",
            description=f"{self.description} {note}".strip(),
        )

    @classmethod
    def from_toml(cls, text: str, *, path: Path | None = None) -> Recipe:
        """Read a recipe.

        Args:
            text: Its TOML.
            path: The file it comes from, for messages and for checkpoints beside it.

        Raises:
            DataError: If it is no TOML, or an entry is missing, unknown or impossible.
        """
        try:
            entries = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _refusal(f"this is no TOML ({error})", None, path) from error
        tables = entries.pop("behaviors", [])
        if not isinstance(tables, list):
            raise _refusal("is no list of tables, [[behaviors]]", "behaviors", path)
        environment = _read(
            _read_environment, entries.pop("environment", None), path, "environment"
        )
        behaviors = tuple(
            _read(_read_actor, table, path, f"behaviors[{position}]")
            for position, table in enumerate(tables)
        )

        def build(settings: Mapping[str, Any]) -> Recipe:
            parts = {"environment": environment, "behaviors": behaviors}
            recipe: Recipe = _build(cls, {**settings, **parts})
            return dataclasses.replace(recipe, folder=path.parent if path else None)

        recipe: Recipe = _read(build, entries, path, None)
        return recipe

    def to_toml(self) -> str:
        """The recipe as text; `from_toml` reads it back."""
        return tomli_w.dumps(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """All entries that say something, as JSON types."""
        entries = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name not in ("environment", "behaviors", "folder")
        }
        environment = dataclasses.asdict(self.environment)
        return {
            **_spoken(entries),
            "seed": self.seed,
            "environment": {"id": environment.pop("name"), **_spoken(environment)},
            "behaviors": [_spoken(dataclasses.asdict(actor)) for actor in self.behaviors],
        }


def recipe_names() -> list[str]:
    """The recipes that come with the package, such as `car-circle-mixed`."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by its name, by its task (which means the mixed one), or from a file.

    Args:
        name: `car-circle-mixed`, `car-circle`, `SafetyCarCircle-v0` or `my_recipe.toml`.

    Raises:
        UsageError: If there is no such recipe; the message names the nearest.
        DataError: If the file cannot be understood.
    """
    path = Path(name)
    if path.suffix != ".toml":
        env_id = find_environment(str(name))
        wanted = short_name(env_id) if env_id else str(name).lower().replace("_", "-")
        known = recipe_names()
        found = wanted if wanted in known else f"{wanted}-{DEFAULT_QUALITY}"
        if found not in known:
            # The mixed recipe of a task answers to the task's name, too.
            tasks = [recipe.removesuffix(f"-{DEFAULT_QUALITY}") for recipe in known]
            near = difflib.get_close_matches(wanted, [*tasks, *known], n=1, cutoff=0.0)[0]
            raise UsageError(
                f"there is no recipe '{name}'; the nearest is '{near}'. `safer-offline collect "
                "--list` shows all. A file of your own ends in .toml; for an environment of your "
                "own (module:factory) say with --policy who acts"
            )
        path = FOLDER / f"{found}.toml"
    if not path.is_file():
        raise UsageError(f"there is no recipe file {path}")
    try:
        text = _decode(path.read_bytes())
    except UnicodeDecodeError as error:
        raise _refusal(f"is no UTF-8 text ({error})", None, path) from error
    return Recipe.from_toml(text, path=path)


def _decode(content: bytes) -> str:
    """Text as editors save it: UTF-8, or what a byte-order mark at the beginning says."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def _read_environment(table: Mapping[str, Any]) -> EnvironmentSource:
    source: EnvironmentSource = _build(
        EnvironmentSource, {("name" if key == "id" else key): table[key] for key in table}
    )
    return source


def _read_actor(table: Mapping[str, Any]) -> Actor:
    noise = table.get("noise")
    built = None if noise is None else _build(ExplorationNoise, noise)
    actor: Actor = _build(Actor, {**table, "noise": built})
    return actor


def _read(
    build: Callable[[Mapping[str, Any]], Any], table: object, path: Path | None, name: str | None
) -> Any:  # noqa: ANN401
    """What `build` makes of a table of a recipe, with errors that name file and table."""
    if not isinstance(table, dict):
        raise _refusal("is missing, or is no table", name, path)
    try:
        return build(table)
    except (TypeError, ValueError, UsageError) as error:
        raise _refusal(str(error), name, path) from error


def _build(kind: type[Any], settings: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A dataclass from parsed TOML: unknown entries and wrong types are errors that say so."""
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    for name, value in settings.items():
        if name not in known or name == "folder":
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            raise ValueError(
                f"the entry '{name}' is unknown"
                + (f"; did you mean '{near[0]}'?" if near else "")
                + f" (known: {', '.join(sorted(set(known) - {'folder'}))})"
            )
        for written, word, types in _KINDS:
            fits = isinstance(value, types) and not isinstance(value, bool)
            if str(known[name].type).startswith(written) and not fits and value is not None:
                raise ValueError(f"the entry '{name}' is {value!r}, which is no {word}")
    missing = [
        name
        for name, entry in known.items()
        if name not in settings
        and entry.default is dataclasses.MISSING
        and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"the entry '{missing[0]}' is missing")
    return kind(**settings)


def _spoken(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that say something; TOML has no null."""
    return {key: value for key, value in entries.items() if value not in (None, "", {})}


def _refusal(problem: str, field_name: str | None, path: Path | None) -> DataError:
    return DataError(
        problem,
        path=path,
        field=field_name,
        remedy=f"mend the recipe there; those in {FOLDER} show how it is done",
    )
