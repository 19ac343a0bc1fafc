"""What an object remembers in its attributes: as tensors and plain types, and on which device."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
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


def restore_attributes(
    thing: object, saved: dict[str, Any], *, device: torch.device | str = "cpu"
) -> None:
    """Give an object, built anew, the state that `save_attributes` found.

    Tensors are filled in place: what else refers to them, such as an optimiser, still does.

    Args:
        thing: Whose attributes.
        saved: Their state, from whatever device.
        device: Where tensors go that the new object does not have.

    Raises:
        UsageError: If something has a state that the new object does not have.
    """
    for name, value in saved.items():
        restored = _restore(getattr(thing, name, None), value, place=name, device=device)
        setattr(thing, name, restored)


def move_attributes(thing: object, device: torch.device) -> None:
    """Have whatever `save_attributes` finds on a device; samplers give their batches there.

    Parameters stay the objects they are, so that optimisers go on moving them, and so do dicts and
    lists; other tensors are replaced. To the CPU nothing is moved: there it was made.

    Raises:
        UsageError: If an optimiser moves what was not found.
    """
    if device.type == "cpu":
        return
    for name, value in list(vars(thing).items()):
        if _can_be_saved(value):
            setattr(thing, name, _move(value, device))
    for part in _parts(list(vars(thing).values())):
        if isinstance(part, torch.optim.Optimizer):
            _require_moved(part, device, owner=type(thing).__name__)


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


def _move(value: Any, device: torch.device) -> Any:  # noqa: ANN401
    if isinstance(value, nn.Parameter):
        # A module moves its parameters in place, which a tensor alone does not offer.
        return nn.ParameterList([value]).to(device)[0]
    if isinstance(value, nn.Module | Tensor):
        return value.to(device)
    if isinstance(value, TransitionSampler):
        value.to(device)
    if isinstance(value, dict | list):
        for place, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[place] = _move(item, device)
    if isinstance(value, tuple):
        items = [_move(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def _parts(value: object) -> Iterator[object]:
    """What is in dicts, lists and tuples, and whatever else there is."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts(item)
    else:
        yield value


def _require_moved(optimizer: torch.optim.Optimizer, device: torch.device, *, owner: str) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(parameter.device.type != device.type for parameter in parameters):
        raise UsageError(
            f"an optimiser of {owner} moves a tensor that stayed on the CPU: hold what it moves in "
            "a network or a torch.nn.Parameter, and this in an attribute; or train without --device"
        )


def _restore(
    current: Any,  # noqa: ANN401
    saved: Any,  # noqa: ANN401
    *,
    place: str,
    device: torch.device | str,
) -> Any:  # noqa: ANN401
    if isinstance(saved, Tensor):
        if not isinstance(current, Tensor) or current.shape != saved.shape:
            return saved.to(device)
        with torch.no_grad():
            return current.copy_(saved)
    if not isinstance(saved, dict):
        return saved
    ((kind, content),) = saved.items()
    if kind == "dict":
        old = current if isinstance(current, dict) else {}
        return {
            key: _restore(old.get(key), item, place=f"{place}[{key!r}]", device=device)
            for key, item in content.items()
        }
    if kind in ("list", "tuple"):
        known = current if isinstance(current, list | tuple) else ()
        items = [
            _restore(
                known[at] if at < len(known) else None, item, place=f"{place}[{at}]", device=device
            )
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
