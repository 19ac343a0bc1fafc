"""Versions of datasets on Minari's remote: a Hugging Face user whose repositories Minari reads.

Minari sends with several commits and decides for itself what to create, so what must not happen
is prevented before: it never gets to see a version that is there with another content, nor a
repository that it would create for everybody to see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import minari

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.formats.minari import ROOT_VARIABLE, to_minari
from safer_offline.datasets.publishing.hub import (
    Published,
    UploadPlan,
    create_repository,
    find_contents,
    find_differing,
    find_visibility,
    list_folder,
    name_some,
    require_arrived,
    require_visibility,
)
from safer_offline.datasets.publishing.hub_connection import HubError, connect, explained
from safer_offline.datasets.publishing.release import next_version, version_of
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REMOTE_VARIABLE = "MINARI_REMOTE"
REGISTER = "namespace_metadata.json"


def resolve_user(user: str) -> str:
    """Whose repositories to use: the one named, or the one of Minari's own setting.

    Raises:
        UsageError: If neither names a Hugging Face user.
    """
    if user and "/" not in user:
        return user
    kind, _, name = os.environ.get(REMOTE_VARIABLE, "").partition("://")
    if user or kind != "hf" or not name:
        raise UsageError(
            "name the Hugging Face user whose Minari remote it is: minari://USER, or set "
            f"{REMOTE_VARIABLE}=hf://USER; other kinds of remotes are not supported"
        )
    return name


def export(dataset: OfflineDataset, root: Path) -> Path:
    """Write a dataset with a complete name into a Minari root of its own.

    Returns:
        Its folder.
    """
    metadata = dataset.metadata
    with _environment({ROOT_VARIABLE: str(root)}):
        return to_minari(
            dataset,
            metadata.name,
            description=metadata.description or None,
            author=metadata.author,
        )


def plan_upload(folder: Path, name: str, user: str, *, public: bool) -> UploadPlan:
    """Find out what an upload would do, without changing anything.

    Args:
        folder: From `export`.
        name: The dataset's name, which begins with the name of the repository.
        user: From `resolve_user`.
        public: Whether everybody shall see it.

    Raises:
        UsageError: If the version is taken, or the repository is visible to others than was asked
            for.
        HubError: If the hub cannot be reached or refuses the token.
        MissingPackageError: If huggingface_hub is not installed.
    """
    api = connect()
    first, _, rest = name.partition("/")
    repository = f"{user}/{first}"
    plan = UploadPlan(
        repository=repository,
        url=f"{api.endpoint}/datasets/{repository}/tree/main/{rest}".rstrip("/"),
        tag=f"v{version_of(name)}",
        public=public,
        files=list_folder(folder),
        step="create",
    )
    visible = find_visibility(api, repository)
    if visible is None:
        return plan
    require_visibility(repository, public=public, found=visible)
    present = _find_version(api, repository, rest)
    differing = find_differing(folder, present)
    # A part of exactly these files is an upload that broke off.
    if taken := sorted(set(differing) & set(present)):
        raise UsageError(
            f"{repository} holds {name} already, with another content ({name_some(taken)}); a "
            "published version is never replaced"
            f"\n  Remedy: publish it as the next version, --name {next_version(name)}"
        )
    done = not differing and _is_registered(api, repository, name)
    return dataclasses.replace(plan, step="published" if done else "commit")


def upload(folder: Path, name: str, plan: UploadPlan) -> Published:
    """Let Minari send what was planned.

    Args:
        folder: From `export`.
        name: The dataset's name.
        plan: From `plan_upload`.

    Raises:
        HubError: If the hub refuses.
    """
    from huggingface_hub import get_token  # noqa: PLC0415

    api = connect()
    root = folder.parents[name.count("/")]
    user = plan.repository.split("/")[0]
    remote = {ROOT_VARIABLE: str(root), REMOTE_VARIABLE: f"hf://{user}"}
    with explained(plan.repository):
        if plan.step == "create":
            create_repository(api, plan.repository, public=plan.public)
        if plan.step != "published":
            with (
                _environment(remote),
                _fresh_cache(),
                warnings.catch_warnings(),
                contextlib.redirect_stdout(sys.stderr),
            ):
                # It warns about every repository of the user that is none of Minari's.
                warnings.simplefilter("ignore")
                minari.upload_dataset(name, token=str(get_token()))
        commit = api.dataset_info(plan.repository).sha
    require_arrived(folder, _find_version(api, plan.repository, name.partition("/")[2]))
    if not _is_registered(api, plan.repository, name):
        raise HubError(
            f"{name} was sent, but Minari's register does not name it",
            remedy="give the command again",
        )
    return Published(url=plan.url, commit=str(commit))


def _find_version(api: HfApi, repository: str, path: str) -> dict[str, str]:
    """Hashes of the files of one dataset in a repository."""
    prefix = f"{path}/" if path else ""
    return {
        name.removeprefix(prefix): sha
        for name, sha in find_contents(api, repository, revision="main").items()
        if name.startswith(f"{prefix}data/")
    }


def _is_registered(api: HfApi, repository: str, name: str) -> bool:
    """Whether Minari's listing of the repository names the dataset; without it nobody finds it."""
    from huggingface_hub.errors import RemoteEntryNotFoundError  # noqa: PLC0415

    if "/" not in name:  # such a dataset is a repository of its own
        return True
    with explained(repository), _fresh_cache():
        try:
            register = Path(api.hf_hub_download(repository, REGISTER, repo_type="dataset"))
        except RemoteEntryNotFoundError:
            return False
        return name in json.loads(register.read_text(encoding="utf-8")).get("datasets", [])


@contextlib.contextmanager
def _fresh_cache() -> Iterator[None]:
    """Keep Minari off the user's cache of downloads.

    It edits its register in the cache before it sends it. After an upload that broke off there,
    the cached copy would claim what the hub does not know.
    """
    from huggingface_hub import constants  # noqa: PLC0415

    before = constants.HF_HUB_CACHE
    with tempfile.TemporaryDirectory() as cache:
        constants.HF_HUB_CACHE = cache
        try:
            yield
        finally:
            constants.HF_HUB_CACHE = before


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Minari takes its folders and its remote from environment variables only."""
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
