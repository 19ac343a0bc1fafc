"""What an object remembers in its attributes, as tensors and plain types, and back again."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import UsageError

_STATEFUL = (nn.Module, torch.optim.Optimizer, TransitionSampler)
_PLAIN = (bool, int, float, str, type(None))
_MUTABLE = (dict, list, set, deque, bytearray, np.ndarray, np.random.Generator)


def save_attributes(thing: object, *, leave: Collection[str] = ()) -> dict[str, Any]:
    """The state of networks, optimisers, samplers, generators, tensors and numbers in attributes.

    Dicts, lists and tuples of these count, too. What cannot change is passed over.

    Args:
        thing: Whose attributes.
        leave: Attributes to leave out.

    Raises:
        UsageError: If an attribute can change and cannot be saved.
    """
    saved: dict[str, Any] = {}
    for name, value in vars(thing).items():
        if name in leave:
            continue
        if _can_be_saved(value):
            saved[name] = _save(value)
        elif isinstance(value, _MUTABLE):
            raise UsageError(
                f"{type(thing).__name__}.{name} is a {type(value).__name__} that cannot be saved "
                "in a checkpoint: hold what changes in tensors, numbers, networks, optimisers, "
                "samplers or a torch.Generator (or dicts and lists of them), what does not in a "
                "tuple"
            )
    return saved


def restore_attributes(thing: object, saved: dict[str, Any]) -> None:
    """Give an object, built anew, the state that `save_attributes` found.

    Tensors are filled in place: what else refers to them, such as an optimiser, still does.

    Raises:
        UsageError: If something has a state that the new object does not have.
    """
    for name, value in saved.items():
        setattr(thing, name, _restore(getattr(thing, name, None), value, place=name))


def _can_be_saved(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) for key in value) and all(
            map(_can_be_saved, value.values())
        )
    if isinstance(value, list | tuple):
        return all(map(_can_be_saved, value))
    return isinstance(value, (*_STATEFUL, *_PLAIN, Tensor, torch.Generator))


def _save(value: Any) -> Any:  # noqa: ANN401 - whatever can be saved
    if isinstance(value, _STATEFUL):
        return {"state": value.state_dict()}
    if isinstance(value, torch.Generator):
        return {"state": value.get_state()}
    if isinstance(value, dict):
        return {"dict": {key: _save(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_save(item) for item in value]}
    return value.detach().clone() if isinstance(value, Tensor) else value


def _restore(current: Any, saved: Any, *, place: str) -> Any:  # noqa: ANN401
    if isinstance(saved, Tensor):
        if not isinstance(current, Tensor) or current.shape != saved.shape:
            return saved
        with torch.no_grad():
            return current.copy_(saved)
    if not isinstance(saved, dict):
        return saved
    ((kind, content),) = saved.items()
    if kind == "dict":
        old = current if isinstance(current, dict) else {}
        return {
            key: _restore(old.get(key), item, place=f"{place}[{key!r}]")
            for key, item in content.items()
        }
    if kind in ("list", "tuple"):
        known = current if isinstance(current, list | tuple) else ()
        items = [
            _restore(known[at] if at < len(known) else None, item, place=f"{place}[{at}]")
            for at, item in enumerate(content)
        ]
        return items if kind == "list" else tuple(items)
    if current is None:
        raise UsageError(
            f"the checkpoint holds the state of '{place}', which a new learner does not have: "
            "make it in `build`"
        )
    if isinstance(current, torch.Generator):
        current.set_state(content)
    else:
        current.load_state_dict(content)
    return current
