"""The way to the Hugging Face hub: who we are, and what its errors mean to a user."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safer_offline.datasets.publishing.folder import EXTRA, MissingPackageError
from safer_offline.errors import SaferOfflineError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOGIN = "set HF_TOKEN, or log in with `hf auth login`; the token needs the role 'write'"
AGAIN = "try again later; what has arrived already is not sent twice"


class HubError(SaferOfflineError):
    """The hub cannot be reached, or does not do what it was asked for."""

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(f"{problem}\n  Remedy: {remedy}")


def has_token() -> bool:
    """Whether the hub can be asked: there is a token, and the package that sends it."""
    try:
        import huggingface_hub  # noqa: PLC0415 - an optional package
    except ImportError:
        return False
    return huggingface_hub.get_token() is not None


def connect() -> HfApi:
    """The hub, after it accepted the token of the environment or the login.

    Raises:
        UsageError: If there is no token.
        HubError: If the hub cannot be reached or refuses the token.
        MissingPackageError: If huggingface_hub is not installed.
    """
    try:
        import huggingface_hub  # noqa: PLC0415 - an optional package
        from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError(
            f"uploads need the package huggingface_hub, which is missing\n  Remedy: {EXTRA}"
        ) from error
    if huggingface_hub.get_token() is None:
        raise UsageError(f"there is no Hugging Face token\n  Remedy: {LOGIN}")
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = huggingface_hub.HfApi(library_name="safer-offline")
    with explained("the token"):
        api.whoami()
    return api


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever the hub or the network does into a message that says what to do.

    Args:
        what: What the hub was asked about.

    Raises:
        HubError: Instead of any error of the hub, the network, or the transfer.
    """
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    # The HTTP library underneath has changed its name before; its errors share the first base.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except (transport, OSError, RuntimeError, ValueError) as error:
        # A transfer that fails in one of several threads arrives wrapped.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            said = (cause.server_message or str(cause)).strip().splitlines()[0]
            raise _explain_status(cause.response.status_code, said, what) from error
        if isinstance(cause, ValueError):  # what it raises for a card or a name it does not like
            raise HubError(
                f"the hub does not take {what} ({cause})", remedy="correct what it names"
            ) from error
        raise HubError(
            f"the hub cannot be reached ({cause})",
            remedy=f"check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and {AGAIN}",
        ) from error


def _explain_status(status: int, said: str, what: str) -> HubError:
    problem, remedy = {
        401: ("the hub does not accept the token", LOGIN),
        403: (f"the token may not do this ({said})", LOGIN + " and access to the namespace"),
        404: (f"{what} is not there ({said})", "check the spelling; " + LOGIN),
        409: (f"{what} changed meanwhile ({said})", "give the command again"),
        412: (f"{what} changed meanwhile ({said})", "give the command again"),
    }.get(status, (f"the hub answered {status} ({said})", AGAIN))
    return HubError(problem, remedy=remedy)
