"""`safer-offline data split`: deal the episodes out to training, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safer_offline.cli.data.arguments import AsJson, Source
from safer_offline.cli.data.outputs import Overwrite, Seed, report
from safer_offline.errors import UsageError

_USUAL_NAMES = {2: "train,test", 3: "train,validation,test"}


def split_command(
    source: Source,
    fractions: Annotated[
        str,
        typer.Option(help="Share of the episodes of each part; they add up to 1."),
    ] = "0.8,0.1,0.1",
    names: Annotated[
        str | None,
        typer.Option(
            help="What to call the parts (default: train,validation,test; of two, train,test).",
            show_default=False,
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out-dir",
            "-o",
            help="Folder for car_circle.train.h5 and so on (default: beside the source).",
            show_default=False,
        ),
    ] = None,
    stratify: Annotated[
        bool,
        typer.Option(
            help="Give each part its share of every level of cost, so that all have safe and "
            "unsafe episodes; or deal without looking."
        ),
    ] = True,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Split a dataset by episodes: every episode goes, whole, to exactly one part.

    All parts are written or none.
    """
    from safer_offline.datasets.loading import default_run_name, load_dataset
    from safer_offline.datasets.storage.provenance import require_new_files, save_derived
    from safer_offline.datasets.transforms.episodes import split_dataset

    shares = _parse_fractions(fractions)
    beside = Path(source).parent if Path(source).exists() else Path()
    folder = beside if out_dir is None else out_dir
    stem = default_run_name(source)
    parts = [folder / f"{stem}.{name}.h5" for name in _parse_names(names, len(shares))]
    require_new_files(parts, inputs=[Path(source)], overwrite=overwrite)
    dataset = load_dataset(source)
    datasets = split_dataset(dataset, shares, seed=seed, stratify=stratify)
    written = save_derived(dict(zip(parts, datasets, strict=True)), overwrite=overwrite)
    report(written, sources=[dataset], as_json=as_json, seed=seed, stratified=stratify)


def _parse_fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--fractions: '{text}' is no list of numbers separated by commas, such as 0.8,0.1,0.1"
        ) from None


def _parse_names(text: str | None, number: int) -> list[str]:
    if text is None:
        text = _USUAL_NAMES.get(number) or ",".join(f"part{place + 1}" for place in range(number))
    names = [name.strip() for name in text.split(",")]
    if len(names) != number:
        raise UsageError(f"--names has {len(names)} names for {number} fractions")
    for name in names:
        if not name or Path(name).name != name or names.count(name) > 1:
            raise UsageError(
                f"--names: '{name}' will not do; names are different and without slashes, for "
                "they become part of file names"
            )
    return names
