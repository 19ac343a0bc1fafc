"""The parts of a dataset card that are counted and read off: structure, cost, scores, origin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from safer_offline.context import BoxSpace
from safer_offline.datasets.dataset.schema import INFO_PREFIX, Metadata
from safer_offline.datasets.description.summary import DatasetSummary, Spread
from safer_offline.datasets.publishing.release import HISTOGRAMS, RECIPE, Release

UNKNOWN = "not recorded"
MEANINGS = {
    "observations": "state s as the policy sees it, in the units of the simulator",
    "next_observations": "state s' after the action; at the end of an episode the true last one, "
    "not the first of the next episode",
    "actions": "action as the environment executed it",
    "rewards": "reward of this step",
    "costs": "cost of this step, ≥ 0",
    "terminals": "the episode truly ended with this step",
    "timeouts": "the episode was cut off after this step",
    "infos/episode_id": "counts the episodes from 0",
    "infos/seed": "seed of the reset that began the episode",
    "infos/policy_id": "who acted: place in the list of behaviour policies",
}


def describe_structure(release: Release, summary: DatasetSummary) -> str:
    """Arrays, their types and meaning; returns, costs and lengths of episodes."""
    dataset = release.dataset
    spaces = {
        "observations": release.metadata.observation_space,
        "next_observations": release.metadata.observation_space,
        "actions": release.metadata.action_space,
    }
    arrays = [
        (
            f"`{name}`",
            f"({', '.join(f'{size:,}' for size in array.shape)}{',' * (array.ndim == 1)})",
            str(array.dtype),
            MEANINGS.get(name, "a column of the collector's own") + _range(spaces.get(name)),
        )
        for name, array in dataset.to_arrays().items()
    ]
    spreads = (
        ("return", summary.returns),
        ("cost", summary.costs),
        ("length", summary.lengths),
    )
    return "\n\n".join(
        [
            "## Dataset structure",
            f"`{release.data.name}` is one flat HDF5 file in the layout of DSRL. Every array has "
            "one row a transition, episodes stand one after the other, and the last row of each "
            "has `terminals` or `timeouts` set. Metadata are attributes of the root group.",
            markdown_table(("array", "shape", "type", "meaning"), arrays),
            "Sums over whole episodes, without discount:",
            markdown_table(
                ("per episode", "mean", "std", "min", "25 %", "50 %", "75 %", "max"),
                [(name, *_numbers(spread)) for name, spread in spreads],
            ),
            f"![How returns, costs and lengths are spread]({HISTOGRAMS})",
            f"{summary.terminated_episodes:,} of {summary.num_episodes:,} episodes truly ended. An "
            "episode that was cut off goes on unseen: the value of its last state is not zero. "
            "There are no splits: a learner sees all of it and is judged in the environment.",
        ]
    )


def describe_cost(release: Release, summary: DatasetSummary) -> str:
    """What costs how much, how much of the data is safe, and which limit to choose."""
    metadata = release.metadata
    definition = metadata.cost_definition.strip().rstrip(".") or UNKNOWN
    useful = [f"{safe.cost_limit:g}" for safe in summary.safe if 0.1 <= safe.share <= 0.9]
    advice = (
        f"That leaves {_join(useful)} here." if useful else "No limit of the table does so here."
    )
    own = (
        f" The limit that comes with this dataset is {metadata.cost_limit:g}."
        if metadata.cost_limit is not None
        else ""
    )
    usual = (
        " Published results on Bullet tasks average over limits of 10, 20 and 40."
        if metadata.env_id.startswith("Safety") and "Velocity" not in metadata.env_id
        else ""
    )
    rows = [
        (
            f"{safe.cost_limit:g}",
            f"{safe.episodes:,}",
            f"{safe.share:.1%}",
            "–" if safe.best_return is None else f"{safe.best_return:,.1f}",
        )
        for safe in summary.safe
    ]
    return "\n\n".join(
        [
            "## Cost, and how to choose a limit",
            f"**Cost of a step:** {definition}. The cost of an episode is the sum of its steps; "
            "an episode is safe at a limit if its cost does not exceed it.",
            markdown_table(("limit", "safe episodes", "share", "best safe return"), rows),
            "The data fix no limit; you choose one. Choose it where safe episodes are neither rare "
            "nor the rule (10 to 90 %): with fewer there is little to learn from, with more the "
            f"limit hardly binds. {advice}{own}{usual} Report the limit with every result.",
        ]
    )


def describe_scores(release: Release) -> str:
    """What to normalise returns and costs by."""
    episodes, given = release.dataset.episodes, release.metadata.reference_scores
    extremes = {
        "return_min": float(episodes["return"].min()),
        "return_max": float(episodes["return"].max()),
        "cost_max": float(episodes["cost"].max()),
    }
    scores = {name: given.get(name, value) for name, value in extremes.items()}
    source = "given with the dataset" if given else "the extremes of this dataset"
    return "\n\n".join(
        [
            "## Reference scores",
            markdown_table(
                ("lowest return", "highest return", "highest cost"),
                [tuple(f"{score:,.4f}" for score in scores.values())],
            ),
            f"These are {source}. For a return R, a cost C and a limit d, normalised as DSRL does "
            "it:",
            "    score(R) = (R - lowest return) / (highest return - lowest return)\n"
            "    score(C) = C / d, or C + 1 for d = 0        safe: score(C) <= 1",
        ]
    )


def describe_creation(release: Release, summary: DatasetSummary) -> str:
    """Who acted, in what, with which versions; and how to make the dataset again."""
    metadata = release.metadata
    shares = {policy.name: f"{policy.share:.0%}" for policy in metadata.behavior_policies}
    who = [
        (
            entry.name,
            shares.get(entry.name, "–"),
            f"{entry.episodes:,}",
            f"{entry.mean_return:,.1f}",
            f"{entry.mean_cost:,.1f}",
            f"{entry.minimum_cost:,.4g} to {entry.maximum_cost:,.4g}",
        )
        for entry in summary.behaviors
    ]
    heads = ("policy", "asked share", "episodes", "mean return", "mean cost", "cost")
    sections = [
        "## Dataset creation",
        "**Who acted:**" if who else "**Who acted** is not recorded.",
        markdown_table(heads, who) if who else "",
        _policies(metadata),
        "**How it was recorded:**",
        _provenance(release),
        "**Processing.** Numbers are stored as 32-bit floats, flags as booleans. Nothing was "
        "normalised, clipped or resampled"
        + (
            ", but the episodes were selected from, or merged of, "
            f"{len(metadata.parents)} other dataset(s): content hash "
            + _join([f"`{parent[:16]}…`" for parent in metadata.parents])
            + "."
            if metadata.parents
            else ", and no episode was left out."
            if metadata.recipe
            else " by the program that published it."
        ),
        "**Personal data.** None: the data come from a simulator, and nobody labelled anything."
        if metadata.env_spec or metadata.recipe
        else "**Personal data.** The publishing program did not look for any.",
        _rebuilding(release),
    ]
    return "\n\n".join(section for section in sections if section)


def _policies(metadata: Metadata) -> str:
    """How those who acted do it, their settings and checkpoints, where they are known."""
    lines = []
    for policy in metadata.behavior_policies:
        details = [f"`{key}` = {json.dumps(value)}" for key, value in policy.parameters.items()]
        if policy.checkpoint_sha256:
            details.append(f"checkpoint SHA-256 `{policy.checkpoint_sha256}`")
        settings = f" ({', '.join(details)})" if details else ""
        if policy.description or settings:
            lines.append(f"- **{policy.name}**: {policy.description}{settings}")
    return "\n".join(lines)


def _provenance(release: Release) -> str:
    metadata = release.metadata
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    settings = json.dumps(metadata.env_kwargs) if metadata.env_kwargs else ""
    seed = (
        ""
        if metadata.base_seed is None
        else f"{metadata.base_seed}, from which each episode's own follows (`{INFO_PREFIX}seed`)"
    )
    return markdown_table(
        ("", ""),
        [
            ("environment", metadata.env_id or UNKNOWN),
            *([("its settings", f"`{settings}`")] if settings else []),
            ("steps in an episode", f"{metadata.max_episode_steps or UNKNOWN}, at most"),
            ("versions", versions or UNKNOWN),
            ("seed", seed or UNKNOWN),
            ("command", f"`{metadata.command}`" if metadata.command else UNKNOWN),
            ("git commit", f"`{metadata.git_commit}`" if metadata.git_commit else UNKNOWN),
            ("date", metadata.created_at or UNKNOWN),
            ("by", metadata.author),
        ],
    )


def _rebuilding(release: Release) -> str:
    metadata = release.metadata
    command = metadata.command
    if metadata.recipe:
        command = f"safer-offline collect {RECIPE} -o {release.data.name}"
    if not command:
        return ""
    listed = f"`{RECIPE}` says who acts, where and how long. " if metadata.recipe else ""
    return f"""\
**Rebuilding it.** {listed}With the versions above, on the same kind of processor,

    {command}

gives arrays with the content hash `{metadata.content_sha256}`, which
`safer-offline data info` prints. The file itself differs in its date."""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what would break out of a cell is escaped."""

    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"
        )

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])


def _numbers(spread: Spread) -> list[str]:
    values = (
        spread.mean,
        spread.std,
        spread.minimum,
        spread.quarter,
        spread.median,
        spread.three_quarters,
        spread.maximum,
    )
    return [f"{value:,.1f}" for value in values]


def span(spread: Spread) -> str:
    """From the least to the most, or the one value that all have."""
    if spread.minimum == spread.maximum:
        return f"{spread.minimum:,.0f}"
    return f"{spread.minimum:,.0f} to {spread.maximum:,.0f}"


def _range(space: BoxSpace | None) -> str:
    if space is None or not space.size or set(space.low) != {min(space.low)}:
        return ""
    if set(space.high) != {max(space.high)} or max(map(abs, (*space.low, *space.high))) > 100:
        return ""
    return f", each number from {space.low[0]:g} to {space.high[0]:g}"


def _join(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
