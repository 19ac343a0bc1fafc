"""One dataset made from several of one environment, with the origin of every row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Sequence

import numpy as np

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import BehaviorPolicy
from safer_offline.datasets.storage.hdf5 import content_sha256
from safer_offline.datasets.storage.provenance import join_histories
from safer_offline.datasets.transforms.episodes import measure_shares
from safer_offline.errors import UsageError

_RECOUNTED = {"episode_id", "parent_id"}

# Disagreement here means more than that the parts were made at different times.
_TELLING = (
    "env_id",
    "env_kwargs",
    "cost_key",
    "max_episode_steps",
    "observation_space",
    "action_space",
    "cost_limit",
    "cost_definition",
    "reference_scores",
)


def merge_datasets(
    datasets: Sequence[OfflineDataset],
    *,
    license: str | None = None,
    drop_duplicates: bool = False,
) -> OfflineDataset:
    """The episodes of several datasets of one environment, one dataset after the other.

    Rows get a column `infos/parent_id`: the place in `Metadata.parents` of the dataset that they
    come from. `infos/episode_id` is counted anew. The lists of behaviour policies are united
    (policies are the same where name, checkpoint and parameters are), `infos/policy_id` follows,
    and the shares are measured. Metadata that all agree on are kept, authors and commands are
    joined, and `name` and `recipe` are dropped, for they stand for each part alone.

    Whatever gets lost, and episodes that occur twice, are reported with `warnings.warn`.

    Args:
        datasets: What to merge, two or more.
        license: Licence of the whole; None takes the one that all parts have.
        drop_duplicates: Keep only the first of episodes with the same observations, actions,
            rewards and costs.

    Raises:
        UsageError: If there is nothing to merge, or environments or licences differ.
    """
    if len(datasets) < 2:
        raise UsageError(f"a merge takes two datasets or more, not {len(datasets)}")
    _require_one_environment(datasets)
    license = _joint_license(datasets) if license is None else license
    parts = _with_joint_policies(_with_joint_columns(datasets))
    joint = OfflineDataset.concatenate(parts)
    _report_disagreement(joint, datasets)
    sources = np.repeat(np.arange(len(parts)), [part.num_transitions for part in parts])
    joint = dataclasses.replace(joint, infos={**joint.infos, "parent_id": sources.astype(np.int16)})
    joint = _without_duplicates(joint, datasets, drop=drop_duplicates)
    episode_id = joint.episode_index.numpy().astype(np.int32)
    authors = [one for part in datasets for one in part.metadata.author.split("; ") if one]
    return dataclasses.replace(
        joint,
        infos={**joint.infos, "episode_id": episode_id},
        metadata=dataclasses.replace(
            joint.metadata,
            name="",
            recipe="",
            license=license,
            author="; ".join(dict.fromkeys(authors)),
            command=join_histories([part.metadata.command for part in datasets]),
            behavior_policies=measure_shares(joint),
            parents=tuple(
                part.metadata.content_sha256 or content_sha256(part) for part in datasets
            ),
        ),
    )


def find_duplicates(dataset: OfflineDataset) -> dict[int, int]:
    """Episodes that repeat an earlier one: the same observations, actions, rewards and costs.

    Args:
        dataset: Where to look.

    Returns:
        For each such episode the first that it is a copy of.
    """
    first: dict[bytes, int] = {}
    copies: dict[int, int] = {}
    names = ("observations", "actions", "rewards", "costs")
    arrays = [np.ascontiguousarray(getattr(dataset, name).numpy()) for name in names]
    table = dataset.episodes
    for episode, (start, length) in enumerate(
        zip(table["start"].tolist(), table["length"].tolist(), strict=True)
    ):
        digest = hashlib.sha256(str(length).encode())
        for array in arrays:
            digest.update(array[start : start + length].data)
        original = first.setdefault(digest.digest(), episode)
        if original != episode:
            copies[episode] = original
    return copies


def _label(datasets: Sequence[OfflineDataset], part: OfflineDataset) -> str:
    place = next(place for place, other in enumerate(datasets) if other is part)
    return str(part.path or f"dataset {place + 1}")


def _require_one_environment(datasets: Sequence[OfflineDataset]) -> None:
    for name, values in (
        ("env_id", [part.metadata.env_id for part in datasets]),
        ("observation size", [part.observation_size for part in datasets]),
        ("action size", [part.action_size for part in datasets]),
    ):
        first = {value: part for value, part in zip(values, datasets, strict=True) if value}
        if len(first) > 1:
            raise UsageError(
                "datasets of different environments cannot be merged: "
                + ", ".join(
                    f"{_label(datasets, part)} has {name} {value}" for value, part in first.items()
                )
            )


def _report_disagreement(joint: OfflineDataset, datasets: Sequence[OfflineDataset]) -> None:
    for name in _TELLING:
        values = {}
        for part in reversed(datasets):
            text = str(getattr(part.metadata, name) or "nothing")
            values[text if len(text) <= 80 else f"{text[:77]}..."] = _label(datasets, part)
        if any(getattr(part.metadata, name) != getattr(joint.metadata, name) for part in datasets):
            said = "; ".join(f"{label} says {text}" for text, label in values.items())
            warnings.warn(
                f"the parts disagree on '{name}', so the whole says nothing of it: {said}",
                stacklevel=3,
            )


def _joint_license(datasets: Sequence[OfflineDataset]) -> str:
    by_license = {part.metadata.license: part for part in reversed(datasets)}
    unnamed = by_license.pop("", None)
    if len(by_license) > 1:
        raise UsageError(
            "the parts have different licences: "
            + ", ".join(f"{_label(datasets, part)} {name}" for name, part in by_license.items())
            + "; read them, and say with --license under which the whole may be used"
        )
    if unnamed is not None and by_license:
        warnings.warn(
            f"{_label(datasets, unnamed)} names no licence, so the whole has none; if you know it, "
            "say --license",
            stacklevel=3,
        )
        return ""
    return next(iter(by_license), "")


def _with_joint_columns(datasets: Sequence[OfflineDataset]) -> list[OfflineDataset]:
    """The datasets with the `infos` that all of them have, in types that can be joined."""
    dropped: dict[str, str] = {}
    for name in sorted({name for part in datasets for name in part.infos} - _RECOUNTED):
        lacking = [part for part in datasets if name not in part.infos]
        columns = [part.infos[name] for part in datasets if name in part.infos]
        types = {column.dtype for column in columns}
        joint = np.result_type(*types)
        if lacking:
            dropped[name] = f"{_label(datasets, lacking[0])} lacks it"
        elif len({column.shape[1:] for column in columns}) > 1:
            dropped[name] = "its shapes differ"
        elif any((one.kind in "iu") != (joint.kind in "iu") for one in types):
            dropped[name] = f"its types differ: {', '.join(sorted(map(str, types)))}"
    for name, reason in dropped.items():
        warnings.warn(f"the column 'infos/{name}' is dropped: {reason}", stacklevel=3)
    return [
        dataclasses.replace(
            part,
            infos={
                name: column
                for name, column in part.infos.items()
                if name not in {*dropped, *_RECOUNTED}
            },
        )
        for part in datasets
    ]


def _with_joint_policies(datasets: Sequence[OfflineDataset]) -> list[OfflineDataset]:
    """The datasets with one list of behaviour policies, and `policy_id` as places in it."""
    lists = [part.metadata.behavior_policies for part in datasets]
    if all(policies == lists[0] for policies in lists):
        return list(datasets)
    total = sum(part.num_episodes for part in datasets)
    shares: dict[str, float] = {}
    joint: dict[str, BehaviorPolicy] = {}
    for part, policies in zip(datasets, lists, strict=True):
        for policy in policies:
            key = _identity(policy)
            # What is known without `policy_id`; with it, the shares are measured in the end.
            shares[key] = shares.get(key, 0.0) + policy.share * part.num_episodes / total
            joint[key] = dataclasses.replace(policy, share=shares[key])
    places = {key: place for place, key in enumerate(joint)}
    columns = [part.infos.get("policy_id") for part in datasets]
    for part, policies, column in zip(datasets, lists, columns, strict=True):
        if column is not None and not 0 <= column.min() <= column.max() < len(policies):
            warnings.warn(
                f"the column 'infos/policy_id' is dropped: {_label(datasets, part)} names "
                f"{len(policies)} policies, but has the ids {column.min()} to {column.max()}",
                stacklevel=3,
            )
            columns = [None] * len(datasets)
    parts = []
    for part, policies, column in zip(datasets, lists, columns, strict=True):
        infos = {name: values for name, values in part.infos.items() if name != "policy_id"}
        if column is not None:
            place = np.array([places[_identity(policy)] for policy in policies], np.int16)
            infos["policy_id"] = place[column]
        metadata = dataclasses.replace(part.metadata, behavior_policies=tuple(joint.values()))
        parts.append(dataclasses.replace(part, infos=infos, metadata=metadata))
    return parts


def _identity(policy: BehaviorPolicy) -> str:
    """What makes two policies the same one; the share of the episodes does not."""
    parameters = json.dumps(policy.parameters, sort_keys=True, default=str)
    return json.dumps([policy.name, policy.checkpoint_sha256, parameters])


def _without_duplicates(
    joint: OfflineDataset, datasets: Sequence[OfflineDataset], *, drop: bool
) -> OfflineDataset:
    """The joint dataset, without copies of earlier episodes if asked; else they are reported."""
    copies = find_duplicates(joint)
    if copies and drop:
        kept = [episode for episode in range(joint.num_episodes) if episode not in copies]
        return joint.select_episodes(kept)
    if copies:
        part_of = np.repeat(np.arange(len(datasets)), [part.num_episodes for part in datasets])
        copy, original = next(iter(copies.items()))
        one, other = (_label(datasets, datasets[part_of[e]]) for e in (original, copy))
        warnings.warn(
            f"{len(copies):,} of {joint.num_episodes:,} episodes are copies of another, such as "
            f"one of {one} that is in {other} again; learning weighs them twice. "
            "--drop-duplicates keeps one of each",
            stacklevel=3,
        )
    return joint
