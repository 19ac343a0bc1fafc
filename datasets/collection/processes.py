"""Shards on several processes of this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from safer_offline.datasets.collection.shards import CollectionPlan, save_shard
from safer_offline.errors import SaferOfflineError
from safer_offline.interruption import children_leave_interrupts_to_us
from safer_offline.machine import available_cores, require_main_module


def collect_locally(
    plan: CollectionPlan, numbers: Sequence[int], folder: Path, *, workers: int | None
) -> Generator[int, None, None]:
    """Collect shards into a folder; yields each one's number when it is there.

    Args:
        plan: The plan.
        numbers: Which shards of it.
        folder: Where to.
        workers: Processes; None takes as many as there are cores.
    """
    workers = min(available_cores() if workers is None else workers, len(numbers))
    require_main_module()
    others = set(multiprocessing.active_children())
    with _pool(workers) as pool:
        try:
            with children_leave_interrupts_to_us():
                running = {
                    pool.submit(save_shard, plan, number, folder): number for number in numbers
                }
            for future in concurrent.futures.as_completed(running):
                future.result()
                yield running[future]
        except BrokenProcessPool as error:
            raise SaferOfflineError(
                "a collecting process died: out of memory, or killed; finished shards are kept. In "
                "a script of your own, call what collects under `if __name__ == '__main__':`"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A shard takes seconds; nobody who asked to stop waits for it.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


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
