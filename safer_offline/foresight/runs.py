"""Foresight on run directories: which data they learned from, and where the answer is kept."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safer_offline.attacks import EpsilonUnits, attack_budget
from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.datasets.loading import load_dataset
from safer_offline.errors import DataError, UsageError
from safer_offline.files import find_moved, require_writable, write_json, writing
from safer_offline.foresight.estimate import Foresight, foresee
from safer_offline.foresight.model import DynamicsConfig, DynamicsEnsemble, fit_dynamics
from safer_offline.policies.aiming import tell
from safer_offline.policies.trained import TrainedPolicy, load_policy

FORESIGHT_FILE = "foresight.json"


def foresee_run(
    run: Path,
    policy: TrainedPolicy,
    dataset: TransitionSource,
    *,
    epsilon: float | Sequence[float] | None = None,
    epsilon_units: EpsilonUnits | None = None,
    model: DynamicsEnsemble | None = None,
    restarts: int = 1,
    seed: int = 0,
) -> Foresight:
    """Foresee a run's episodes and keep the answer in its directory, as foresight.json.

    Args:
        run: The directory.
        policy: Its policy.
        dataset: Says what follows an action.
        epsilon: Budget of the attacks, which a policy that can be told is told; None takes what
            the run was trained to withstand.
        epsilon_units: Its units, `raw` where None.
        model: See `foresee`.
        restarts: See `foresee`.
        seed: See `foresee`.
    """
    config: Mapping[str, Any] = policy.info.training.get("config", {})
    units = epsilon_units or "raw"
    budget = epsilon
    if budget is None:
        budget, units = config.get("epsilon", 0.05), config.get("epsilon_units", "raw")
    else:
        policy = tell(policy, budget=attack_budget(budget, policy.observation_std, units=units))
    model = model or fit_dynamics(dataset, DynamicsConfig(), seed=seed)
    found = foresee(
        policy,
        dataset,
        epsilon=budget,
        epsilon_units=units,
        model=model,
        restarts=restarts,
        seed=seed,
    )
    told = {"epsilon": budget, "epsilon_units": units, "restarts": restarts, "seed": seed}
    document = told | found.to_json()
    with writing(run, what="the estimate"):
        write_json(run / FORESIGHT_FILE, document)
    return found


def foresee_runs(
    runs: Sequence[Path],
    data: str | Path | None = None,
    *,
    epsilon: float | Sequence[float] | None = None,
    seed: int = 0,
) -> Iterator[tuple[Path, Foresight]]:
    """The same for several runs on one dataset, whose model is fitted once.

    Args:
        runs: Run directories of `train`.
        data: The dataset; None takes the one that the first run learned from.
        epsilon: Budget of the attacks in raw units; None takes what each was trained to withstand.
        seed: See `foresee`.

    Raises:
        DataError: If the dataset is no longer where it was.
        UsageError: If a run is no directory that could be written to.
    """
    policies = []
    for run in runs:
        if not run.is_dir():
            raise UsageError(f"{run} is no run directory of `safer-offline train`")
        require_writable(run)
        policies.append(load_policy(run))
    dataset = load_dataset(data or _dataset_of(runs[0]), max_memory="auto")
    for run, policy in zip(runs, policies, strict=True):
        learned_from = policy.info.dataset_sha256
        if learned_from and learned_from != dataset.metadata.content_sha256:
            warnings.warn(f"{run} learned from another dataset than this one", stacklevel=2)
    model = fit_dynamics(dataset, DynamicsConfig(), seed=seed)
    for run, policy in zip(runs, policies, strict=True):
        yield run, foresee_run(run, policy, dataset, epsilon=epsilon, model=model, seed=seed)


def _dataset_of(run: Path) -> Path:
    try:
        told = json.loads((run / "config.json").read_text(encoding="utf-8")).get("dataset")
    except (OSError, ValueError, AttributeError):
        told = None
    found = find_moved(str(told), run) if told else None
    if found is None:
        raise DataError(
            f"the dataset of the run, {told}, is not there" if told else "nothing says its dataset",
            path=run / "config.json",
            field="dataset",
            remedy="name it: --data car_circle.h5",
        )
    return found
