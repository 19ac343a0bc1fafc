"""Which environment a policy is evaluated in: the one it carries, or what the user says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from safer_offline.context import EnvironmentContext, same_name
from safer_offline.environments.source import EnvironmentSource
from safer_offline.environments.tasks import BULLET_IDS, ENVIRONMENT_IDS
from safer_offline.errors import UsageError


def environment_of(
    carried: EnvironmentContext,
    *,
    env: str | None = None,
    cost_key: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
) -> EnvironmentSource:
    """The environment that a policy comes from, with what is given in place of what it carries.

    Args:
        carried: What the policy remembers of its dataset.
        env: Name of the environment. Another than the policy's own has nothing to do with what it
            carries.
        cost_key: Where `info` holds the cost of a step.
        kwargs: Arguments of the environment; they replace carried ones of the same name.
        max_episode_steps: Step limit of an episode.

    Raises:
        UsageError: If neither the policy nor an argument says what must be known: the name of the
            environment, or the cost key.
    """
    if env is None and not carried.env_id:
        raise UsageError(
            "the policy does not say what environment it was trained for, because its dataset did "
            "not: name it with --env (env=)"
        )
    source = EnvironmentSource(
        name=env or carried.env_id, kwargs=kwargs or {}, max_episode_steps=max_episode_steps
    )
    env_id = source.env_id
    own = same_name(env_id, carried.env_id)
    key = cost_key or (carried.cost_key if own else None)
    if key is None:
        # In our own tasks it has one place. Elsewhere a guess could find another number.
        if own and env_id not in ENVIRONMENT_IDS:
            raise UsageError(
                f"the policy does not say which entry of info is the cost in {env_id}, because "
                "its dataset did not: name it with --cost-key (such as --cost-key cost), and the "
                "arguments of the environment with --kwargs, if it had any"
            )
        key = "cost"
    if not own or env_id in BULLET_IDS:
        kept: Mapping[str, Any] = {}
    else:
        kept = carried.kwargs or {}
    limit = max_episode_steps or (carried.max_episode_steps if own else None)
    return EnvironmentSource(
        name=source.name,
        kwargs={**kept, **(kwargs or {})},
        cost_key=key,
        max_episode_steps=limit,
    )


def source_of(
    carried: EnvironmentContext, env: str | EnvironmentSource | gymnasium.Env[Any, Any] | None
) -> EnvironmentSource:
    """Which environment an argument `env` means, see `environment_of`.

    Args:
        carried: What the policy remembers of its dataset.
        env: None takes what is carried. An environment that is made already says what it is, and is
            made again; it is left as it is.

    Raises:
        UsageError: If nothing says which environment or which cost is meant, or if an environment
            does not say how it was made.
    """
    if isinstance(env, EnvironmentSource):
        return env
    if env is None or isinstance(env, str):
        return environment_of(carried, env=env)
    spec = env.spec
    if spec is None or spec.additional_wrappers:
        raise UsageError(
            f"each simulation process makes its own environment, and {env} does not say how it was "
            "made: it "
            + ("did not come from gymnasium.make" if spec is None else "was wrapped afterwards")
            + '. Name a function that makes it: env="my_module:make_env"'
        )
    # What its registration says need not be said again, and nobody looks on.
    known = {**gymnasium.spec(spec.id).kwargs, "render_mode": spec.kwargs.get("render_mode")}
    kwargs = {name: value for name, value in spec.kwargs.items() if known.get(name) != value}
    return environment_of(
        carried, env=spec.id, kwargs=kwargs, max_episode_steps=spec.max_episode_steps
    )


def describe_differences(carried: EnvironmentContext, actual: EnvironmentContext) -> str:
    """In what the environment of an evaluation is not the one of the data; empty if in nothing."""
    if carried.env_id and not same_name(carried.env_id, actual.env_id):
        return f"the policy was trained for {carried.env_id} and is evaluated in {actual.env_id}"
    parts = [
        f"{_WORDS[difference.name]} {difference.actual!r} instead of {difference.carried!r}"
        if difference.name in _WORDS
        else f"another {difference.name.replace('_', ' ')}"
        for difference in carried.differences(actual)
    ]
    if not parts:
        return ""
    return f"{actual.env_id} is not as in the policy's dataset: it has {', '.join(parts)}"


_WORDS = {
    "kwargs": "the arguments",
    "cost_key": "the cost key",
    "max_episode_steps": "a step limit of",
}
