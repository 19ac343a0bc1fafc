"""The commands that make the numbers again, and what they cannot say."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from safer_offline.attacks.registry import ATTACKS
from safer_offline.evaluation.report.documents import EvaluationFiles, RunFiles, as_mapping
from safer_offline.learners.registry import ALGORITHMS
from safer_offline.policies.trained import POLICY_FILE
from safer_offline.settings import settings_of, write_value


def training_command(run: RunFiles) -> tuple[str, list[str]]:
    """How the policy was trained: the command, and sentences about what it leaves open."""
    told, notes = run.training, []
    data, algorithm = str(told.get("dataset") or ""), str(told.get("algorithm") or "")
    if not data:
        data = "DATASET"
        notes.append("The dataset was no file: put in place of DATASET whatever it was.")
    words = ["safer-offline", "train", data]
    config = as_mapping(told.get("config"))
    settled = []
    if algorithm in ALGORITHMS.builtin:
        kind = ALGORITHMS.get(algorithm)
        config = _told(kind.Config, config)
        # What was chosen among stands in its settings.
        settled = ["--no-choose"] if hasattr(kind, "alternatives") else []
        words += ["--algorithm", algorithm] if algorithm != "safer" else []
    else:
        words += ["--algorithm", algorithm or "ALGORITHM"]
        notes.append(
            f"The algorithm '{algorithm}' does not come with this package: name it as "
            "module:Class, unless an installed package offers it."
        )
    words += [part for name, value in config.items() for part in ("--set", _pair(name, value))]
    for option in ("steps", "seed"):
        if option in told:
            words += [f"--{option}", _written(told[option])]
    return _lines([*words, *settled, "--out", str(run.path)]), notes


def evaluation_command(run: RunFiles, evaluation: EvaluationFiles) -> tuple[str, list[str]]:
    """How an evaluation was made: the command, and sentences about what it leaves open."""
    told, notes = evaluation.config, []
    policy = str(run.path)
    if not (run.path / POLICY_FILE).exists():
        policy = "POLICY"
        notes.append("The policy does not lie here: put its name in place of POLICY.")
    attacks = {str(n): as_mapping(s) for n, s in as_mapping(told.get("attacks")).items()}
    words = ["safer-offline", "evaluate", policy, "--attacks", ",".join(attacks) or "all"]
    for name, settings in attacks.items():
        known = name in ATTACKS.builtin
        if not known:
            notes.append(
                f"The attack '{name}' does not come with this package, or has a label of the "
                "user's: name it as module:Class or LABEL=NAME."
            )
        if settings.get("network"):
            notes.append(f"{name} was read from a file: add --attack-set {name}.file=FILE.")
        given = _told(ATTACKS.get(name), settings) if known else settings
        pairs = [_pair(setting, value) for setting, value in given.items() if _can_be_said(value)]
        words += ["--attack-set", f"{name}.{','.join(pairs)}"] if pairs else []
    words += ["--epsilon", _written(told.get("epsilon"))]
    if told.get("epsilon_units") == "std":
        words += ["--epsilon-units", "std"]
    for option in ("budgets", "episodes", "seed", "cost_limit"):
        if told.get(option) not in (None, []):
            words += [f"--{option.replace('_', '-')}", _written(told[option])]
    for name, target in as_mapping(told.get("aims")).items():
        words += ["--aim", _pair(str(name), target)]
    words += _environment(evaluation)
    return _lines(words), notes


def _told(kind: object, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not as they are by themselves; what is no setting is left out."""
    if not isinstance(kind, type):
        return {}
    defaults = {name: setting.default for name, setting in settings_of(kind).items()}
    return {
        name: value
        for name, value in settings.items()
        if name in defaults and not _equal(value, defaults[name])
    }


def _equal(value: object, default: object) -> bool:
    """Whether a value from JSON is a default."""
    try:
        return bool(value == json.loads(json.dumps(default)))
    except (TypeError, ValueError):
        return False


def _can_be_said(value: object) -> bool:
    """Whether a value can be written after NAME=, between commas."""
    return isinstance(value, bool | int | float | str)


def _pair(name: str, value: object) -> str:
    return f"{name}={_written(value)}"


def _written(value: object) -> str:
    """As one would write it: 10 and not 10.0."""
    if isinstance(value, list):
        return write_value([_written(one) for one in value])
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return write_value(value)


def _lines(words: list[str]) -> str:
    """A command, with a line for each option."""
    text = shlex.join(words[:3])
    for word in words[3:]:
        text += (" \\\n    " if word.startswith("--") else " ") + shlex.quote(word)
    return text


def _environment(evaluation: EvaluationFiles) -> list[str]:
    """Options for an environment that the policy does not carry as it was evaluated."""
    told, carried = evaluation.config, evaluation.trained_for
    actual = as_mapping(told.get("environment"))
    words = []
    other = told.get("env") != carried.get("env_id")
    if other and told.get("env"):
        words += ["--env", str(told["env"])]
    if (other or actual.get("cost_key") != carried.get("cost_key")) and actual.get("cost_key"):
        words += ["--cost-key", str(actual["cost_key"])]
    known = {} if other else as_mapping(carried.get("kwargs"))
    for name, value in as_mapping(actual.get("kwargs")).items():
        if value != known.get(name, ...):
            words += ["--kwargs", f"{name}={json.dumps(value)}"]
    steps = actual.get("max_episode_steps")
    if steps and (other or steps != carried.get("max_episode_steps")):
        words += ["--max-episode-steps", str(steps)]
    return words
