"""Which policies are trainings of one method, and what to call them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safer_offline.errors import UsageError
from safer_offline.policies.trained import POLICY_FILE, TrainedPolicy


def group_by_training(policies: Mapping[str, object]) -> dict[str, list[str]]:
    """Which policies differ only in the seed of their training.

    Args:
        policies: By the names, or paths, that they go by. Those of others, of whose training
            nothing is known, are methods of their own.

    Returns:
        For each method its name, and the names of its policies, in the order given. The name of
        several is what they have in common, such as `car-circle-seed*`.

    Raises:
        UsageError: If a policy is given twice.
    """
    contents: dict[str, str] = {}
    groups: dict[str, dict[Any, str]] = {}
    for name, policy in policies.items():
        fingerprint = getattr(policy, "fingerprint", "")
        if fingerprint and fingerprint in contents:
            raise UsageError(
                f"{contents[fingerprint]} and {name} are the same policy: give it once"
            )
        contents[fingerprint] = name
        method, seed = name, None
        if isinstance(policy, TrainedPolicy):
            info = dataclasses.asdict(policy.info) | {"context": policy.context.to_json()}
            training = dict(info["training"])
            seed = training.pop("seed", None)
            method = json.dumps(info | {"training": training}, default=str)
        # With the same seed they differ in something that the record does not tell.
        if seed is None or seed in groups.get(method, {}):
            method = f"{method} {name}"
        groups.setdefault(method, {})[seed] = name
    members = [list(names.values()) for names in groups.values()]
    labels = short_names(list(policies))
    named = [_common_name([labels[name] for name in names]) for names in members]
    unique = [
        n if named.count(n) == 1 else labels[m[0]] for n, m in zip(named, members, strict=True)
    ]
    return dict(zip(unique, members, strict=True))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or all of it where two would be called the same."""
    last = {name: Path(name).name or name for name in names}
    last = {
        name: Path(name).parent.name if short == POLICY_FILE else short
        for name, short in last.items()
    }
    shorts = list(last.values())
    return {n: s if s and shorts.count(s) == 1 else n for n, s in last.items()}


def _common_name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    beginning = "".join(letters[0] for letters in alike)
    return f"{beginning}*" if beginning else f"{names[0]} and {len(names) - 1} more"
