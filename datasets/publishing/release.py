"""What is published: a dataset with a name, a version, a licence, an author, and its files."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import Metadata
from safer_offline.errors import UsageError

# The files of a published folder beside the HDF5 file.
CARD = "README.md"
EPISODES = "episodes.parquet"
SCATTER = "episodes.png"
HISTOGRAMS = "histograms.png"
RECIPE = "recipe.toml"
CROISSANT = "croissant.json"
CHECKSUMS = "SHA256SUMS"

NAME = re.compile(r"(?P<base>(?:[-_A-Za-z0-9]{2,}/)*[-_A-Za-z0-9]+)-v(?P<version>[0-9]+)")
EXAMPLE = "bullet/car-circle/mixed-v1"


@dataclass(frozen=True, kw_only=True)
class License:
    """A licence as people, Hugging Face and Croissant call it."""

    title: str
    hub_id: str
    url: str


def _creative_commons(kind: str) -> License:
    return License(
        title=f"CC {kind.upper()} 4.0",
        hub_id=f"cc-{kind}-4.0",
        url=f"https://creativecommons.org/licenses/{kind}/4.0/",
    )


def _software(title: str, hub_id: str, spdx: str) -> License:
    return License(title=title, hub_id=hub_id, url=f"https://spdx.org/licenses/{spdx}.html")


LICENSES = {
    "cc0-1.0": License(
        title="CC0 1.0",
        hub_id="cc0-1.0",
        url="https://creativecommons.org/publicdomain/zero/1.0/",
    ),
    **{f"cc-{k}-4.0": _creative_commons(k) for k in ("by", "by-sa", "by-nc", "by-nc-sa", "by-nd")},
    "odc-by-1.0": _software("ODC-By 1.0", "odc-by", "ODC-By-1.0"),
    "odbl-1.0": _software("ODbL 1.0", "odbl", "ODbL-1.0"),
    "pddl-1.0": _software("PDDL 1.0", "pddl", "PDDL-1.0"),
    "cdla-permissive-2.0": _software(
        "CDLA Permissive 2.0", "cdla-permissive-2.0", "CDLA-Permissive-2.0"
    ),
    "apache-2.0": _software("Apache License 2.0", "apache-2.0", "Apache-2.0"),
    "mit": _software("MIT License", "mit", "MIT"),
    "bsd-3-clause": _software("BSD 3-Clause License", "bsd-3-clause", "BSD-3-Clause"),
}


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """One file of a published folder."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, *, name: str = "") -> ReleasedFile:
        """Measure and hash a file.

        Args:
            path: The file.
            name: What it is called in the folder; empty takes its own name.
        """
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return cls(name=name or path.name, size=path.stat().st_size, sha256=digest.hexdigest())

    @property
    def readable_size(self) -> str:
        """Such as `22.1 MB`."""
        return readable_size(self.size)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A dataset about to be published.

    Attributes:
        dataset: What is published; its metadata name it, its licence and its author.
        data: The HDF5 file.
        files: The other files that its card refers to.
        repository: Where on the Hugging Face hub it goes, `user/name`; empty for a plain folder.
        date: When it was made; a year for citations.
    """

    dataset: OfflineDataset
    data: ReleasedFile
    files: tuple[ReleasedFile, ...] = ()
    repository: str = ""
    date: str

    @property
    def metadata(self) -> Metadata:
        """What the dataset says about itself."""
        return self.dataset.metadata

    @property
    def name(self) -> str:
        """The id with the version, `bullet/car-circle/mixed-v1`."""
        return self.metadata.name

    @property
    def version(self) -> int:
        """The number that the name ends in."""
        return version_of(self.name)

    @property
    def tag(self) -> str:
        """What the hub calls this version."""
        return f"v{self.version}"

    @property
    def title(self) -> str:
        """For people: `Car-Circle mixed`."""
        environment, quality = ["", *_match(self.name)["base"].split("/")][-2:]
        words = [part.capitalize() for part in environment.split("-")]
        return f"{'-'.join(words)} {quality}".strip()

    @property
    def summary(self) -> str:
        """What it is, in a sentence."""
        if self.metadata.description:
            return self.metadata.description
        where = f" of {self.metadata.env_id}" if self.metadata.env_id else ""
        return (
            f"{self.dataset.num_transitions:,} transitions in {self.dataset.num_episodes:,} "
            f"episodes{where}, with rewards and costs, for offline safe reinforcement learning."
        )

    @property
    def license(self) -> License | None:
        """The licence, if it is one we know."""
        return LICENSES.get(_slug(self.metadata.license))

    @property
    def license_title(self) -> str:
        """The licence as people call it."""
        return self.license.title if self.license else self.metadata.license

    @property
    def citation(self) -> str:
        """A BibTeX entry."""
        key = re.sub(r"\W+", "_", self.name)
        entries = {
            "author": f"{{{self.metadata.author}}}",
            "title": f"{self.title}: a dataset for offline safe reinforcement learning",
            "year": self.date[:4],
            "version": str(self.version),
            "note": f"SHA-256 of the content: {self.metadata.content_sha256 or self.data.sha256}",
        }
        if self.repository:
            entries["url"] = f"https://huggingface.co/datasets/{self.repository}"
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in entries.items())
        return f"@misc{{{key},\n{lines}\n}}"


def complete_metadata(
    metadata: Metadata, *, name: str = "", license: str = "", author: str = ""
) -> Metadata:
    """Metadata that say who may do what with which dataset.

    Args:
        metadata: As in the file.
        name: Overrides the name in the file; likewise the other two.
        license: An SPDX identifier, or any text.
        author: Who answers for the data.

    Raises:
        UsageError: If one of the three is not known, or the name is malformed.
    """
    metadata = dataclasses.replace(
        metadata,
        name=name or metadata.name,
        license=license or metadata.license,
        author=author or metadata.author,
    )
    needed = {
        "name": EXAMPLE,
        "license": "cc-by-4.0",
        "author": '"Your Name"',
    }
    missing = {entry: example for entry, example in needed.items() if not getattr(metadata, entry)}
    if missing:
        raise UsageError(
            f"a published dataset must state its {' and '.join(missing)}, and the file does not"
            "\n  Remedy: add "
            + " ".join(f"--{entry} {example}" for entry, example in missing.items())
        )
    _match(metadata.name)
    return metadata


def version_of(name: str) -> int:
    """The version that a dataset's name ends in."""
    return int(_match(name)["version"])


def next_version(name: str) -> str:
    """The name of the version after this one."""
    return f"{_match(name)['base']}-v{version_of(name) + 1}"


def date_of(metadata: Metadata, path: Path) -> str:
    """The day a dataset was made, or else its file; not today, so that a rebuild is the same."""
    try:
        made = datetime.fromisoformat(metadata.created_at)
    except ValueError:
        made = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    return made.date().isoformat()


def readable_size(size: float) -> str:
    """Bytes for people: `22.1 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _match(name: str) -> re.Match[str]:
    match = NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"'{name}' is no name of a dataset. A name is made of parts joined by '/', each of "
            "two or more letters, digits, '-' and '_', and ends in its version: " + EXAMPLE
        )
    return match


def _slug(text: str) -> str:
    return re.sub(r"[\s_]+", "-", text.strip().lower())
