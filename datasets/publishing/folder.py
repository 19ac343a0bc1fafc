"""A folder with everything that a published dataset needs: data, card, descriptions, checksums."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.description.plots import plot_episodes, save_figure
from safer_offline.datasets.publishing.cards import render_card
from safer_offline.datasets.publishing.croissant import render_croissant
from safer_offline.datasets.publishing.release import (
    CARD,
    CHECKSUMS,
    CROISSANT,
    EPISODES,
    HISTOGRAMS,
    RECIPE,
    SCATTER,
    Release,
    ReleasedFile,
    complete_metadata,
    date_of,
)
from safer_offline.datasets.storage.hdf5 import read_file
from safer_offline.errors import DataError, SaferOfflineError, UsageError
from safer_offline.files import require_writable, writing

EXTRA = 'pip install "safer-offline[publish]"'


class MissingPackageError(SaferOfflineError):
    """Publishing was asked for on a machine without the packages for it."""


def build_folder(
    source: str | Path,
    folder: str | Path,
    *,
    name: str = "",
    license: str = "",
    author: str = "",
    repository: str = "",
) -> Release:
    """Build the folder of a dataset, whole or not at all.

    The same file gives the same folder, so that an interrupted upload can be repeated.

    Args:
        source: A dataset file. It is checked first.
        folder: Where to; it must not exist.
        name: What to call the dataset, such as `bullet/car-circle/mixed-v1`; empty takes what the
            file says, as for the next two.
        license: An SPDX identifier, such as `cc-by-4.0`.
        author: Who answers for the data.
        repository: The Hugging Face repository `user/name` it will go to, for links in the card.

    Returns:
        What was built.

    Raises:
        UsageError: If the folder exists, or name, licence or author are missing.
        DataError: If the dataset is damaged or breaks the format, or the disk is full.
        MissingPackageError: If PyArrow is not installed.
    """
    source, folder = Path(source), Path(folder)
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists already and was left as it is; name another folder")
    require_parquet()
    require_writable(folder)
    dataset = read_file(source)
    metadata = complete_metadata(dataset.metadata, name=name, license=license, author=author)
    dataset = dataclasses.replace(dataset, metadata=metadata)
    with writing(folder, what="the folder"), _whole_folder(folder) as draft:
        return _fill(draft, dataset, source=source, repository=repository)


def require_parquet() -> None:
    """Check for PyArrow before any work is done.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            f"the table of episodes is written with PyArrow, which is missing\n  Remedy: {EXTRA}"
        ) from error


def _fill(draft: Path, dataset: OfflineDataset, *, source: Path, repository: str) -> Release:
    metadata = dataset.metadata
    before = ReleasedFile.of(source)
    data = draft / f"{metadata.name.replace('/', '-')}.h5"
    shutil.copyfile(source, data)
    release = Release(
        dataset=dataset,
        data=ReleasedFile.of(data),
        repository=repository,
        date=date_of(metadata, source),
    )
    if release.data.sha256 != before.sha256:
        raise DataError(
            "the file changed while it was copied", path=source, remedy="wait, then publish again"
        )
    # The number of an episode becomes a column: as an index, viewers would not show it.
    episodes = dataset.episodes.reset_index()
    episodes.to_parquet(draft / EPISODES, index=False)
    plot_episodes(dataset, draft / SCATTER)
    _plot_histograms(dataset.episodes, draft / HISTOGRAMS)
    if metadata.recipe:
        (draft / RECIPE).write_text(metadata.recipe, encoding="utf-8")
    others = sorted(path for path in draft.iterdir() if path != data)
    release = dataclasses.replace(release, files=tuple(map(ReleasedFile.of, others)))
    (draft / CARD).write_text(render_card(release), encoding="utf-8")
    (draft / CROISSANT).write_text(render_croissant(release, episodes), encoding="utf-8")
    sums = [ReleasedFile.of(path) for path in sorted(draft.iterdir())]
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in sums)
    (draft / CHECKSUMS).write_text(lines, encoding="utf-8")
    return release


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the final one, which takes its name when nothing went wrong."""
    draft = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        if folder.exists():  # made by somebody else meanwhile
            raise UsageError(f"{folder} exists already and was left as it is; name another folder")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _plot_histograms(episodes: pd.DataFrame, path: Path) -> None:
    """Draw how returns, costs and, where they differ, lengths of episodes are spread."""
    colors = {"return": "tab:blue", "cost": "tab:red", "length": "tab:gray"}
    if episodes["length"].nunique() == 1:
        del colors["length"]
    figure = Figure(figsize=(3.5 * len(colors), 2.8), layout="constrained")
    places = figure.subplots(1, len(colors))
    for axes, (name, color) in zip(places, colors.items(), strict=True):
        axes.hist(episodes[name], bins=40, color=color, alpha=0.8)
        axes.set_xlabel(f"{name} of the episode")
        axes.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel("episodes")
    save_figure(figure, path, dpi=150)
