"""The same data under other names: what a file has in place of an array that it lacks.

Nothing is guessed when data are read. What looks like an array is named in the message that it is
missing, with the command that takes it for what it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.datasets.storage.contents import NAMED, Contents

_OTHER_NAMES = {
    "observations": ("observation", "obs", "states", "state"),
    "next_observations": (
        "next_observation", "next_obs", "next_states", "next_state", "observations_next",
        "obs_next", "new_obs",
    ),
    "actions": ("action", "acts", "act"),
    "rewards": ("reward", "rews", "rew"),
    "costs": (
        "cost", "constraint_costs", "constraint_cost", "safety_costs", "safety_cost", "violations",
    ),
    "terminals": ("terminal", "terminated", "terminations", "termination", "is_terminal"),
    "timeouts": ("timeout", "truncated", "truncations", "truncation"),
}  # fmt: skip
_ENDS = ("dones", "done", "ends", "episode_ends", "is_last")
_EPISODE = re.compile(r"(.*/)?[A-Za-z]+[_-]?\d+")


def find_missing(
    path: Path, contents: Contents, *, needed: Collection[str] = ARRAYS
) -> list[Problem]:
    """A problem for each array that a file lacks, costs first; each names the way out.

    Args:
        path: The file.
        contents: What is in it.
        needed: The arrays to look for.
    """
    missing = sorted(
        (name for name in needed if name not in contents.arrays), key=lambda name: name != "costs"
    )
    columns = [*contents.arrays, *contents.left_out]
    if missing and (episodes := _find_episode_groups(columns)):
        return [_kept_apart(episodes)]
    # The whole command, whichever array is missed first: one run shall do.
    lacking = [name for name in ARRAYS if name not in contents.arrays]
    options, found = _find_options(lacking, columns)
    present = f"present: {', '.join(columns[:NAMED]) or 'none'}"
    if len(columns) > NAMED:
        present += f" and {len(columns) - NAMED} more"
    if missing and found:
        others = f", and so are {', '.join(missing[1:])}" if missing[1:] else ""
        return [
            Problem(
                field=missing[0],
                problem=f"the array is missing{others} ({present})",
                remedy=f"`safer-offline data convert {shlex.quote(str(path))} "
                f"{' '.join(options)} --to hdf5 -o NEW.h5` takes {_say(found)}",
            )
        ]
    return [
        Problem(
            field=name,
            problem=f"the array is missing ({present})",
            remedy="safe learning needs the cost of each transition: add an array 'costs' with N "
            "values >= 0 (all zero if nothing was unsafe)"
            if name == "costs"
            else f"add it; a dataset holds {', '.join(ARRAYS)}, one row per transition",
        )
        for name in missing
    ]


def _say(found: Mapping[str, str]) -> str:
    """What is taken for what: `'cost' for 'costs'`; from one group, the group."""
    groups = {theirs.rpartition("/")[0] for theirs in found.values()}
    if len(found) > 2 and len(groups) == 1:
        return f"what lies in the group '{groups.pop()}'"
    return ", ".join(f"'{theirs}' for '{ours}'" for ours, theirs in found.items())


def find_costs(columns: Iterable[str]) -> str | None:
    """The column that may hold the costs, if one is called like it."""
    return _find_column(list(columns), ("costs", *_OTHER_NAMES["costs"]))


def _find_options(lacking: list[str], columns: list[str]) -> tuple[list[str], dict[str, str]]:
    """Options of `data convert` that supply what is lacking, and what they take, by our names."""
    options, found = [], {}
    group = _find_group(lacking, columns)
    if group:
        options.append(f"--group {shlex.quote(group)}")
        found = {name: f"{group}/{name}" for name in lacking if f"{group}/{name}" in columns}
    rest = [name for name in lacking if name not in found]
    for name in rest:
        theirs = _find_column(columns, (name, *_OTHER_NAMES[name]))
        if theirs is not None:
            found[name] = theirs
            source = shlex.quote(theirs)
            options.append(f"--cost-from {source}" if name == "costs" else f"--map {name}={source}")
    ends = _find_column(columns, _ENDS)
    if "terminals" in rest and "terminals" not in found and ends is not None:
        found["terminals"] = ends
        options.append(f"--done-from {shlex.quote(ends)}")
    if "timeouts" in rest and "timeouts" not in found and found:
        options.append("--max-episode-steps N")
    if "next_observations" in rest and "next_observations" not in found and found:
        options.append("--fix derive-next")
    return options, found


def _find_column(columns: list[str], names: tuple[str, ...]) -> str | None:
    """The column with the first of these names; of several, the one in the fewest groups."""
    for wanted in names:
        same = [name for name in columns if name.rpartition("/")[2].lower() == wanted]
        if same:
            return min(same, key=lambda name: (name.count("/"), name))
    return None


def _find_group(lacking: list[str], columns: list[str]) -> str | None:
    """The group that most of what is lacking lies in under its own name."""
    groups = {name.rpartition("/")[0] for name in columns} - {""}
    counts = {group: sum(f"{group}/{name}" in columns for name in lacking) for group in groups}
    best = max(sorted(counts), key=lambda group: counts[group], default="")
    return best if counts.get(best, 0) >= 3 else None


def _find_episode_groups(columns: list[str]) -> list[str]:
    """Groups with numbered names that all hold the same arrays, if there are several."""
    members: dict[str, set[str]] = {}
    for name in columns:
        # The group next to the root that has a number: below it, groups may have groups.
        parts = name.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if _EPISODE.fullmatch(parent):
                members.setdefault(parent, set()).add("/".join(parts[depth:]))
                break
    known = {*ARRAYS, *(name for names in _OTHER_NAMES.values() for name in names)}
    alike = [g for g, names in members.items() if {n.split("/")[0] for n in names} & known]
    return alike if len(alike) > 1 else []


def _kept_apart(episodes: list[str]) -> Problem:
    if episodes[0].startswith("episode_"):
        remedy = (
            "this looks like the file inside a dataset of Minari: name the dataset by its id, such "
            "as bullet/car-circle/mixed-v1 (MINARI_DATASETS_PATH says where they lie)"
        )
    else:
        remedy = "join the episodes to one array of each name, one row per transition"
    return Problem(
        field=None,
        problem=f"each episode has a group of its own ('{episodes[0]}', '{episodes[1]}', "
        f"{len(episodes)} in all), which is another layout than ours",
        remedy=remedy,
    )
