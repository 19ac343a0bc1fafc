"""Processes of our own that answer what they are asked, or say what failed."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from safer_offline.errors import SaferOfflineError
from safer_offline.interruption import children_leave_interrupts_to_us
from safer_offline.machine import require_main_module

# Not fork: a forked child would inherit this process's physics servers and threads.
SPAWN = multiprocessing.get_context("spawn")


class ChildProcess:
    """A process at the other end of a pipe.

    Args:
        body: What it runs, with its end of the pipe as the first argument: it answers messages
            until it gets None; see `failures_told`.
        *arguments: Further ones, which can be pickled.

    Attributes:
        pipe: This end of the pipe.
        process: The process.
    """

    def __init__(self, body: Callable[..., None], *arguments: object) -> None:
        require_main_module()
        self.pipe, remote = SPAWN.Pipe()
        self.process = SPAWN.Process(target=body, args=(remote, *arguments), daemon=True)
        with children_leave_interrupts_to_us():
            self.process.start()
        remote.close()

    def send(self, message: object) -> None:
        """Ask for something."""
        with contextlib.suppress(OSError):  # of a process that died; `receive` tells
            self.pipe.send(message)

    def receive(self) -> Any:  # noqa: ANN401 - whatever its body answers
        """The answer.

        Raises:
            SaferOfflineError: If the process died, or told of a failure.
        """
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(timeout=5)
            raise SaferOfflineError(
                f"a simulation process died (exit code {self.process.exitcode}); "
                "out of memory? Try fewer episodes at once or fewer workers. In a script of your "
                "own, call what simulates under `if __name__ == '__main__':`"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self, *, patience: float = 10.0) -> None:
        """End it.

        Args:
            patience: Seconds that it may take to close what it holds. In the midst of a long task
                it would not even hear of it.
        """
        self.send(None)
        self.process.join(timeout=patience)
        if self.process.is_alive():
            self.process.kill()
        self.pipe.close()


@contextlib.contextmanager
def failures_told(pipe: Connection, *, what: str) -> Iterator[None]:
    """What fails meanwhile is told at the other end of the pipe.

    Args:
        pipe: Of the process that runs this.
        what: What fails then, for the message.
    """
    try:
        yield
    except (EOFError, KeyboardInterrupt):
        pass  # the parent has gone
    except SaferOfflineError as error:
        pipe.send(error)
    except Exception:
        # As text: not every exception survives the pipe, and none of them with its traceback.
        pipe.send(SaferOfflineError(f"{what} failed:\n{traceback.format_exc()}"))
