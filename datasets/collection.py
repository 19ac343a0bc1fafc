"""Collect a dataset: behaviour policies drive, on several processes, and a crash costs little.

The work is cut into shards of whole episodes. A shard is a function of the plan and its own
number alone, so it does not matter which process collects it, when, or for the how-manieth time:
after `kill -9`, the same command finds the finished shards, collects the missing ones and ends
with the same content as a run that nobody disturbed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata as installed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.behaviors import BehaviorFamily, behaviors_for
from safer_offline.datasets.dataset import OfflineDataset
from safer_offline.datasets.formats.minari import require_free_id, to_minari
from safer_offline.datasets.schema import BehaviorPolicy, BoxSpace, Metadata
from safer_offline.datasets.storage import load_dataset, save_dataset
from safer_offline.errors import DataError, UsageError
from safer_offline.progress import progress_bar
from safer_offline.simulation import SafetyEnvironment, available_cores, resolve_environment

SHARD_TRANSITIONS = 6_000
"""Transitions in a shard: a few seconds of work, which is what a crash can cost."""

COST_DEFINITION = "1 for every step that ends outside the task's safe region, else 0"


@dataclass(frozen=True, kw_only=True)
class CollectionPlan:
    """Everything that the content of a collected dataset depends on.

    Attributes:
        env_id: Environment.
        transitions: How many to collect at least; episodes are never cut short.
        seed: Seed of the whole collection.
        behaviors: Names and shares of the families that act.
        versions: Of the packages that decide what an episode looks like.
        shard_transitions: Transitions of a shard at least; the last shard may need fewer.
    """

    env_id: str
    transitions: int
    seed: int
    behaviors: tuple[tuple[str, float], ...]
    versions: tuple[tuple[str, str], ...]
    shard_transitions: int = SHARD_TRANSITIONS

    @classmethod
    def make(cls, env: str, *, transitions: int, seed: int) -> CollectionPlan:
        """The plan for an environment's id or short name, with its registered behaviours.

        Raises:
            UsageError: If the environment is unknown, nobody can drive there, or a number is off.
        """
        if transitions < 1:
            raise UsageError(f"--transitions must be at least 1, not {transitions}")
        if seed < 0:
            raise UsageError(f"--seed must not be negative, but is {seed}")
        env_id = resolve_environment(env)
        families = behaviors_for(env_id)
        return cls(
            env_id=env_id,
            transitions=transitions,
            seed=seed,
            behaviors=tuple((family.name, family.share) for family in families),
            versions=tuple(
                (package, installed.version(package))
                for package in ("safer-offline", "bullet-safety-gym", "pybullet", "numpy")
            ),
            shard_transitions=SHARD_TRANSITIONS,
        )

    @property
    def shards(self) -> tuple[int, ...]:
        """How many transitions each shard collects at least."""
        whole, rest = divmod(self.transitions, self.shard_transitions)
        return (self.shard_transitions,) * whole + ((rest,) if rest else ())

    def to_json(self) -> str:
        """The plan as text; equal texts mean equal content."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def collect(
    env: str,
    path: str | Path,
    *,
    transitions: int = 360_000,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> OfflineDataset:
    """Collect a dataset of benign rollouts and write it to an HDF5 file.

    Unfinished work waits in the folder `<path>.shards`; the same call continues it.

    Args:
        env: Environment id or short name.
        path: File to write.
        transitions: How many to collect at least; the last episode of a shard is finished.
        seed: Same seed, same content, whatever `workers` is.
        workers: Processes; None takes as many as there are cores.
        overwrite: Whether a file that is there already may be replaced.
        progress: Whether to show a progress bar (never where the output is no terminal).

    Returns:
        The dataset, as written.

    Raises:
        UsageError: If the environment has no behaviours, the file exists, or the folder of
            shards belongs to another plan.
        MissingSimulatorError: If the simulator is not installed.
    """
    path = Path(path)
    plan = CollectionPlan.make(env, transitions=transitions, seed=seed)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another name with -o, or say --overwrite")
    with _gathered(
        plan, path.with_name(path.name + ".shards"), workers=workers, progress=progress
    ) as dataset:
        metadata = save_dataset(path, dataset, overwrite=overwrite)
    return dataclasses.replace(dataset, metadata=metadata, path=path)


def collect_to_minari(
    env: str,
    dataset_id: str,
    *,
    transitions: int = 360_000,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> OfflineDataset:
    """Collect a dataset of benign rollouts and write it as a local Minari dataset.

    Unfinished work waits in the current folder, in one named after the dataset.

    Args:
        env: Environment id or short name.
        dataset_id: Such as `bullet/car-circle/mixed-v0`.
        transitions: See `collect`.
        seed: See `collect`.
        workers: See `collect`.
        progress: See `collect`.

    Raises:
        UsageError: See `collect`; also if the id breaks Minari's rules or is taken.
    """
    require_free_id(dataset_id)
    plan = CollectionPlan.make(env, transitions=transitions, seed=seed)
    folder = Path(dataset_id.replace("/", "_") + ".shards")
    with _gathered(plan, folder, workers=workers, progress=progress) as dataset:
        to_minari(dataset, dataset_id)
    return dataset


@contextlib.contextmanager
def _gathered(
    plan: CollectionPlan, folder: Path, *, workers: int | None, progress: bool
) -> Iterator[OfflineDataset]:
    """The whole dataset; its shards are removed once the caller has stored it."""
    _claim(folder, plan)
    _collect_shards(plan, folder, workers=workers, progress=progress)
    parts = [load_dataset(_shard_path(folder, number)) for number in range(len(plan.shards))]
    dataset = OfflineDataset.concatenate(parts)
    metadata = dataclasses.replace(dataset.metadata, parents=(), **_provenance())
    yield dataclasses.replace(dataset, metadata=metadata)
    shutil.rmtree(folder)


def collect_shard(plan: CollectionPlan, number: int) -> OfflineDataset:
    """Collect one shard; a function of its arguments.

    Args:
        plan: The plan.
        number: Which shard of it.
    """
    environment = SafetyEnvironment(plan.env_id)
    families = behaviors_for(plan.env_id)
    episodes: list[dict[str, NDArray[Any]]] = []
    collected = 0
    while collected < plan.shards[number]:
        source = np.random.SeedSequence([plan.seed, number, len(episodes)])
        episode = _rollout(environment, families, source, episode_id=len(episodes))
        episodes.append(episode)
        collected += len(episode["rewards"])
    arrays = {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}
    metadata = Metadata(
        env_id=plan.env_id,
        env_spec=environment.spec,
        max_episode_steps=environment.max_episode_steps,
        observation_space=BoxSpace.from_gymnasium(environment.observation_space),
        action_space=BoxSpace.from_gymnasium(environment.action_space),
        cost_definition=COST_DEFINITION,
        base_seed=plan.seed,
        behavior_policies=tuple(
            BehaviorPolicy(name=name, share=share) for name, share in plan.behaviors
        ),
        versions=dict(plan.versions),
        license="Apache-2.0",
    )
    environment.close()
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


def _rollout(
    environment: SafetyEnvironment,
    families: tuple[BehaviorFamily, ...],
    source: np.random.SeedSequence,
    *,
    episode_id: int,
) -> dict[str, NDArray[Any]]:
    """One episode of a family drawn by its share, as the arrays of the file format."""
    reset_source, driver_source = source.spawn(2)
    seed = int(reset_source.generate_state(1)[0])
    generator = np.random.default_rng(driver_source)
    policy_id = int(generator.choice(len(families), p=[family.share for family in families]))
    act = families[policy_id].draw(generator)
    observation = environment.reset(seed)
    observations, actions = [observation], []
    rewards, costs, terminals, timeouts = [], [], [], []
    while True:
        action = np.clip(np.array(act(observation), dtype=np.float32), -1.0, 1.0)
        observation, reward, cost, terminated, truncated = environment.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        costs.append(cost)
        terminals.append(terminated)
        timeouts.append(truncated)
        if terminated or truncated:
            break
    length = len(actions)
    seen = np.stack(observations)
    return {
        "observations": seen[:-1],
        "next_observations": seen[1:],
        "actions": np.stack(actions),
        "rewards": np.array(rewards, dtype=np.float32),
        "costs": np.array(costs, dtype=np.float32),
        "terminals": np.array(terminals, dtype=np.bool_),
        "timeouts": np.array(timeouts, dtype=np.bool_),
        "infos/episode_id": np.full(length, episode_id, dtype=np.int32),
        "infos/seed": np.full(length, seed, dtype=np.int64),
        "infos/policy_id": np.full(length, policy_id, dtype=np.int16),
    }


def _claim(folder: Path, plan: CollectionPlan) -> None:
    """Make the folder of shards, or check that the one that is there is for the same plan."""
    note = folder / "plan.json"
    if note.exists():
        if note.read_text() != plan.to_json():
            raise UsageError(
                f"{folder} holds the unfinished collection of another plan "
                f"({note.read_text()}); finish it with its own arguments, or delete the folder"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = note.with_suffix(f".tmp-{os.getpid()}")
        unfinished.write_text(plan.to_json())
        unfinished.replace(note)
    for stale in folder.glob("*.tmp-*"):
        stale.unlink(missing_ok=True)


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.h5"


def _is_whole(path: Path) -> bool:
    try:
        load_dataset(path)
    except DataError:
        path.unlink(missing_ok=True)
        return False
    return True


def _collect_shards(
    plan: CollectionPlan, folder: Path, *, workers: int | None, progress: bool
) -> None:
    """Collect all shards that are missing, and wait for them."""
    missing = [n for n in range(len(plan.shards)) if not _is_whole(_shard_path(folder, n))]
    done = plan.transitions - sum(plan.shards[number] for number in missing)
    if done and progress:
        print(f"{folder}: {done:,} transitions are there already", file=sys.stderr)  # noqa: T201
    if not missing:
        return
    workers = min(available_cores() if workers is None else max(workers, 1), len(missing))
    bar = progress_bar(
        f"collect {plan.env_id}", total=plan.transitions, completed=done, enabled=progress
    )
    with bar as display, _pool(workers) as pool:
        running = {
            pool.submit(_save_shard, plan, number, folder): plan.shards[number]
            for number in missing
        }
        try:
            for future in concurrent.futures.as_completed(running):
                future.result()
                display.advance(running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _save_shard(plan: CollectionPlan, number: int, folder: Path) -> None:
    save_dataset(_shard_path(folder, number), collect_shard(plan, number), overwrite=True)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    # Not fork: a forked child would inherit the parent's physics servers and threads.
    with concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_end_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        yield pool


def _end_with_parent(parent: int) -> None:
    """Let a worker die when its parent was killed; it would wait for work forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _provenance() -> dict[str, Any]:
    """When, how and from which source tree; none of it enters the content hash."""
    source = Path(__file__).resolve().parents[1]
    commit = ""
    if (source / ".git").exists():  # else we are installed, perhaps inside another repository
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(
                ["git", "-C", str(source), "rev-parse", "HEAD"],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout.strip()
    return {
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": commit,
    }
