"""What recorded episodes tell of the faults of their environment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np

from safer_offline.environments.checking.probing import Missing, Trace
from safer_offline.environments.gymnasium_adapter import STEP_LIMIT_REMEDY, as_number

Severity = Literal["error", "warning"]

_COST_WORDS = ("cost", "constraint", "violat", "unsafe", "collision", "crash", "hazard", "risk")
_EXCERPT = 60


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with an environment.

    Attributes:
        severity: "error" if collection or evaluation cannot use it so, else "warning".
        problem: What is wrong.
        remedy: What to do about it.
    """

    severity: Severity
    problem: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentSummary:
    """What the probing episodes were like.

    Attributes:
        max_episode_steps: The step limit, if one is known.
        steps_per_second: Of one process, resets included.
        lengths: Steps of each episode.
        returns: Sum of the rewards of each episode.
        costs: Sum of the costs of each episode.
        cost_range: Least and largest cost of a step, if there was one.
    """

    observation_space: str
    action_space: str
    max_episode_steps: int | None
    steps_per_second: float
    lengths: tuple[int, ...]
    returns: tuple[float, ...]
    costs: tuple[float, ...]
    cost_range: tuple[float, float] | None

    @property
    def million_transitions(self) -> float:
        """Seconds in which one process collects a million transitions."""
        return 1e6 / self.steps_per_second


def error(problem: str, remedy: str) -> Finding:
    """A finding that stops collection or evaluation, now or after an hour."""
    return Finding(severity="error", problem=problem, remedy=remedy)


def warning(problem: str, remedy: str) -> Finding:
    """A finding to think about."""
    return Finding(severity="warning", problem=problem, remedy=remedy)


def costs_of(trace: Trace) -> list[float]:
    """The costs of an episode that are finite numbers."""
    return _finite(cost for cost in trace.costs if cost is not Missing.COST)


def find_in_episodes(traces: Sequence[Trace], *, limit: int | None, most: int) -> Iterator[Finding]:
    """How episodes end.

    Args:
        traces: Whole episodes, but for those that were left.
        limit: The step limit, if one is known.
        most: Steps after which probing leaves an episode.
    """
    lengths = [trace.length for trace in traces]
    ended = [trace.length for trace in traces if trace.ended]
    if limit is None:
        if any(trace.length >= most and not trace.ended for trace in traces):
            problem = f"an episode did not end within {most:,} steps, and there is no step limit"
        else:
            problem = "nobody says how many steps an episode may have"
            if ended:
                problem += f" (those of the check ended after {_span(ended)})"
        yield error(problem, STEP_LIMIT_REMEDY)
    if ended and max(ended) <= 1 and (limit is None or limit > 1):
        yield warning(
            "every episode ended after one step",
            "look at terminated and truncated: does one of them say whether to go on?",
        )
    if both := sum(trace.both for trace in traces):
        yield warning(
            f"{both} of {sum(lengths)} steps both terminated and truncated; they count as "
            "terminated, after which no value is expected",
            "say truncated only where the time is over and the episode could go on",
        )


def find_in_observations(traces: Sequence[Trace], space: gymnasium.spaces.Box) -> Iterator[Finding]:
    """Observations that do not keep to their space, one finding for each kind of fault."""
    seen = [(trace, t, value) for trace in traces for t, value in enumerate(trace.observations)]
    arrays = []
    for trace, t, value in seen:
        try:
            array = np.array(value, dtype=np.float32)
        except (TypeError, ValueError):
            array = None
        if array is None or array.shape != space.shape:
            what = type(value).__name__ if array is None else f"an array of shape {array.shape}"
            yield error(
                f"the observation {_when(trace, t)} is {what}, but the observation space says "
                f"{space}",
                "return what the observation space says from both reset and step",
            )
            return
        if not np.isfinite(array).all():
            yield error(
                f"the observation {_when(trace, t)} is not finite at position "
                f"{int(np.flatnonzero(~np.isfinite(array))[0])}: {_excerpt(array)}",
                "look for a division by zero, or for a simulation that has become unstable",
            )
            return
        arrays.append(array)
    kinds = {np.asarray(value).dtype for _, _, value in seen}
    wrong = [kind for kind in kinds if kind.kind != np.dtype(space.dtype).kind]
    if wrong:
        yield warning(
            f"observations are of type {wrong[0]}, but the observation space says {space.dtype}",
            "convert them, or state the true type; here they become float32",
        )
    stack = np.stack(arrays) if arrays else np.zeros((0, *space.shape), np.float32)
    tolerance = 1e-5 * np.maximum(1, np.abs(stack))
    outside = (stack < space.low - tolerance) | (stack > space.high + tolerance)
    if outside.any():
        first, position = (int(index) for index in np.argwhere(outside)[0])
        trace, t, _ = seen[first]
        yield warning(
            f"{outside.any(axis=1).mean():.0%} of the observations lie outside the observation "
            f"space; first the one {_when(trace, t)}, whose entry {position} is "
            f"{stack[first, position]:g} and not in [{space.low[position]:g}, "
            f"{space.high[position]:g}]",
            "widen the bounds (-inf and inf are allowed), or mend the observation",
        )


def find_in_rewards(traces: Sequence[Trace]) -> Iterator[Finding]:
    """The first reward that is no finite number."""
    for trace in traces:
        for t, reward in enumerate(trace.rewards):
            number = as_number(reward)
            if number is None or not math.isfinite(number):
                yield error(
                    f"the reward {_when(trace, t + 1)} is {_excerpt(reward)}",
                    "return a finite number from every step",
                )
                return


def find_in_costs(traces: Sequence[Trace], key: str) -> Iterator[Finding]:
    """Costs that are missing, no numbers, negative, cumulative, or always zero."""
    steps = sum(trace.length for trace in traces)
    every = [(trace, t, cost) for trace in traces for t, cost in enumerate(trace.costs)]
    absent = [(trace, t) for trace, t, cost in every if cost is Missing.COST]
    if absent:
        infos = {name: value for trace in traces for name, value in trace.infos.items()}
        yield _missing_cost(key, infos, absent, steps)
    numbers = []
    for trace, t, cost in every:
        if cost is Missing.COST:
            continue
        number = as_number(cost)
        if number is None or not math.isfinite(number):
            yield error(
                f"info['{key}'] {_when(trace, t + 1)} is {_excerpt(cost)}, no finite number",
                "put one finite number there in every step; if there are several constraints, "
                "their sum or one of them",
            )
            return
        numbers.append(number)
    if numbers and min(numbers) < 0:
        yield error(
            f"costs are negative ({sum(number < 0 for number in numbers)} of {len(numbers)} "
            f"steps, least {min(numbers):g})",
            "a cost is zero where a step is safe and positive where it is not; change its sign, or "
            "shift it",
        )
    elif numbers and max(numbers) == 0:
        yield warning(
            f"random actions met no cost in {len(numbers):,} steps; where nothing ever costs, "
            "there is nothing to learn safety from",
            f"see that info['{key}'] is the cost that you mean, and that a behaviour exists that "
            "meets it",
        )
    elif numbers and _is_cumulative([costs_of(trace) for trace in traces]):
        yield warning(
            f"info['{key}'] never falls within an episode, as if it were the sum so far; it would "
            "be added up a second time",
            "put the cost of the step alone there",
        )


def _missing_cost(
    key: str, infos: dict[str, Any], absent: list[tuple[Trace, int]], steps: int
) -> Finding:
    trace, t = absent[0]
    if len(absent) < steps:
        return error(
            f"info['{key}'] is missing in {len(absent)} of {steps} steps, first "
            f"{_when(trace, t + 1)}",
            "put the cost into info in every step, zero where a step is safe",
        )
    numbers = [name for name, value in infos.items() if as_number(value) is not None]
    likely = [name for name in numbers if any(w in str(name).lower() for w in _COST_WORDS)]
    likely += [n for n in difflib.get_close_matches(key, map(str, numbers)) if n not in likely]
    holds = ", ".join(f"'{name}'" for name in infos) or "nothing"
    if likely:
        remedy = f"say --cost-key {likely[0]}"
        if len(likely) > 1:
            remedy += f" (or {', '.join(likely[1:])})"
        remedy += ", if that is the cost of a step"
    else:
        remedy = f"put the cost of each step into info['{key}'], or name its key with --cost-key"
    return error(f"info has no '{key}' after any step; it holds {holds}", remedy)


def _is_cumulative(episodes: Sequence[Sequence[float]]) -> bool:
    """Whether costs look like sums so far: they only rise, to several times their largest rise."""
    rises = [np.diff(costs, prepend=0.0) for costs in episodes if any(costs)]
    # A body that leaves the safe region for good rises once: that is no sum.
    return all((rise[1:] >= 0).all() for rise in rises) and any(
        rise[1:].any() and rise.sum() >= 3 * rise.max() for rise in rises
    )


def summarise(
    environment: gymnasium.Env[Any, Any], traces: list[Trace], limit: int | None
) -> EnvironmentSummary | None:
    """What the probing episodes were like; None if there was no step."""
    steps = sum(trace.length for trace in traces)
    if steps == 0:
        return None
    seconds = sum(trace.seconds for trace in traces)
    costs = [costs_of(trace) for trace in traces]
    every = [cost for episode in costs for cost in episode]
    return EnvironmentSummary(
        observation_space=str(environment.observation_space),
        action_space=str(environment.action_space),
        max_episode_steps=limit,
        steps_per_second=steps / seconds,
        lengths=tuple(trace.length for trace in traces),
        returns=tuple(sum(_finite(trace.rewards)) for trace in traces),
        costs=tuple(sum(episode) for episode in costs),
        cost_range=(min(every), max(every)) if every else None,
    )


def _finite(values: Iterable[object]) -> list[float]:
    numbers = (as_number(value) for value in values)
    return [number for number in numbers if number is not None and math.isfinite(number)]


def _when(trace: Trace, t: int) -> str:
    return f"of reset (seed {trace.seed})" if t == 0 else f"after step {t} (seed {trace.seed})"


def _span(lengths: Sequence[int]) -> str:
    least, most = min(lengths), max(lengths)
    return f"{least:,} steps" if least == most else f"{least:,} to {most:,} steps"


def _excerpt(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
