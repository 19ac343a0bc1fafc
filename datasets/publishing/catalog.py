"""The catalogue of datasets: a table and pictures, made from the files alone.

It goes between two marks of a Markdown document, so that the text around it can be written by
hand and the numbers cannot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.description.plots import plot_overview
from safer_offline.datasets.description.summary import LIMITS, DatasetSummary, Spread, summarize
from safer_offline.datasets.storage.hdf5 import read_file
from safer_offline.errors import DataError
from safer_offline.files import write_atomically

BEGIN = "<!-- catalog: begin; written by `safer-offline data catalog`, do not edit -->"
END = "<!-- catalog: end -->"


@dataclass(frozen=True)
class CatalogEntry:
    """What the catalogue says about one dataset.

    Attributes:
        name: Of the dataset, or of its file.
        summary: Its numbers.
        build_seconds: How long it took to collect.
    """

    name: str
    summary: DatasetSummary
    build_seconds: float | None


def update_catalog(document: str | Path, files: Sequence[str | Path], *, pictures: Path) -> None:
    """Write the catalogue of some dataset files into a document.

    Args:
        document: A Markdown file that holds the two marks `BEGIN` and `END`; what lies between
            them is replaced.
        files: The datasets, in the order of the table.
        pictures: Folder for the pictures, one a quality (the last part of a dataset's name).

    Raises:
        DataError: If the marks are missing, or a dataset is unsound; nothing is written then.
    """
    document = Path(document)
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise DataError(
            "there is no place for the catalogue",
            path=document,
            remedy=f"put these two lines where it belongs:\n{BEGIN}\n{END}",
        )
    entries: list[CatalogEntry] = []
    shown: dict[str, list[OfflineDataset]] = {}
    for file in files:
        dataset = read_file(file)
        name = dataset.metadata.name or Path(file).stem
        entries.append(CatalogEntry(name, summarize(dataset), dataset.metadata.build_seconds))
        quality = re.sub(r".*/|-v\d+$", "", name)
        shown.setdefault(quality, []).append(dataset)
    lines = [BEGIN, "", *_table(entries)]
    for quality, datasets in shown.items():
        picture = pictures / f"{quality}.png"
        plot_overview(datasets, picture)
        link = Path(os.path.relpath(picture, document.parent)).as_posix()
        lines += ["", f"![Return against cost of every episode, {quality}]({link})"]
    content = "\n".join([*lines, "", END])
    write_atomically(document, (head + content + tail).encode())


def _table(entries: Sequence[CatalogEntry]) -> list[str]:
    limits = " / ".join(f"{limit:g}" for limit in LIMITS)
    return [
        "| dataset | transitions | episodes | return 25 / 50 / 75 / 100 % | cost 50 / 75 / 100 % "
        f"| safe at {limits} | content hash | built in |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(entry) for entry in entries),
    ]


def _row(entry: CatalogEntry) -> str:
    summary = entry.summary
    shares = {safe.cost_limit: f"{safe.share:.0%}" for safe in summary.safe}
    took = "" if entry.build_seconds is None else f"{entry.build_seconds / 60:.1f} min"
    cells = (
        f"`{entry.name}`",
        f"{summary.num_transitions:,}",
        f"{summary.num_episodes:,}",
        _quantiles(summary.returns, lowest="quarter"),
        _quantiles(summary.costs, lowest="median"),
        " / ".join(shares[limit] for limit in LIMITS),
        f"`{summary.content_sha256[:16]}…`",
        took,
    )
    return f"| {' | '.join(cells)} |"


def _quantiles(spread: Spread, *, lowest: str) -> str:
    names = ("quarter", "median", "three_quarters", "maximum")
    return " / ".join(f"{getattr(spread, name):.0f}" for name in names[names.index(lowest) :])
