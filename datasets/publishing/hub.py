"""Versions of datasets on the Hugging Face hub: planned first, sent when asked, never replaced.

A repository holds one dataset. Its branch `main` has the newest version and a tag `vN` keeps each
of them. Nothing is ever changed on the hub that no tag keeps, so nothing can be lost; and since a
plan compares contents, an upload that broke off is finished by doing it again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safer_offline.datasets.publishing.hub_connection import HubError, connect, explained
from safer_offline.datasets.publishing.release import ReleasedFile
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPOSITORY = re.compile(r"[A-Za-z0-9][-\w.]*/[A-Za-z0-9][-\w.]*")
KEPT_BY_THE_HUB = ".gitattributes"


@dataclass(frozen=True, kw_only=True)
class UploadPlan:
    """What an upload would do.

    Attributes:
        repository: `user/name`.
        url: Where readers will find this version.
        tag: The version, `v0`.
        public: Whether everybody may see it.
        files: What is sent.
        step: `create` the repository first, `commit` to it, only `tag` what is there already, or
            nothing, because this very version is `published`.
        head: The commit that the plan was made for.
        obsolete: Files of the version before that are not in this one; their tag keeps them.
    """

    repository: str
    url: str
    tag: str
    public: bool
    files: tuple[ReleasedFile, ...]
    step: Literal["create", "commit", "tag", "published"]
    head: str | None = None
    obsolete: tuple[str, ...] = ()

    @property
    def outlook(self) -> str:
        """What would happen, in a sentence."""
        visibility = "public" if self.public else "private"
        return {
            "create": f"The repository does not exist yet; it would be created, {visibility}.",
            "commit": f"The repository exists and is {visibility}; {self.tag} would be added.",
            "tag": f"These files are there already, unnamed; they would get the tag {self.tag}.",
            "published": f"Exactly this is there already as {self.tag}; nothing is left to do.",
        }[self.step]


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where a dataset is now."""

    url: str
    commit: str


def plan_upload(
    folder: Path, repository: str, tag: str, *, public: bool, next_name: str
) -> UploadPlan:
    """Find out what an upload would do, without changing anything.

    Args:
        folder: What `build_folder` built.
        repository: `user/name`.
        tag: The version, `v0`.
        public: Whether everybody shall see it.
        next_name: What to call the next version of the dataset, for messages.

    Raises:
        UsageError: If the version is taken, something would be lost, or the repository is visible
            to others than was asked for.
        HubError: If the hub cannot be reached or refuses the token.
        MissingPackageError: If huggingface_hub is not installed.
    """
    api = connect()
    files = list_folder(folder)
    url = f"{api.endpoint}/datasets/{repository}/tree/{tag}"
    visible = find_visibility(api, repository)
    if visible is None:
        return UploadPlan(
            repository=repository, url=url, tag=tag, public=public, files=files, step="create"
        )
    require_visibility(repository, public=public, found=visible)
    with explained(repository):
        head = api.dataset_info(repository).sha
        refs = api.list_repo_refs(repository, repo_type="dataset")
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    step: Literal["commit", "tag", "published"] = "commit"
    present = find_contents(api, repository, revision=tag if tag in tags else head)
    differing = find_differing(folder, present)
    if tag in tags:
        if differing:
            raise UsageError(
                f"{repository} holds {tag} already, with another content ({name_some(differing)}); "
                "a published version is never replaced"
                f"\n  Remedy: publish it as the next version, --name {next_name}"
            )
        step = "published"
    elif present and not differing:
        step = "tag"
    elif present and head not in tags.values():
        raise UsageError(
            f"{repository} holds files that no tag keeps ({name_some(sorted(present))}); they "
            "would be lost\n  Remedy: choose another repository, or keep them first: "
            f"`hf repos tag create {repository} before-{tag} --repo-type dataset`"
        )
    return UploadPlan(
        repository=repository,
        url=url,
        tag=tag,
        public=public,
        files=files,
        step=step,
        head=head,
        obsolete=tuple(sorted(set(present) - {file.name for file in files})),
    )


def upload(folder: Path, plan: UploadPlan) -> Published:
    """Carry out a plan: one commit with everything, then the tag.

    Args:
        folder: What the plan was made for.
        plan: From `plan_upload`.

    Raises:
        HubError: If the hub refuses, or somebody else changed the repository meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415

    api, commit = connect(), plan.head
    with explained(plan.repository):
        if plan.step == "create":
            create_repository(api, plan.repository, public=plan.public)
            commit = api.dataset_info(plan.repository).sha
        if plan.step in ("create", "commit"):
            additions = [
                CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=folder / file.name)
                for file in plan.files
            ]
            deletions = [CommitOperationDelete(path_in_repo=name) for name in plan.obsolete]
            commit = api.create_commit(
                plan.repository,
                [*additions, *deletions],
                commit_message=f"Publish {plan.tag}",
                repo_type="dataset",
                parent_commit=commit,
            ).oid
        if plan.step != "published":
            api.create_tag(plan.repository, tag=plan.tag, revision=commit, repo_type="dataset")
        commit = api.dataset_info(plan.repository, revision=plan.tag).sha
    require_arrived(folder, find_contents(api, plan.repository, revision=plan.tag))
    return Published(url=plan.url, commit=str(commit))


def require_repository(repository: str) -> None:
    """Check the spelling of `user/name`.

    Raises:
        UsageError: If it is wrong.
    """
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(
            f"'{repository}' is no repository; write hf://USER/NAME, such as "
            "hf://alice/car-circle-mixed"
        )


def create_repository(api: HfApi, repository: str, *, public: bool) -> None:
    """Make a new dataset repository."""
    api.create_repo(repository, repo_type="dataset", private=not public)


def find_visibility(api: HfApi, repository: str) -> Literal["public", "private"] | None:
    """Who sees a repository; None if there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

    with explained(repository):
        try:
            return "private" if api.dataset_info(repository).private else "public"
        except RepositoryNotFoundError:
            return None


def require_visibility(repository: str, *, public: bool, found: str) -> None:
    """Refuse to show data to others than was asked for.

    Raises:
        UsageError: If an existing repository is public unasked, or private against the wish.
    """
    if found == "public" and not public:
        raise UsageError(
            f"{repository} is public: everybody would see the data\n  Remedy: say so with "
            "--public, or choose another repository"
        )
    if found == "private" and public:
        raise UsageError(
            f"{repository} is private\n  Remedy: leave --public out, or make it public in its "
            "settings on the hub first"
        )


def list_folder(folder: Path) -> tuple[ReleasedFile, ...]:
    """All files of a folder, named by their paths in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(ReleasedFile.of(path, name=path.relative_to(folder).as_posix()) for path in paths)


def find_contents(api: HfApi, repository: str, *, revision: str | None) -> dict[str, str]:
    """Hashes of all files of a repository: SHA-256 of large ones, git's own of small ones."""
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    with explained(repository):
        entries = list(
            api.list_repo_tree(repository, recursive=True, revision=revision, repo_type="dataset")
        )
    return {
        entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
        for entry in entries
        if isinstance(entry, RepoFile) and entry.path != KEPT_BY_THE_HUB
    }


def find_differing(folder: Path, present: Mapping[str, str]) -> list[str]:
    """Names that only a folder or only the hub has, or whose contents differ."""
    local = {file.name: file.sha256 for file in list_folder(folder)}

    def agree(name: str) -> bool:
        if name not in local or name not in present:
            return False
        return present[name] in (local[name], _git_hash(folder / name))

    return sorted(name for name in local.keys() | present.keys() if not agree(name))


def require_arrived(folder: Path, present: Mapping[str, str]) -> None:
    """Check that the hub has what was sent.

    Raises:
        HubError: If anything differs.
    """
    if differing := find_differing(folder, present):
        raise HubError(
            f"the hub has not what was sent ({name_some(differing)})",
            remedy="give the command again; if that does not help, look at the repository",
        )


def name_some(names: list[str]) -> str:
    """Up to three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _git_hash(path: Path) -> str:
    header = f"blob {path.stat().st_size}\0".encode()
    return hashlib.sha1(header + path.read_bytes(), usedforsecurity=False).hexdigest()
