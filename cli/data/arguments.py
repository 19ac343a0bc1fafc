"""Arguments and options that several `data` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path, typer.Argument(help="A dataset file, such as car_circle.h5.", show_default=False)
]
Source = Annotated[
    str,
    typer.Argument(
        help="A dataset file (car_circle.h5), or a Minari id (bullet/car-circle/mixed-v1).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
