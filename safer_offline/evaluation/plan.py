"""What an evaluation is about: all that its numbers depend on, as JSON and as a name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from safer_offline.attacks import EpsilonUnits
from safer_offline.context import EnvironmentContext
from safer_offline.environments.tasks import ENVIRONMENT_IDS, short_name

_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Two evaluations with equal plans have equal results, on one machine.

    Attributes:
        context: The environment that is simulated.
        policy: Fingerprint of the policy; empty where it has none.
        epsilon: Budget as the caller gave it: one number, or one for each coordinate.
        epsilon_units: "raw" observation units, or "std" of the dataset.
        episodes: Under each attack.
        seed: Of episodes and attacks.
        cost_limit: Largest allowed episode cost, or None.
        attacks: Settings of each attack by its name, in order, before any was fitted.
        certify: Whether actions are certified, too.
        budgets: Multiples of epsilon to meet one after the other, ascending; empty means epsilon
            alone.
        critics: What critics are fitted to and how, by the name of the source; empty if no attack
            asks others than the policy's own.
        aims: What the policy aims at, by name; empty if it cannot be told.
    """

    context: EnvironmentContext
    policy: str = ""
    epsilon: float | tuple[float, ...]
    epsilon_units: EpsilonUnits
    episodes: int
    seed: int
    cost_limit: float | None
    attacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    certify: bool = False
    budgets: tuple[float, ...] = ()
    critics: dict[str, dict[str, Any]] = field(default_factory=dict)
    aims: dict[str, float] = field(default_factory=dict)

    def at(self, multiple: float) -> EvaluationPlan:
        """The plan of one of the budgets by itself."""
        return replace(self, epsilon=scaled(self.epsilon, multiple), budgets=())

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types; equal values mean an equal plan."""
        environment = self.context.to_json()
        document = {
            "env": environment.pop("env_id", ""),
            "environment": environment,
            "policy_sha256": self.policy,
            "epsilon": self.epsilon,
            "epsilon_units": self.epsilon_units,
            "episodes": self.episodes,
            "seed": self.seed,
            "cost_limit": self.cost_limit,
            "attacks": self.attacks,
        }
        if self.budgets:
            document["budgets"] = self.budgets
        if self.certify:
            document["certify"] = True
        if self.critics:
            document["critics"] = self.critics
        if self.aims:
            document["aims"] = self.aims
        # Attacks of the user's own may hold settings that JSON does not know.
        plain: dict[str, Any] = json.loads(json.dumps(document, default=str))
        return plain

    @property
    def name(self) -> str:
        """A name for the folder of its results: what people look for, and a hash of all of it.

        Versions of packages are left out of the hash: after an update the same evaluation takes
        the same place.
        """
        env_id = self.context.env_id
        task = short_name(env_id) if env_id in ENVIRONMENT_IDS else env_id.rpartition(":")[2]
        budget = f"eps{self.epsilon:g}" if isinstance(self.epsilon, float) else "eps-by-coordinate"
        words = [task or "environment", budget + ("std" if self.epsilon_units == "std" else "")]
        words += [f"{len(self.budgets)}budgets"] if self.budgets else []
        words += [f"{self.episodes}episodes", f"seed{self.seed}"]
        told = self.to_json()
        told["environment"].pop("versions", None)
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        plain = "".join(c if c.isalnum() or c in "-." else "-" for c in "-".join(words))
        return f"{plain[:_LONGEST]}-{digest[:8]}"


def scaled(epsilon: float | tuple[float, ...], multiple: float) -> float | tuple[float, ...]:
    """A multiple of a budget, as one would write it: 1.5 * 0.05 is 0.075, not 0.07500000000000001.

    So the same budget gives the same numbers, to the last bit, whichever way it is asked for.
    """
    if isinstance(epsilon, tuple):
        return tuple(float(f"{multiple * one:.12g}") for one in epsilon)
    return float(f"{multiple * epsilon:.12g}")
