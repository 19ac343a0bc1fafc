"""Shards on the machines of a Ray cluster.

The machines need this package and the simulator, in the same versions, but no common disk: a shard
comes back as the bytes of its file. A task that dies with its machine is given to another one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from safer_offline.datasets.collection.shards import CollectionPlan, save_shard, shard_path
from safer_offline.errors import SaferOfflineError, UsageError
from safer_offline.files import write_atomically

LOCAL = "local"


def collect_on_ray(
    plan: CollectionPlan, numbers: Sequence[int], folder: Path, *, address: str
) -> Generator[int, None, None]:
    """Collect shards on a cluster into a folder here; yields each one's number when it is there.

    Args:
        plan: The plan.
        numbers: Which shards of it.
        folder: Where to.
        address: Of the cluster, as Ray writes it; `local` starts one on this machine.

    Raises:
        UsageError: If Ray is not installed, there is no cluster, or a checkpoint of the recipe
            lies on this machine alone.
        SaferOfflineError: If a machine has other versions of what decides the content.
    """
    with _cluster(address) as ray:
        collect_one = ray.remote(max_retries=3)(shard_bytes)
        running = {collect_one.remote(plan, number).future(): number for number in numbers}
        for future in concurrent.futures.as_completed(running):
            number = running[future]
            try:
                content = future.result()
            except ray.exceptions.RayTaskError as error:
                cause = error.cause or error
                raise SaferOfflineError(f"shard {number} failed on the cluster: {cause}") from error
            write_atomically(shard_path(folder, number), content)
            yield number


def shard_bytes(plan: CollectionPlan, number: int) -> bytes:
    """Collect one shard; the bytes of its file.

    Raises:
        SaferOfflineError: If this machine would collect something else than the plan says.
    """
    here = CollectionPlan.make(plan.recipe)
    for told, found in ((plan.versions, here.versions), (plan.checkpoints, here.checkpoints)):
        if told != found:
            raise SaferOfflineError(
                f"a machine of the cluster has {found}, the plan needs {told}; install the same "
                "versions everywhere"
            )
    with tempfile.TemporaryDirectory() as folder:
        save_shard(plan, number, Path(folder))
        return shard_path(Path(folder), number).read_bytes()


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Any]:
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"collecting on a cluster needs Ray ({error}): pip install 'safer-offline[ray]'"
        ) from error
    try:
        ray.init(
            address=None if address == LOCAL else address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"there is no Ray cluster at {address} ({error}); start one with `ray start --head`, "
            "or say --ray local"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
