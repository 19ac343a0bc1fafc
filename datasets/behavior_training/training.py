"""The training of a behaviour: Stable-Baselines3 learns, and we keep snapshots and a log."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.behavior_training.config import BehaviorTrainingConfig
from safer_offline.datasets.behavior_training.environment import PenalizedEnvironment, measured
from safer_offline.datasets.behaviors.learned.actor_files import (
    ActorFile,
    ActorInfo,
    ConditionedActor,
    Layer,
    Snapshot,
    save_actors,
)
from safer_offline.datasets.behaviors.learned.stable_baselines import stable_baselines
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.tasks import BULLET_IDS
from safer_offline.errors import UsageError
from safer_offline.files import make_folder, require_writable, write_atomically
from safer_offline.progress import ProgressBar, progress_bar

if TYPE_CHECKING:
    from stable_baselines3 import SAC


def train_behavior(
    source: EnvironmentSource,
    path: str | Path,
    *,
    config: BehaviorTrainingConfig | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> ActorFile:
    """Train actors for an environment and write them to one file, with a log beside it.

    Same seed, same machine, same file. While it trains, `<path>.partial` holds the snapshots so
    far: that is what an interruption leaves, for Stable-Baselines3 cannot go on exactly where it
    stopped, and a training that only seemed to resume would not be repeatable.

    Args:
        source: Where to train.
        path: Actor file to write; the log goes beside it, with the suffix `.csv`.
        config: Settings; None takes the defaults.
        seed: Of everything random; it also seeds the global generators, as SB3 does.
        overwrite: Whether a file that is there already may be replaced.
        progress: Whether to show a progress bar (never where the output is no terminal).

    Raises:
        UsageError: If Stable-Baselines3 is missing, the file exists, or a setting does not fit the
            environment.
        MissingSimulatorError: If it is a task of ours and its simulator is not installed.
    """
    path, config = Path(path), config or BehaviorTrainingConfig()
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another name with --out, or say --overwrite")
    require_writable(path)
    if seed < 0:
        raise UsageError(f"--seed must not be negative, but is {seed}")
    on_track = source.env_id in BULLET_IDS and "Circle" in source.env_id
    if config.approach_reward and not on_track:
        raise UsageError("approach_reward is for the Circle tasks, which observe their track")
    stable_baselines("training behaviours")
    training = {**dataclasses.asdict(config), "seed": seed}
    training |= {"env_kwargs": dict(source.kwargs), "cost_key": source.cost_key}
    environments = [
        PenalizedEnvironment(source.make(), config, seed=1000 * (seed + 1) + place)
        for place in range(config.environments)
    ]
    make_folder(path.parent)
    try:
        bar = progress_bar(f"train {source.env_id}", total=config.steps, enabled=progress)
        with bar as display:
            record = _Record(path, environments[0].describe(training), config, display)
            _learn(environments, config, seed=seed, record=record)
        actors = measured(
            record.actors,
            environments[0].task,
            episodes=config.evaluation_episodes,
            progress=progress,
        )
    finally:
        for environment in environments:
            environment.close()
    written = save_actors(path, actors)
    record.partial_path.unlink(missing_ok=True)
    return written


class _Record:
    """What a training leaves behind: snapshots, and a log of the episodes it drove."""

    def __init__(
        self, path: Path, info: ActorInfo, config: BehaviorTrainingConfig, display: ProgressBar
    ) -> None:
        self.partial_path = path.with_name(path.name + ".partial")
        self._log_path = path.with_suffix(".csv")
        self._info, self._config, self._display = info, config, display
        self._networks: list[tuple[Snapshot, Mapping[str, NDArray[Any]]]] = []
        self._due = list(info.snapshots)
        self._rows = ["steps,penalty,episodes,return,cost,length"]
        self._logged = 0
        self._recent: dict[float, collections.deque[list[float]]] = {
            penalty: collections.deque(maxlen=20) for penalty in config.penalties
        }
        self._episodes = dict.fromkeys(config.penalties, 0)

    @property
    def actors(self) -> list[ConditionedActor]:
        """Those of all snapshots so far."""
        info = dataclasses.replace(self._info, snapshots=tuple(s for s, _ in self._networks))
        return [actor_from_sac(info, snapshot, state) for snapshot, state in self._networks]

    def __call__(self, variables: dict[str, Any], _: dict[str, Any]) -> bool:
        """Called by Stable-Baselines3 after each step, with its local variables."""
        model: SAC = variables["self"]
        for info in variables["infos"]:
            if "score" in info:
                penalty, *totals = info["score"]
                self._recent[penalty].append(totals)
                self._episodes[penalty] += 1
        steps = model.num_timesteps
        if steps // self._config.log_every > self._logged or steps >= self._config.steps:
            self._logged = steps // self._config.log_every
            self._write_log(steps)
        while self._due and steps >= self._due[0].steps:
            state = {
                name: tensor.detach().numpy().copy()
                for name, tensor in model.policy.actor.state_dict().items()
            }
            self._networks.append((self._due.pop(0), state))
            save_actors(self.partial_path, self.actors)
        self._display.advance(self._config.environments)
        return True

    def _write_log(self, steps: int) -> None:
        shown = {}
        for penalty, episodes in self._recent.items():
            if episodes:
                mean = np.mean(episodes, axis=0)
                numbers = ",".join(f"{number:.6g}" for number in mean)
                self._rows.append(f"{steps},{penalty:g},{self._episodes[penalty]},{numbers}")
                shown[f"k={penalty:g}"] = f"{mean[0]:.0f}/{mean[1]:.0f}"
        write_atomically(self._log_path, ("\n".join(self._rows) + "\n").encode())
        self._display.advance(0, **shown)


def _learn(
    environments: Sequence[PenalizedEnvironment],
    config: BehaviorTrainingConfig,
    *,
    seed: int,
    record: _Record,
) -> None:
    """Let Stable-Baselines3's SAC learn, and `record` watch."""
    import torch  # noqa: PLC0415 - an optional package needs it, and both take seconds to load
    from stable_baselines3 import SAC  # noqa: PLC0415
    from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: PLC0415

    threads = torch.get_num_threads()
    # More threads do not help on small networks, and their number changes the last bits.
    torch.set_num_threads(1)
    try:
        model = SAC(
            "MlpPolicy",
            DummyVecEnv([_maker(environment) for environment in environments]),
            learning_rate=config.learning_rate,
            buffer_size=max(config.steps, config.environments),
            learning_starts=config.random_steps,
            batch_size=config.batch_size,
            tau=config.averaging_rate,
            gamma=config.discount,
            train_freq=1,
            gradient_steps=config.gradient_steps,
            policy_kwargs={"net_arch": list(config.hidden_sizes)},
            seed=seed,
            device="cpu",
        )
        model.learn(config.steps, callback=record)
    finally:
        torch.set_num_threads(threads)


def _maker(environment: PenalizedEnvironment) -> Callable[[], PenalizedEnvironment]:
    return lambda: environment


def actor_from_sac(
    info: ActorInfo, snapshot: Snapshot, state: Mapping[str, NDArray[Any]]
) -> ConditionedActor:
    """The actor in the weights of a Stable-Baselines3 SAC actor, by the names it gives them."""

    def layer(name: str) -> Layer:
        weight, bias = (np.asarray(state[f"{name}.{part}"]) for part in ("weight", "bias"))
        return weight.astype(np.float32), bias.astype(np.float32)

    return ConditionedActor(
        info=info,
        snapshot=snapshot,
        # Every other module of the trunk is an activation.
        hidden=tuple(layer(f"latent_pi.{2 * place}") for place in range(len(info.hidden_sizes))),
        mean=layer("mu"),
        log_std=layer("log_std"),
    )
