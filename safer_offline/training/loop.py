"""The training loop: updates, logs, checkpoints, and resuming as if nothing had happened.

It consumes a dataset and never touches a simulator. Time is kept out of everything it writes but
TensorBoard's events, so two runs of one seed write the same files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from safer_offline.datasets.dataset.access import BLOCK_ROWS, TransitionSource
from safer_offline.datasets.loading import Source, load_dataset
from safer_offline.errors import CheckpointError, DataError, SaferOfflineError, UsageError
from safer_offline.files import require_writable, write_atomically, write_json, writing
from safer_offline.interruption import Interrupted, signal_of, stop_requests
from safer_offline.learners.base import Beginning, Learner
from safer_offline.learners.registry import ALGORITHMS, algorithm_of
from safer_offline.locking import sole_writer
from safer_offline.policies.trained import POLICY_FILE, TrainedPolicy
from safer_offline.progress import progress_bar
from safer_offline.training.checkpoints import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from safer_offline.training.devices import device_named, placement

LOG_EVERY = 100
CHECKPOINT_EVERY = 500

FEW_SAFE_EPISODES = 20


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        policy: What was learned.
        directory: Where its files are: config.json, metrics.csv, events for TensorBoard,
            checkpoint.pt and policy.safetensors.
    """

    policy: TrainedPolicy
    directory: Path

    @property
    def metrics(self) -> pd.DataFrame:
        """metrics.csv: mean losses over every `LOG_EVERY` updates; the E-steps' once."""
        return pd.read_csv(self.directory / "metrics.csv")


def train(
    config: Any,  # noqa: ANN401 - the dataclass of whatever algorithm
    dataset: Source,
    *,
    out: str | Path,
    algorithm: str | type[Learner] | None = None,
    steps: int = 12_000,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    device: str | torch.device = "cpu",
    like: str | Path | None = None,
) -> Run:
    """Train a policy on a dataset.

    Args:
        config: The algorithm's settings, such as `SAFERConfig(cost_limit=10)`.
        dataset: What to learn from, whatever `load_dataset` takes: a file, an id of Minari, arrays,
            a dataset. A file that takes more than half of the free memory is read from a cache on
            disk, to the same policy.
        out: Run directory to write.
        algorithm: Who learns: a name in `ALGORITHMS`, `module:Class`, or a class of your own. None
            takes the registered one that has settings of this type.
        steps: Updates in all.
        seed: Same seed, same machine, same number of threads: same result, bit for bit (on the CPU;
            elsewhere the same up to rounding).
        resume: Go on from the checkpoint in `out`, if there is one; the result equals that of a
            run that was never interrupted.
        progress: Whether to show a progress bar (never where the output is no terminal).
        device: Where the networks learn: `cpu`, `cuda` or `cuda:1`. The policy is on the CPU. A
            training may be resumed on another device, where it goes on with other rounding.
        like: Run directory of a training with other settings: the updates that both have in common,
            as far as the algorithm knows of any, are taken from there. The result is the same.

    Returns:
        The policy, and where everything was written.

    Raises:
        UsageError: If `out` holds a run and `resume` is false, a setting is impossible, an argument
            is of no use here, or there is no such device.
        CheckpointError: If the checkpoint is damaged or belongs to another training.
        DataError: If no policy could keep the limit, going by this dataset.
    """
    _require_types(out, steps=steps, seed=seed)
    directory = Path(out)
    require_writable(directory)
    kind = _learner_class(algorithm, config)
    place = device_named(device)
    placed = placement(kind, place)
    data = load_dataset(dataset, max_memory="auto", progress=progress)
    if (cost_limit := getattr(config, "cost_limit", None)) is not None:
        _require_feasible(data, cost_limit)
    identity = {
        "algorithm": kind.name,
        "config": _as_json(config),
        "steps": steps,
        "seed": seed,
        "dataset_sha256": data.fingerprint(),
    }
    require_new(directory, resume=resume)
    with sole_writer(directory), writing(directory, what="the run"):
        build: Any = kind
        learner: Learner = build(config, data, steps=steps, seed=seed, **placed)
        log = _Log()
        checkpoint = directory / CHECKPOINT_FILE
        if resume and checkpoint.exists():
            saved = load_checkpoint(checkpoint)
            _require_same_training(saved["identity"], identity, path=checkpoint)
            _restore(learner, saved["learner"], into=learner.load_state_dict, path=checkpoint)
            log = _Log(rows=saved["metrics"], window=saved.get("window", {}))
        elif like is not None:
            log = _Log(rows=_begin_like(Path(like) / CHECKPOINT_FILE, learner, identity))
        source = {
            "dataset": str(data.path or ""),
            "env_id": data.metadata.env_id,
            "device": str(place),
        }
        write_json(directory / "config.json", identity | source)
        _run(learner, log, identity=identity, directory=directory, progress=progress)
        policy = learner.policy()
        policy.save(directory / POLICY_FILE)
    return Run(policy, directory)


def require_new(directory: Path, *, resume: bool) -> None:
    """Refuse a directory that holds a run, unless that is to go on.

    Raises:
        UsageError: If it does.
    """
    written = [directory / name for name in (CHECKPOINT_FILE, POLICY_FILE, "metrics.csv")]
    if not resume and any(path.exists() for path in written):
        raise UsageError(
            f"{directory} holds a run already; continue it with --resume, or give another --out"
        )


def _restore(
    learner: Learner,
    state: dict[str, Any],
    *,
    into: Callable[[dict[str, Any]], None],
    path: Path,
) -> None:
    try:
        into(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UsageError) as error:
        raise CheckpointError(
            f"the checkpoint holds another state than {learner.name} of this version has "
            f"({type(error).__name__}: {error})",
            path=path,
            remedy="go on with the version that wrote it, or train again with another --out",
        ) from error


def _begin_like(
    checkpoint: Path, learner: Learner, identity: dict[str, Any]
) -> list[dict[str, float]]:
    """Take from another training what both have in common; lines of metrics.csv about that."""
    if not (isinstance(learner, Beginning) and checkpoint.exists()):
        return []
    saved = load_checkpoint(checkpoint)
    other = saved["identity"]
    if any(identity[name] != other[name] for name in identity if name != "config"):
        return []
    settings, others = identity["config"], other["config"]
    differing = {
        name for name in settings.keys() | others if settings.get(name) != others.get(name)
    }
    shared = learner.shared_steps(differing)
    # Losses of half a line are not kept.
    if shared % LOG_EVERY or shared > saved["learner"]["step"]:
        return []
    if shared:
        _restore(learner, saved["learner"], into=learner.begin_with, path=checkpoint)
    return [line for line in saved["metrics"] if line["step"] <= shared]


def _require_types(out: object, **numbers: object) -> None:
    if not isinstance(out, str | Path):
        raise UsageError(f"out must be the path of a run directory, not a {type(out).__name__}")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{name} must be a whole number, not negative, but is {value!r}")


@dataclass
class _Log:
    """What metrics.csv says so far: its lines, and the losses that will make up the next one."""

    rows: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, list[Tensor | float]] = field(default_factory=dict)

    def note(self, losses: Mapping[str, Tensor | float]) -> None:
        for name, loss in losses.items():
            self.window.setdefault(name, []).append(loss)

    def to_json(self) -> dict[str, Any]:
        window = {name: [float(loss) for loss in losses] for name, losses in self.window.items()}
        return {"metrics": self.rows, "window": window}

    def finish_line(self, step: int) -> dict[str, float]:
        """Means of the window, which begins anew."""
        means = {name: _mean(losses) for name, losses in self.window.items()}
        _require_finite(means, step=step)
        self.rows.append({"step": step, **means})
        self.window = {}
        return means


def _run(
    learner: Learner,
    log: _Log,
    *,
    identity: dict[str, Any],
    directory: Path,
    progress: bool,
) -> None:
    """Update until all steps are done, or somebody asks to stop."""
    bar = progress_bar("train", total=learner.steps, completed=learner.step, enabled=progress)
    saved = shown = learner.step
    events = SummaryWriter(str(directory), purge_step=learner.step + 1)
    with bar as display, events, stop_requests() as stop:
        try:
            while learner.step < learner.steps:
                log.note(learner.update())
                finished = learner.step == learner.steps
                if learner.step % LOG_EVERY == 0 or finished:
                    means = log.finish_line(learner.step)
                    for name, value in means.items():
                        events.add_scalar(name, value, learner.step)
                    display.advance(learner.step - shown, **dict(list(means.items())[:4]))
                    shown = learner.step
                if learner.step % CHECKPOINT_EVERY == 0 or finished or stop:
                    number = stop.accept() if stop else None
                    _save(learner, log, identity=identity, directory=directory)
                    saved = learner.step
                    if number is not None and not finished:
                        raise Interrupted(number=number)
        except KeyboardInterrupt as error:
            kept = f"{saved:,} of {learner.steps:,} updates are kept in {directory}"
            raise Interrupted(
                kept if saved else "", number=signal_of(error), resume=("--resume",)
            ) from None


def _save(learner: Learner, log: _Log, *, identity: dict[str, Any], directory: Path) -> None:
    if log.rows:
        metrics = pd.DataFrame(log.rows).to_csv(index=False)
        write_atomically(directory / "metrics.csv", metrics.encode())
    state = {"identity": identity, "learner": learner.state_dict(), **log.to_json()}
    save_checkpoint(directory / CHECKPOINT_FILE, state)


def _mean(losses: list[Tensor | float]) -> float:
    # Those from before a resumed training are numbers, and go where the others are.
    device = next((loss.device for loss in losses if isinstance(loss, Tensor)), None)
    return float(
        torch.stack(
            [torch.as_tensor(loss, dtype=torch.float64, device=device) for loss in losses]
        ).mean()
    )


def _learner_class(algorithm: str | type[Learner] | None, config: object) -> type[Learner]:
    """The class of the learner, after a check that these are settings for it."""
    if algorithm is None:
        return algorithm_of(config)
    if isinstance(algorithm, str):
        kind = ALGORITHMS.get(algorithm)
    else:
        kind = ALGORITHMS.check(algorithm, getattr(algorithm, "__name__", repr(algorithm)))
    if not isinstance(config, kind.Config):
        given = "the class itself" if isinstance(config, type) else f"a {type(config).__name__}"
        raise UsageError(
            f"config must be a {kind.Config.__name__}, the settings of {kind.name}, not {given}"
        )
    return kind


def _as_json(config: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """A configuration as config.json and the checkpoint have it."""
    values: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        try:
            values[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            raise UsageError(
                f"{type(config).__name__}.{name} is {value!r}, but settings must be values that "
                "JSON knows: config.json and the checkpoint hold them"
            ) from None
    return values


def _require_finite(means: dict[str, float], *, step: int) -> None:
    for name, value in means.items():
        if not math.isfinite(value):
            raise SaferOfflineError(
                f"the loss '{name}' became {value} before step {step}; lower the learning rate, or "
                "check the scale of the dataset with `safer-offline data info`"
            )


def _require_feasible(dataset: TransitionSource, cost_limit: float) -> None:
    """Warn if no episode keeps the limit; refuse if not even a piece of one does.

    Safe pieces of unsafe episodes can still add up to a safe policy. But where every single step
    costs more than the limit allows for a step, there is nothing to learn safety from.
    """
    episodes = dataset.episodes
    cheapest = float(episodes["cost"].min())
    remedy = (
        f"the smallest limit that an episode keeps is {cheapest:g}: use --cost-limit {cheapest:g}"
    )
    safe = int((episodes["cost"] <= cost_limit).sum())
    least, row = (math.nan, 0) if safe else _least_cost(dataset)
    if least * float(episodes["length"].min()) > cost_limit:
        raise DataError(
            f"every step costs at least {least:g}, so no episode can keep a limit of "
            f"{cost_limit:g}",
            path=dataset.path,
            field="costs",
            index=row,
            remedy=remedy,
        )
    where = dataset.path or "the dataset"
    if safe == 0:
        warnings.warn(
            f"{where}: no episode keeps the cost limit of {cost_limit:g}, so the policy will not "
            f"either; {remedy}",
            stacklevel=3,
        )
    elif safe < FEW_SAFE_EPISODES:
        warnings.warn(
            f"{where}: only {safe} of {len(episodes)} episodes keep the cost limit of "
            f"{cost_limit:g}; expect a policy that is not reliable",
            stacklevel=3,
        )


def _least_cost(dataset: TransitionSource) -> tuple[float, int]:
    """The least cost of a step, and the first row that has it."""
    minima = [
        (block["costs"].min(), block["costs"].argmin()) for block in dataset.stream(["costs"])
    ]
    least = [float(cost) for cost, _ in minima]
    block = least.index(min(least))
    return least[block], block * BLOCK_ROWS + int(minima[block][1])


def _require_same_training(saved: dict[str, Any], wanted: dict[str, Any], *, path: Path) -> None:
    """A resumed training must be the one that was begun."""
    if saved["steps"] != wanted["steps"] and {**saved, "steps": wanted["steps"]} == wanted:
        raise CheckpointError(
            f"the training was laid out for {saved['steps']:,} updates, not for "
            f"{wanted['steps']:,}",
            path=path,
            field="steps",
            remedy="rates and stages follow from the number of updates, so none can be added: "
            f"train anew with --steps {wanted['steps']} and another --out",
        )
    # The algorithm comes first, then whatever differs; settings may be named like the rest.
    pairs = [(name, saved.get(name), wanted[name]) for name in wanted if name != "config"]
    pairs += [(name, saved["config"].get(name), value) for name, value in wanted["config"].items()]
    for name, before, now in pairs:
        if before != now:
            raise CheckpointError(
                f"the checkpoint was made with {before}, not with {now}",
                path=path,
                field=name,
                remedy="resume with the settings and data of that run (see config.json), or give "
                "another --out",
            )
