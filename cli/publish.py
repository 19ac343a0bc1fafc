"""`safer-offline publish`: from a dataset file to a folder, a repository, or Minari's remote."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from safer_offline.datasets.publishing.hub import Published, UploadPlan


def publish_command(
    file: Annotated[Path, typer.Argument(help="The dataset, an HDF5 file.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            "-t",
            metavar="DIR|hf://USER/NAME|minari://USER",
            help="A folder to build, a repository on the Hugging Face hub, or a Minari remote.",
        ),
    ],
    name: Annotated[
        str,
        typer.Option(help="Name with version, such as bullet/car-circle/mixed-v1 (default: file)."),
    ] = "",
    license: Annotated[
        str, typer.Option(help="SPDX identifier, such as cc-by-4.0 (default: the file's).")
    ] = "",
    author: Annotated[
        str, typer.Option(help="Who answers for the data (default: the file's).")
    ] = "",
    upload: Annotated[
        bool, typer.Option("--upload", help="Really send it; without this, only say what would be.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; repositories are private else.")
    ] = False,
) -> None:
    """Give a dataset a card, descriptions for machines and checksums, and publish it.

    Nothing leaves this machine without --upload, and saying what would be sent needs no account.
    The token is taken from HF_TOKEN or from `hf auth login`. A published version is never replaced.
    """
    from safer_offline.errors import UsageError

    scheme, separator, place = to.partition("://")
    if not separator:
        if upload or public:
            raise UsageError("--upload and --public are for hf:// and minari://, not for a folder")
        _publish_folder(file, Path(to), name=name, license=license, author=author)
    elif scheme == "hf":
        _publish_to_hub(
            file, place, name=name, license=license, author=author, public=public, send=upload
        )
    elif scheme == "minari":
        _publish_to_minari(
            file, place, name=name, license=license, author=author, public=public, send=upload
        )
    else:
        raise UsageError(
            f"'{scheme}://' is not known; publish to a folder, hf://USER/NAME or minari://USER"
        )


def _publish_folder(file: Path, folder: Path, *, name: str, license: str, author: str) -> None:
    from safer_offline.datasets.publishing.folder import build_folder
    from safer_offline.datasets.publishing.hub import list_folder

    release = build_folder(file, folder, name=name, license=license, author=author)
    for part in list_folder(folder):
        typer.echo(f"  {part.name:40s} {part.readable_size:>10s}")
    typer.echo(
        f"Wrote {folder}: {release.title} {release.tag}. Read README.md before you share it."
    )


def _publish_to_hub(
    file: Path, repository: str, *, name: str, license: str, author: str, public: bool, send: bool
) -> None:
    from safer_offline.datasets.publishing import hub
    from safer_offline.datasets.publishing.folder import build_folder
    from safer_offline.datasets.publishing.hub_connection import has_token
    from safer_offline.datasets.publishing.release import next_version

    hub.require_repository(repository)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "release"
        release = build_folder(
            file, folder, name=name, license=license, author=author, repository=repository
        )
        _show(folder, f"hf://{repository} as {release.tag}", public=public)
        if not (send or has_token()):
            _conclude_unasked(repository)
            return
        plan = hub.plan_upload(
            folder,
            repository,
            release.tag,
            public=public,
            next_name=next_version(release.name),
        )
        typer.echo(plan.outlook)
        _conclude(plan, hub.upload(folder, plan) if send else None)


def _publish_to_minari(
    file: Path, user: str, *, name: str, license: str, author: str, public: bool, send: bool
) -> None:
    import dataclasses

    from safer_offline.datasets import load_dataset
    from safer_offline.datasets.publishing import minari_remote
    from safer_offline.datasets.publishing.hub_connection import has_token
    from safer_offline.datasets.publishing.release import complete_metadata

    user = minari_remote.resolve_user(user)
    dataset = load_dataset(file)
    metadata = complete_metadata(dataset.metadata, name=name, license=license, author=author)
    dataset = dataclasses.replace(dataset, metadata=metadata)
    with tempfile.TemporaryDirectory() as scratch:
        folder = minari_remote.export(dataset, Path(scratch))
        _show(folder, f"minari://{user} as {metadata.name}", public=public)
        if not (send or has_token()):
            _conclude_unasked(f"{user}/{metadata.name.split('/')[0]}")
            return
        plan = minari_remote.plan_upload(folder, metadata.name, user, public=public)
        typer.echo(plan.outlook)
        _conclude(plan, minari_remote.upload(folder, metadata.name, plan) if send else None)
    typer.echo(f"To read it: MINARI_REMOTE=hf://{user} minari download {metadata.name}")


def _show(folder: Path, target: str, *, public: bool) -> None:
    """List what is to be sent before the network is asked, so that it is seen without one."""
    from safer_offline.datasets.publishing.hub import list_folder
    from safer_offline.datasets.publishing.release import readable_size

    files = list_folder(folder)
    typer.echo(f"To {target}, {'for everybody to see' if public else 'private'}:")
    for part in files:
        typer.echo(f"  {part.name:40s} {part.readable_size:>10s}")
    typer.echo(f"  {'in all':40s} {readable_size(sum(part.size for part in files)):>10s}")


def _conclude_unasked(repository: str) -> None:
    """The end of a dry run without a token: nobody needs an account to see what would be sent."""
    from safer_offline.datasets.publishing.hub_connection import LOGIN

    typer.echo(
        f"The hub was not asked what {repository} holds already, for that takes a token: {LOGIN}.\n"
        "Nothing was sent. Add --upload to do it."
    )


def _conclude(plan: UploadPlan, published: Published | None) -> None:
    if published is None:
        typer.echo("Nothing was sent. Add --upload to do it.")
    else:
        typer.echo(f"Published {plan.url}\nCommit {published.commit}")
