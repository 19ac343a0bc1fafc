"""Critics of one policy, fitted once and kept in files.

What is told of them (`FittedCritics.told`): `transitions` and `episodes` that they were fitted to;
`constant`, the value of what never varied there, by name; `rank_correlation` (see `quality`); and
`fitted_for`, all that they depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.environments.source import EnvironmentSource
from safer_offline.evaluation.critics.experience import (
    JUDGED,
    rollouts_to_judge_by,
    rollouts_to_learn_from,
    some_of,
)
from safer_offline.evaluation.critics.fitted_q import (
    UPDATE_WORK,
    FittedCritics,
    fit_critics,
)
from safer_offline.evaluation.critics.quality import rank_correlations
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.critics.sources import CriticSource
from safer_offline.evaluation.rollouts import EvaluatedPolicy
from safer_offline.files import make_folder, write_atomically
from safer_offline.interruption import Interrupted, signal_of
from safer_offline.progress import ProgressBar

FORMAT = "safer-offline/critics/1"


class CriticFinder:
    """Fits critics to a policy, or takes those that were fitted before.

    Args:
        policy: Who is evaluated.
        source: Makes the environment.
        horizon: Steps of an episode, at most.
        workers: Simulation processes.
        bar: Advances as `critics_work` says.
        identity: What critics depend on beside their source, as JSON types.
        folder: Where they are kept; None keeps nothing.
    """

    def __init__(
        self,
        policy: EvaluatedPolicy,
        *,
        source: EnvironmentSource,
        horizon: int,
        workers: int | None,
        bar: ProgressBar,
        identity: Mapping[str, Any],
        folder: Path | None,
    ) -> None:
        self._policy = policy
        self._source = source
        self._horizon = horizon
        self._workers = workers
        self._bar = bar
        self._identity = dict(identity)
        self._folder = folder
        self._judged: OfflineDataset | None = None

    def find(
        self, sources: Sequence[CriticSource], told: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, FittedCritics]:
        """The critics of each source, by its name.

        Args:
            sources: All with the same settings.
            told: They as JSON types, by their names.

        Raises:
            Interrupted: If somebody interrupts; says what is kept.
        """
        found: dict[str, FittedCritics] = {}
        try:
            for source in sources:
                found[source.name] = self._find(source, told[source.name])
        except KeyboardInterrupt as error:
            kept = ""
            if found and self._folder is not None:
                kept = f"critics of {', '.join(found)} are kept in {self._folder}"
            raise Interrupted(kept, number=signal_of(error)) from None
        return found

    def _find(self, wanted: CriticSource, told: Mapping[str, Any]) -> FittedCritics:
        fitted_for = {"source": wanted.name, **self._identity, "settings": dict(told)}
        file = None if self._folder is None else _file(self._folder, fitted_for)
        critics = None if file is None else _read(file, self._policy)
        if critics is None:
            critics = self._fit(wanted)
            critics.told["fitted_for"] = fitted_for
            if file is not None:
                _save(critics, file)
        else:
            self._bar.advance(critics_work(wanted, horizon=self._horizon))
        return critics

    def _fit(self, wanted: CriticSource) -> FittedCritics:
        settings, bar = wanted.settings, self._bar
        if wanted.data is None:
            seen = rollouts_to_learn_from(
                self._policy, self._source, settings, workers=self._workers, bar=bar
            )
        else:
            seen = some_of(wanted.data, settings.transitions, seed=settings.seed)
        critics = fit_critics(self._policy, seen, settings, bar=bar, what=wanted.name)
        signals = {"reward": seen.rewards, "cost": seen.costs}
        critics.told = {
            "transitions": len(seen),
            "episodes": seen.num_episodes,
            "constant": {
                name: values[0].item()
                for name, values in signals.items()
                if (values == values[0]).all()
            },
            "rank_correlation": rank_correlations(
                critics, self._to_judge_by(settings), discount=settings.discount
            ),
        }
        return critics

    def _to_judge_by(self, settings: CriticSettings) -> OfflineDataset:
        """Held-out episodes, the same for all sources."""
        if self._judged is None:
            self._judged = rollouts_to_judge_by(
                self._policy, self._source, settings, workers=self._workers, bar=self._bar
            )
        else:
            self._bar.advance(JUDGED * self._horizon)
        return self._judged


def critics_work(wanted: CriticSource, *, horizon: int) -> float:
    """How much there is to do, in steps of the simulator, or what takes as long.

    Args:
        wanted: What critics are fitted to.
        horizon: Steps of an episode.
    """
    return episodes_to_make(wanted) * horizon + wanted.settings.updates * UPDATE_WORK


def episodes_to_make(wanted: CriticSource) -> int:
    """How many episodes of the policy it takes, if it is the only source."""
    return JUDGED + (wanted.settings.episodes if wanted.data is None else 0)


def _file(folder: Path, fitted_for: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(fitted_for, sort_keys=True).encode()).hexdigest()
    return folder / f"{fitted_for['source']}-{digest[:12]}.safetensors"


def _save(critics: FittedCritics, file: Path) -> None:
    make_folder(file.parent)
    state = {name: tensor.contiguous() for name, tensor in critics.state_dict().items()}
    header = {
        "format": FORMAT,
        "members": critics.members,
        "hidden_sizes": critics.hidden_sizes,
        "told": critics.told,
    }
    # One entry, for the library writes several in another order each time.
    write_atomically(file, to_bytes(state, metadata={"critics": json.dumps(header)}))


def _read(file: Path, policy: EvaluatedPolicy) -> FittedCritics | None:
    """What was kept; None if there is nothing, or it is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})["critics"])
            state: dict[str, Tensor] = {
                name: opened.get_tensor(name)
                for name in opened.keys()  # noqa: SIM118
            }
        if header["format"] != FORMAT:
            return None
        with torch.random.fork_rng(devices=()):
            critics = FittedCritics(
                policy.observation_size,
                policy.action_size,
                members=header["members"],
                hidden_sizes=tuple(header["hidden_sizes"]),
            )
        critics.load_state_dict(state)
        critics.told = header["told"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    return critics.requires_grad_(False)
