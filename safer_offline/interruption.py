"""Ctrl-C and SIGTERM: stop soon, keep what is done, and say how to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

PATIENCE = 1.0
"""Seconds that work has to end where its state is whole."""


class Interrupted(KeyboardInterrupt):
    """Somebody asked to stop, and what was done is kept.

    Args:
        kept: What is kept and where, in a sentence; empty if nothing.
        number: The signal.
        resume: Options that make the same command go on.
    """

    def __init__(
        self,
        kept: str = "",
        *,
        number: int = signal.SIGINT,
        resume: tuple[str, ...] = (),
    ) -> None:
        super().__init__(kept)
        self.kept = kept
        self.number = number
        self.resume = resume

    @property
    def exit_code(self) -> int:
        """As a shell tells it of a process that the signal ended."""
        return 128 + self.number


def signal_of(error: BaseException) -> int:
    """The signal behind a `KeyboardInterrupt`."""
    return error.number if isinstance(error, Interrupted) else int(signal.SIGINT)


@contextlib.contextmanager
def keeping(kept: str, *, resume: tuple[str, ...] = ()) -> Iterator[None]:
    """Say what is kept if somebody stops what happens here.

    Args:
        kept: See `Interrupted`, like `resume`.
        resume: See there.

    Raises:
        Interrupted: In place of every `KeyboardInterrupt` that does not say it by itself.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted) and error.kept:
            raise
        raise Interrupted(kept, number=signal_of(error), resume=resume) from None


def interrupt_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, with its own exit code."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number=number)


class StopRequest:
    """Whether somebody asked to stop; made by `stop_requests`."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def accept(self) -> int:
        """Somebody ends the work now, in peace. Returns the signal."""
        _alarm(0)
        return self.number or int(signal.SIGINT)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Signals only ask to stop, so that work can end where its state is whole.

    Who does not look at the request for `PATIENCE` seconds, or is asked twice, gets `Interrupted`.
    In a thread that is not the main one signals never arrive, so nothing happens there.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request:
            raise Interrupted(number=number)
        request.number = number
        _alarm(PATIENCE)

    def lose_patience(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number=request.number or int(signal.SIGINT))

    wanted = {signal.SIGINT: ask, signal.SIGTERM: ask}
    if hasattr(signal, "SIGALRM"):
        wanted[signal.SIGALRM] = lose_patience
    # What is ignored stays so: a job in the background, or below nohup.
    before = {
        number: signal.signal(number, handler)
        for number, handler in wanted.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield request
    finally:
        _alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def children_leave_interrupts_to_us() -> Iterator[None]:
    """Processes that are started meanwhile ignore Ctrl-C, which a terminal sends to all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
