"""What critics come from, and which attacks they lead.

    own        the policy's own; a defender may have fitted them badly, and so misled the attack
    data       fitted to a dataset that the evaluator gives
    rollouts   fitted to episodes that the evaluator makes in the simulator

An attack that asks critics is met once for each of these, `mc@data` being `mc` led by critics that
were fitted to data.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safer_offline.attacks import NO_CRITIC, Attack, preset_of, relabelled
from safer_offline.context import EnvironmentContext, same_name
from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.errors import DataError, UsageError
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.importing import nearest

OWN, DATA, ROLLOUTS = "own", "data", "rollouts"
SOURCES = (OWN, DATA, ROLLOUTS)

METHOD = 1
"""To be counted up with every change of the fitting: what was kept before is then fitted anew."""


@dataclass(frozen=True, kw_only=True)
class CriticSource:
    """What critics are to be fitted to, and how.

    Attributes:
        name: `data` or `rollouts`.
        settings: How.
        data: The dataset, if that is it.
    """

    name: str
    settings: CriticSettings
    data: TransitionSource | None = None

    def to_json(self) -> dict[str, Any]:
        """All that the critics of a policy depend on, apart from the policy and its environment."""
        data = {} if self.data is None else {"data_sha256": self.data.fingerprint()}
        return {**data, **dataclasses.asdict(self.settings), "method": METHOD}


def choose_sources(
    asked: str | Sequence[str] | None,
    *,
    own: Sequence[str],
    data: TransitionSource | None,
    settings: CriticSettings,
    attacks: str | Sequence[str | Attack],
    remembers: bool,
) -> tuple[bool, tuple[CriticSource, ...]]:
    """Whether the policy's own critics are asked, and which others are.

    Args:
        asked: Names, or one text of them with commas. None takes the policy's own, and those of
            data if there are any; where own ones are missing, strong attacks take rollouts instead.
        own: Which critics the policy has.
        data: A dataset to fit to.
        settings: How to fit.
        attacks: As the user asked for them.
        remembers: Whether the policy remembers its episode. Then nothing can be fitted to it: what
            is to come depends on more than observation and action.

    Raises:
        UsageError: If a name is unknown, or a dataset is missing or asked by nobody.
    """
    if asked is None:
        names = [OWN] if own else []
        if data is not None:
            names.append(DATA)
        elif len(own) < len(SOURCES) - 1 and preset_of(attacks) == "strong" and not remembers:
            names.append(ROLLOUTS)
    else:
        texts = asked.split(",") if isinstance(asked, str) else asked
        names = list(dict.fromkeys(text.strip().lower() for text in texts if text.strip()))
    for name in names:
        if name not in SOURCES:
            raise UsageError(
                f"there are no critics of '{name}'{nearest(name, SOURCES)} Known: "
                f"{', '.join(SOURCES)}"
            )
    if not names and asked is not None:
        raise UsageError(f"critics: say whose, of {', '.join(SOURCES)}")
    if DATA in names and data is None:
        raise UsageError("critics of data need a dataset to be fitted to: --data FILE (data=)")
    if data is not None and DATA not in names:
        raise UsageError(
            f"a dataset is given, but critics of {', '.join(names)} do not ask it: leave it out, "
            "or say --critics data, too"
        )
    fitted = [name for name in names if name != OWN]
    if fitted and remembers:
        warnings.warn(
            f"left out: critics of {', '.join(fitted)}, for the policy remembers its episode, and "
            "an observation and an action do not tell what follows",
            stacklevel=4,
        )
        fitted = []
    return OWN in names, tuple(
        CriticSource(name=name, settings=settings, data=data if name == DATA else None)
        for name in fitted
    )


def why_no_critic(*, remembers: bool) -> str:
    """What to say where an attack has no critic to ask, for policies that remember, and others."""
    if remembers:
        return f"{NO_CRITIC}, and as it remembers its episode, none can be fitted"
    return f"{NO_CRITIC} (--critics rollouts fits some)"


def led_by(
    attacks: Sequence[Attack], *, own: Sequence[str], sources: Sequence[CriticSource]
) -> tuple[tuple[Attack, ...], dict[str, str]]:
    """Attacks that ask critics once for each of these, and the others as they are.

    Args:
        attacks: As they were asked for.
        own: Which critics of the policy's own may be asked.
        sources: Which others.

    Returns:
        The attacks, and the names of their sources by the names of those that others lead than the
        policy's own critics.

    Raises:
        UsageError: If two of them would have the same name.
    """
    resolved: list[Attack] = []
    leaders: dict[str, str] = {}
    for attack in attacks:
        # What is searched for in whole episodes asks whom it will there.
        if not attack.critics or attack.needs_rehearsal or set(attack.critics) <= set(own):
            resolved.append(attack)
        if attack.critics and not attack.needs_rehearsal:
            for source in sources:
                name = f"{attack.name}@{source.name}"
                resolved.append(relabelled(attack, name))
                leaders[name] = source.name
    names = [attack.name for attack in resolved]
    for name in leaders:
        if names.count(name) > 1:
            raise UsageError(
                f"two attacks would be called '{name}': give one of them another label"
            )
    return tuple(resolved), leaders


def require_fit(
    sources: Sequence[CriticSource], context: EnvironmentContext, *, sizes: tuple[int, int]
) -> None:
    """Check that data are of the task that is evaluated; another name of it is a warning.

    Args:
        sources: What critics are fitted to.
        context: The environment that is evaluated.
        sizes: Of its observations and actions.

    Raises:
        DataError: If observations or actions have other sizes.
    """
    for data in (source.data for source in sources if source.data is not None):
        if (data.observation_size, data.action_size) != sizes:
            raise DataError(
                f"the data have observations of size {data.observation_size} and actions of size "
                f"{data.action_size}, but {context.env_id} has {sizes[0]} and {sizes[1]}",
                path=data.path,
                remedy=f"critics must be fitted to data of {context.env_id}, or to rollouts "
                "(--critics rollouts)",
            )
        env_id = data.metadata.env_id
        if env_id and not same_name(env_id, context.env_id):
            warnings.warn(
                f"critics are fitted to data of {env_id} and lead attacks in {context.env_id}",
                stacklevel=4,
            )
