"""The names of attacks, and attacks as the command line names and sets them.

Those of the package stand in `ATTACKS`; other packages offer theirs in the entry-point group
`safer_offline.attacks`, and one of your own is named `module:Class`.
"""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from safer_offline.attacks.base import Attack
from safer_offline.errors import UsageError
from safer_offline.importing import nearest
from safer_offline.registry import Registry
from safer_offline.settings import (
    REQUIRED,
    describe_type,
    fits,
    parse_values,
    require_known,
    settings_of,
)

OPTION = "--attack-set"

STANDARD = ("natural", "uniform", "gaussian", "mad", "amad", "mc", "mr")
"""What "all" means: the attacks of the literature, each of which decides a step by itself."""

STRONG = (*STANDARD, "minr", "mix", "lure", "coupled", "bias", "learned")
"""What "strong" means: all that might find more, some of which must first be searched for."""

PRESETS = {"all": STANDARD, "strong": STRONG}

WITHOUT_GRADIENTS = "search"
"""What stands in presets for the attacks that follow gradients, where a policy has none."""


def _check(thing: object, name: str) -> type[Attack] | Attack:
    if isinstance(thing, Attack) or (isinstance(thing, type) and issubclass(thing, Attack)):
        abstract = inspect.isabstract(thing)
        if not isinstance(getattr(thing, "name", None), str) or not thing.name or abstract:
            missing = "`perturb`" if abstract else 'a `name: ClassVar[str] = "..."`'
            raise UsageError(f"the attack {name} lacks {missing}")
        return thing
    raise UsageError(
        f"{name} is no attack: derive a class from safer_offline.attacks.Attack, and name that"
    )


ATTACKS: Registry[type[Attack] | Attack] = Registry(
    "attack",
    group="safer_offline.attacks",
    builtin={
        "natural": "safer_offline.attacks.random:Natural",
        "uniform": "safer_offline.attacks.random:Uniform",
        "gaussian": "safer_offline.attacks.random:Gaussian",
        "mad": "safer_offline.attacks.divergence:MAD",
        "amad": "safer_offline.attacks.divergence:AMAD",
        "mc": "safer_offline.attacks.critic:MaxCost",
        "mr": "safer_offline.attacks.critic:MaxReward",
        "minr": "safer_offline.attacks.critic:MinReward",
        "mix": "safer_offline.attacks.both_critics:Mixed",
        "lure": "safer_offline.attacks.both_critics:Lure",
        "coupled": "safer_offline.attacks.critic:CoupledMaxCost",
        "timed": "safer_offline.attacks.both_critics:Timed",
        "search": "safer_offline.attacks.search:Search",
        "bias": "safer_offline.attacks.bias:Bias",
        "drift": "safer_offline.attacks.bias:Drift",
        "learned": "safer_offline.attacks.learned:Learned",
    },
    check=_check,
)


def make_attack(name: str, *, label: str | None = None, **settings: Any) -> Attack:  # noqa: ANN401
    """The attack of that name.

    Args:
        name: A name in `ATTACKS`, or `module:Class`; a module may also hold an attack made ready.
        label: What to call it in tables, where it is not to be its own name.
        **settings: Arguments of its constructor.

    Raises:
        UsageError: If there is no such attack or setting, or a value does not fit it; the message
            names the nearest one.
    """
    found = ATTACKS.get(name)
    if isinstance(found, Attack):
        if settings:
            raise UsageError(f"{name} is an attack made ready, which takes no settings")
        return found if label is None else relabelled(found, label)
    known = settings_of(found)
    for setting, value in settings.items():
        require_known(setting, known, given=f"attack '{name}'")
        if not fits(value, known[setting].annotation):
            raise UsageError(
                f"attack '{name}': {setting} must be {describe_type(known[setting].annotation)}, "
                f"not {value!r}"
            )
    for setting in known:
        if known[setting].default is REQUIRED and setting not in settings:
            raise UsageError(
                f"attack '{name}' must be told '{setting}': {OPTION} {name}.{setting}=..."
            )
    attack = found(**settings)
    return attack if label is None else relabelled(attack, label)


def relabelled(attack: Attack, label: str) -> Attack:
    """The same attack under another name, which also gives it other random numbers."""
    renamed = copy.copy(attack)
    renamed.name = label  # type: ignore[misc]
    return renamed


NO_CRITIC = "the policy has no critic to ask"
"""Why an attack that asks critics is left out, or refused."""


def preset_of(attacks: str | Sequence[str | Attack]) -> str | None:
    """The name of the preset that was asked for, if one was; of several the larger."""
    if not isinstance(attacks, str):
        return None
    asked = [name.lower() for name in _names(attacks) if name.lower() in PRESETS]
    return max(asked, key=lambda name: len(PRESETS[name]), default=None)


def resolve_attacks(
    attacks: str | Sequence[str | Attack],
    *,
    settings: Sequence[str] = (),
    critics: Sequence[str] = ("reward", "cost"),
    no_critic: str = NO_CRITIC,
    gradients: bool = True,
) -> tuple[Attack, ...]:
    """The attacks that a user asked for, in that order.

    Args:
        attacks: "all" standard ones, or "strong", which adds those that may find more and take
            longer; names separated by commas, also beside these ("all,bias"); or a sequence of
            names and attacks. `LABEL=NAME` gives an attack another name, so that one attack can be
            met with several settings.
        settings: Such as `mad.steps=50`: the name or label of an attack, and an argument of its
            constructor.
        critics: Which critics there are. What they cannot answer is left out of presets, with a
            warning, and refused where it was named.
        no_critic: Why there are no others, for these messages.
        gradients: Whether the policy passes gradients on; if not, likewise, and presets search
            without them instead.

    Raises:
        UsageError: If a name is unknown or given twice, or there are none; if a setting belongs to
            none of them or its value does not fit; if the policy lacks a critic that one asks.
    """
    if isinstance(attacks, str):
        preset, attacks = preset_of(attacks), _names(attacks)
        if preset is not None:
            known = _preset(preset, critics, no_critic=no_critic, gradients=gradients)
            attacks = [*known, *(n for n in attacks if n not in known and n.lower() not in PRESETS)]
    texts = _by_attack(settings)
    resolved = tuple(_resolve(item, texts) for item in attacks)
    for attack in resolved:
        _require_answers(attack, critics, no_critic=no_critic, gradients=gradients)
    if not resolved:
        raise UsageError(f"no attack given; known: {', '.join([*PRESETS, *ATTACKS])}")
    named = [attack.name for attack in resolved]
    for name in named:
        if named.count(name) > 1:
            raise UsageError(
                f"attack '{name}' is given twice; to meet it with two settings, give one of them "
                f"a label: other={name}"
            )
    if texts:
        name, (text, *_) = next(iter(texts.items()))
        raise UsageError(
            f"{OPTION} {name}.{text}: there is no attack '{name}' in this evaluation"
            f"{nearest(name, named)}"
        )
    return resolved


def attack_settings(attack: Attack) -> dict[str, Any]:
    """What a report records of an attack: its settings, and which it is where its name does not."""
    kind = ATTACKS.name_of(type(attack))
    settings = {name: value for name, value in vars(attack).items() if name != "name"}
    return settings if kind == attack.name else {"attack": kind, **settings}


def _names(attacks: str) -> list[str]:
    return [name.strip() for name in attacks.split(",") if name.strip()]


def _preset(preset: str, critics: Sequence[str], *, no_critic: str, gradients: bool) -> list[str]:
    """The attacks of a preset that this policy can be met with."""
    wanted = list(PRESETS[preset])
    blind = [name for name in wanted if ATTACKS.get(name).needs_gradients and not gradients]
    mute = [name for name in wanted if set(ATTACKS.get(name).critics) - set(critics)]
    mute = [name for name in mute if name not in blind]
    for names, reason in (
        (blind, f"the policy passes no gradients on; '{WITHOUT_GRADIENTS}' goes in their place"),
        (mute, no_critic),
    ):
        if names:
            warnings.warn(f"left out: {', '.join(names)}, for {reason}", stacklevel=4)
    if blind:
        wanted.insert(len(STANDARD), WITHOUT_GRADIENTS)
    return [name for name in wanted if name not in {*blind, *mute}]


def _resolve(item: str | Attack, texts: dict[str, list[str]]) -> Attack:
    """An attack from its name; takes the settings that are meant for it out of `texts`."""
    if not isinstance(item, str):
        _check(item, f"{item!r}")
        return item
    label, equals, name = (part.strip() for part in item.partition("="))
    if not equals:
        name = label
    elif not label:
        raise UsageError(f"'{item}': write LABEL=NAME")
    asked, at, source = name.partition("@")
    if at and asked.lower() in ATTACKS:
        raise UsageError(
            f"'{item}': whose critics lead is said of all attacks at once: --attacks {asked} "
            f"--critics {source}"
        )
    found = ATTACKS.get(name)
    # A setting may name the attack as it was asked for, by its label, or as tables call it.
    own = [key for key in dict.fromkeys((label, label.lower(), found.name)) if key in texts]
    if equals:
        own = [key for key in own if key == label]
    given = [text for key in own for text in texts.pop(key)]
    known = settings_of(found) if isinstance(found, type) else {}
    values = parse_values(known, given, option=OPTION, prefix=f"{label}.")
    return make_attack(name, label=label if equals else None, **values)


def _by_attack(settings: Iterable[str]) -> dict[str, list[str]]:
    """`["mad.steps=50,restarts=9"]` -> `{"mad": ["steps=50", "restarts=9"]}`."""
    texts: dict[str, list[str]] = {}
    for setting in settings:
        attack = ""
        # A comma separates settings where a name follows it, else the numbers of one value.
        for part in re.split(r",(?=[^,=]+=)", setting):
            head, equals, value = part.partition("=")
            name, _, parameter = head.strip().rpartition(".")
            attack = name or attack
            if not (equals and attack and parameter):
                raise UsageError(f"{OPTION} {setting}: write it as ATTACK.NAME=VALUE: mad.steps=50")
            texts.setdefault(attack, []).append(f"{parameter}={value}")
    return texts


def _require_answers(
    attack: Attack, critics: Sequence[str], *, no_critic: str, gradients: bool
) -> None:
    if attack.needs_gradients and not gradients:
        raise UsageError(
            f"attack '{attack.name}' follows gradients, and this policy passes none on: take "
            f"'{WITHOUT_GRADIENTS}', which only asks for actions ('all' does)"
        )
    for name in attack.critics:
        if name not in critics:
            raise UsageError(
                f"attack '{attack.name}' asks the {name} critic, and {no_critic}; or leave the "
                "attack out ('all' leaves out what cannot be asked)"
            )
