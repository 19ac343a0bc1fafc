"""The names of algorithms.

Those of the package stand in `ALGORITHMS`; other packages offer theirs in the entry-point group
`safer_offline.algorithms`, and one of your own is named `module:Class`.
"""

from __future__ import annotations

import dataclasses
import inspect

from safer_offline.errors import UsageError
from safer_offline.learners.base import Learner
from safer_offline.registry import Registry

_WANTED = ("update", "policy", "state_dict", "load_state_dict")


def _check(thing: object, name: str) -> type[Learner]:
    if not isinstance(thing, type):
        raise UsageError(f"{name} is no algorithm: name a class, such as a SimpleLearner")
    if not isinstance(getattr(thing, "name", None), str):
        raise UsageError(f'the algorithm {name} lacks a `name: ClassVar[str] = "..."`')
    config = getattr(thing, "Config", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise UsageError(
            f"the algorithm {name} lacks `Config`, the dataclass of its settings: write "
            f"`Config = {thing.__name__}Config` into the class"
        )
    missing = [part for part in _WANTED if not callable(getattr(thing, part, None))]
    missing += sorted(getattr(thing, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"the algorithm {name} lacks {', '.join(dict.fromkeys(missing))}")
    return thing


ALGORITHMS: Registry[type[Learner]] = Registry(
    "algorithm",
    group="safer_offline.algorithms",
    builtin={
        "safer": "safer_offline.learners.safer.learner:SAFER",
        "safer-conditioned": "safer_offline.learners.safer.conditioned:SAFERConditioned",
        "safer-paper": "safer_offline.learners.safer_paper.learner:SAFERPaper",
        "bc": "safer_offline.learners.cloning:BC",
        "bc-safe": "safer_offline.learners.cloning:BCSafe",
        "bc-risky": "safer_offline.learners.cloning:BCRisky",
        "bc-boundary": "safer_offline.learners.cloning:BCBoundary",
        "bc-frontier": "safer_offline.learners.cloning:BCFrontier",
        "bc-multi-task": "safer_offline.learners.cloning:BCMultiTask",
        "cpq": "safer_offline.learners.cpq:CPQ",
        "bcq-lag": "safer_offline.learners.bcq_lag:BCQLag",
        "bear-lag": "safer_offline.learners.bear_lag:BEARLag",
        "coptidice": "safer_offline.learners.coptidice:COptiDICE",
        "fisor": "safer_offline.learners.fisor:FISOR",
        "caps": "safer_offline.learners.caps:CAPS",
        "cdt": "safer_offline.learners.cdt:CDT",
    },
    check=_check,
)


def algorithm_of(config: object) -> type[Learner]:
    """The algorithm that a configuration belongs to.

    Raises:
        UsageError: If it belongs to none that has a name.
    """
    if not dataclasses.is_dataclass(config) or inspect.isclass(config):
        kind = f"the class {config.__name__}" if inspect.isclass(config) else type(config).__name__
        raise UsageError(
            f"config must be the settings of an algorithm, such as SAFERConfig(), not {kind}"
        )
    found = ALGORITHMS.search(lambda learner: learner.Config is type(config))
    if found is None:
        raise UsageError(
            f"no registered algorithm has settings of type {type(config).__name__}; say which is "
            "meant: train(..., algorithm=MyLearner), or ALGORITHMS.register(name, MyLearner)"
        )
    return found
