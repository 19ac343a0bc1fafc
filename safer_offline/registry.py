"""Things that have names: those of the package, those of installed packages, and your own.

Algorithms, attacks and actors are found alike. A name means, in this order: what was registered
in this process, what comes with this package, what an installed package offers under an entry
point, and, if there is a colon in it, `module:object`. Nothing is imported before it is asked for,
so a package that is broken disturbs nobody but those who name what is in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.importing import failure_of, find_object

T = TypeVar("T")


class Registry(Collection[str], Generic[T]):
    """Named things of one kind; as a collection, their plain names.

    Args:
        kind: What they are, for messages, such as `attack`.
        group: The group of entry points in which other packages offer theirs.
        builtin: Where those of this package are, as `module:object`, by name.
        check: Returns the thing that was found under a name if it is of the kind.

    Raises (from `check`):
        UsageError: If it is not.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        builtin: Mapping[str, str],
        check: Callable[[object, str], T],
    ) -> None:
        self.kind = kind
        self.group = group
        self.builtin = dict(builtin)
        self.check = check
        self._registered: dict[str, T] = {}

    def register(self, name: str, thing: object) -> None:
        """Give a thing of one's own a name, in this process.

        Raises:
            UsageError: If it is not of the kind, or the name is no plain word or taken.
        """
        if not name or any(mark in name for mark in ":,=. \t\n"):
            raise UsageError(f"'{name}' is no name for an {self.kind}: use letters, '-' and '_'")
        if name in self.builtin or self._registered.get(name, thing) is not thing:
            raise UsageError(f"there is an {self.kind} '{name}' already; choose another name")
        self._registered[name] = self.check(thing, name)

    def get(self, name: str) -> T:
        """What has this name, or is named by `module:object`.

        Raises:
            UsageError: If there is no such thing, or it is not of the kind; the message names the
                nearest one.
            SaferOfflineError: If importing what it lies in fails.
        """
        if ":" in name:
            return self.check(find_object(name, kind=self.kind), name)
        for spelling in dict.fromkeys((name, name.lower())):
            if spelling in self._registered:
                return self._registered[spelling]
            if spelling in self.builtin:
                return self._builtin(spelling)
            if offers := self._offers(spelling):
                return self._load(offers)
        known = list(self)
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
        raise UsageError(
            f"unknown {self.kind} '{name}'; the nearest known one is '{near[0]}'. Known: "
            f"{', '.join(known)}. One of your own is named 'module:Class'"
        )

    def name_of(self, thing: type[object]) -> str:
        """The name by which `get` finds a class: a plain one if it has one, else `module:Class`."""
        for name, registered in self._registered.items():
            if registered is thing:
                return name
        place = f"{thing.__module__}:{thing.__qualname__}"
        for name, target in self.builtin.items():
            if target == place:
                return name
        for entry in entry_points(group=self.group):
            if entry.value == place:
                return entry.name
        return place

    def search(self, wanted: Callable[[T], bool]) -> T | None:
        """The first thing that is wanted, or None; offers that cannot be loaded are passed over."""
        for thing in (*self._registered.values(), *map(self._builtin, self.builtin)):
            if wanted(thing):
                return thing
        for entry in entry_points(group=self.group):
            try:
                offered = self._load([entry])
            except SaferOfflineError:
                continue
            if wanted(offered):
                return offered
        return None

    def __iter__(self) -> Iterator[str]:
        """All plain names: this package's, those registered, those of installed packages."""
        offered = sorted(entry.name for entry in entry_points(group=self.group))
        return iter(dict.fromkeys((*self.builtin, *self._registered, *offered)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def _builtin(self, name: str) -> T:
        return self.check(find_object(self.builtin[name], kind=self.kind), name)

    def _offers(self, name: str) -> list[EntryPoint]:
        return list({e.value: e for e in entry_points(group=self.group, name=name)}.values())

    def _load(self, offers: list[EntryPoint]) -> T:
        entry = offers[0]
        if len(offers) > 1:
            raise UsageError(
                f"several packages offer an {self.kind} '{entry.name}': name the one you mean, "
                f"{' or '.join(offer.value for offer in offers)}"
            )
        try:
            thing = entry.load()
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else entry.value
            raise SaferOfflineError(
                f"the {self.kind} '{entry.name}' of the package {package} cannot be loaded: "
                f"{failure_of(error)}"
            ) from error
        return self.check(thing, entry.name)
