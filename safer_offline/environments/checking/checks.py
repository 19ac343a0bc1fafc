"""What is wrong with an environment, said before an hour is spent on it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import gymnasium

from safer_offline.environments.checking.findings import (
    EnvironmentSummary,
    Finding,
    error,
    find_in_costs,
    find_in_episodes,
    find_in_observations,
    find_in_rewards,
    summarise,
    warning,
)
from safer_offline.environments.checking.probing import (
    Replayed,
    Trace,
    draw_actions,
    replay,
    run_episode,
)
from safer_offline.environments.gymnasium_adapter import own_step_limit, space_problems
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import MissingSimulatorError, SaferOfflineError
from safer_offline.importing import failure_of

MOST_STEPS = 10_000
"""Steps after which probing leaves an episode."""

# An episode is played again for so long at most.
_REPLAYED_STEPS = 500
_REPLAYED_SECONDS = 5.0
_SLOW = 24 * 3600
"""Seconds for a million transitions that are worth a warning."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentReport:
    """What a check found.

    Attributes:
        env_id: The environment.
        findings: What is wrong, errors first.
        summary: What it is like; None if no episode could be started.
    """

    env_id: str
    findings: list[Finding]
    summary: EnvironmentSummary | None

    @property
    def usable(self) -> bool:
        """Whether nothing stops collection and evaluation."""
        return not any(finding.severity == "error" for finding in self.findings)


def check_environment(
    source: EnvironmentSource | str,
    *,
    episodes: int = 3,
    seed: int = 0,
    seconds: float = 60.0,
) -> EnvironmentReport:
    """Drive an environment at random for a few episodes and say everything that is wrong with it.

    Args:
        source: Which environment.
        episodes: How many to drive at most.
        seed: Of starts and actions.
        seconds: Time after which driving stops.

    Raises:
        UsageError: If there is no such environment.
        SaferOfflineError: If its module cannot be imported.
        MissingSimulatorError: If it is a task of ours and its simulator is not installed.
    """
    source = EnvironmentSource(name=source) if isinstance(source, str) else source
    env_id = source.env_id
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        findings, summary = _probe(source, episodes=max(episodes, 1), seed=seed, seconds=seconds)
    if text := printed.getvalue().strip():
        lines = text.splitlines()
        findings.append(
            warning(
                f"it prints to the standard output ({len(lines)} lines, first: {lines[0][:60]!r})",
                "remove the print or use logging: it slows each step and spoils what --json writes",
            )
        )
    findings.sort(key=lambda finding: finding.severity)  # "error" comes before "warning"
    return EnvironmentReport(env_id=env_id, findings=findings, summary=summary)


def require_sound(source: EnvironmentSource | str, *, seconds: float = 10.0) -> EnvironmentReport:
    """A short check before long work: errors are raised, warnings are shown.

    Args:
        source: Which environment.
        seconds: Time after which driving stops.

    Raises:
        SaferOfflineError: If the environment cannot be used.
    """
    report = check_environment(source, episodes=2, seconds=seconds)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        lines = [f"- {one.problem}\n  Remedy: {one.remedy}" for one in errors]
        raise SaferOfflineError("\n".join([f"{report.env_id} cannot be used:", *lines]))
    for finding in report.findings:
        text = f"{report.env_id}: {finding.problem}\n  Remedy: {finding.remedy}"
        warnings.warn(text, stacklevel=2)
    return report


def _probe(
    source: EnvironmentSource, *, episodes: int, seed: int, seconds: float
) -> tuple[list[Finding], EnvironmentSummary | None]:
    try:
        environment = source.make_gymnasium()
    except MissingSimulatorError:
        raise
    except SaferOfflineError as failure:
        return [error(str(failure), "see that this is mended; nothing else could be checked")], None
    findings = [error(*problem) for problem in space_problems(environment)]
    if getattr(environment, "render_mode", None) == "human":
        findings.append(
            warning(
                "it opens a window (render_mode is 'human'), which takes most of the time",
                "make it without render_mode",
            )
        )
    try:
        if not isinstance(getattr(environment, "action_space", None), gymnasium.Space):
            return findings, None
        limits = [n for n in (source.max_episode_steps, own_step_limit(environment)) if n]
        limit = min(limits) if limits else None
        traces = _drive(environment, source, limit, episodes=episodes, seed=seed, seconds=seconds)
        findings += _find_in(traces, environment, source.cost_key, limit)
        broken = any(trace.failure for trace in traces)
        if not broken and isinstance(environment.observation_space, gymnasium.spaces.Box):
            findings += _find_differences(environment, source, traces[0], limit)
        summary = summarise(environment, traces, limit)
    finally:
        environment.close()
    if summary is not None and summary.million_transitions > _SLOW:
        findings.append(
            warning(
                f"it is slow: {summary.steps_per_second:.3g} steps a second in one process",
                "collect fewer transitions, on more processes, or find out what takes the time",
            )
        )
    return findings, summary


def _drive(
    environment: gymnasium.Env[Any, Any],
    source: EnvironmentSource,
    limit: int | None,
    *,
    episodes: int,
    seed: int,
    seconds: float,
) -> list[Trace]:
    traces: list[Trace] = []
    for number in range(episodes):
        left = seconds - sum(trace.seconds for trace in traces)
        if left <= 0 or (traces and traces[-1].failure):
            break
        # Random actions, then held ones, which go further and meet more costs.
        actions = draw_actions(environment.action_space, seed=seed + number, bold=number % 2 == 1)
        traces.append(
            run_episode(
                environment,
                actions,
                seed=seed + number,
                cost_key=source.cost_key,
                step_limit=limit,
                most_steps=MOST_STEPS,
                seconds=left,
            )
        )
    return traces


def _find_in(
    traces: list[Trace], environment: gymnasium.Env[Any, Any], cost_key: str, limit: int | None
) -> Iterator[Finding]:
    for trace in traces:
        if trace.failure:
            yield error(*trace.failure)
            return
    yield from find_in_episodes(traces, limit=limit, most=MOST_STEPS)
    space = environment.observation_space
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        yield from find_in_observations(traces, space)
    yield from find_in_rewards(traces)
    yield from find_in_costs(traces, cost_key)


def _find_differences(
    environment: gymnasium.Env[Any, Any],
    source: EnvironmentSource,
    trace: Trace,
    limit: int | None,
) -> Iterator[Finding]:
    """Play the same episode again: here, in a new environment, and in a new process."""
    affordable = int(_REPLAYED_SECONDS * trace.length / trace.seconds)
    actions = trace.actions[: min(max(affordable, 1), _REPLAYED_STEPS)]
    expected = trace.prints()[: len(actions) + 1]

    def here() -> Replayed:
        again = run_episode(
            environment,
            iter(actions),
            seed=trace.seed,
            cost_key=source.cost_key,
            step_limit=limit,
            most_steps=len(actions),
        )
        return again.prints(), again.failure

    def anew() -> Replayed:
        return replay(source, trace.seed, actions, limit)

    def elsewhere() -> Replayed:
        return _elsewhere(replay, source, trace.seed, actions, limit)

    places: list[tuple[str, str, Callable[[], Replayed]]] = [
        ("in the same environment, after other episodes", "run a second episode", here),
        ("in a new environment of the same process", "be made a second time", anew),
        (
            "in a new process",
            "be made in a new process, as collecting does",
            elsewhere,
        ),
    ]
    different = False
    for place, what, play in places:
        try:
            prints, failure = play()
        except BrokenProcessPool:
            prints, failure = [], ("the process died", "")
        except Exception as failed:
            prints, failure = [], (failure_of(failed), "")
        if failure:
            yield error(
                f"it cannot {what}: {failure[0]}",
                "let the factory depend on nothing but its arguments: no global state, open files "
                "or ports that only one can have; or say --workers 0. In a script, stand under "
                "`if __name__ == '__main__':`",
            )
        elif prints != expected and not different:
            different = True  # the first place says most about the reason
            yield _difference(expected, prints, place)


def _elsewhere(play: Callable[..., Replayed], *arguments: Any) -> Replayed:  # noqa: ANN401
    """What a function returns in a process that starts from nothing, as simulation processes do."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(play, *arguments).result()


def _difference(expected: list[bytes], prints: list[bytes], place: str) -> Finding:
    step = next(
        (t for t, (one, other) in enumerate(zip(expected, prints, strict=False)) if one != other),
        min(len(expected), len(prints)),
    )
    where = "the first observation" if step == 0 else f"step {step}"
    return warning(
        f"the same seed and the same actions {place} give another episode, from {where} on; "
        "collecting again gives another dataset, and attacks do not meet the same episodes",
        "call super().reset(seed=seed) in reset, draw every random number from self.np_random "
        "(not from np.random or random), and set all state anew in reset",
    )
