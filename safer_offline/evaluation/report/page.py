"""The page: first the verdicts, then everything behind them, run after run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safer_offline.errors import UsageError
from safer_offline.evaluation.report.comparing import compared, comparisons
from safer_offline.evaluation.report.documents import RunFiles, read_run
from safer_offline.evaluation.report.evaluations import evaluation_section
from safer_offline.evaluation.report.foreseen import foresight_section
from safer_offline.evaluation.report.markup import Html, join, tag
from safer_offline.evaluation.report.prose import bullets, paragraph
from safer_offline.evaluation.report.sentences import (
    STATUS_WORDS,
    contradictions,
    strongest_first,
    verdict_of,
)
from safer_offline.evaluation.report.style import SCRIPT, STYLE, content_policy
from safer_offline.evaluation.report.trainings import dataset_section, training_section
from safer_offline.evaluation.trainings import short_names
from safer_offline.files import make_folder, require_writable, write_atomically
from safer_offline.machine import installed_versions

FILE = "report.html"


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write one page about runs that shows all that lies in their folders, and works offline.

    It holds verdicts, tables, figures, curves of the training, the dataset, and the commands that
    make the numbers again. What is missing or damaged is said in it. The same files give the same
    page.

    Args:
        runs: One run directory or several, or folders with results of an evaluation.
        out: The page; None puts `report.html` into the (first) run. One that is there is replaced.

    Returns:
        Where it lies.

    Raises:
        UsageError: If a run is none, or the page has another ending than .html.
        OutputError: If it cannot be written.
    """
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    if not given:
        raise UsageError("a report needs one run at least")
    read = {run.path.resolve(): run for run in map(read_run, given)}
    path = next(iter(read.values())).path / FILE if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path}: a report is a page, so give it a name that ends in .html")
    require_writable(path)
    content = page(list(read.values())).encode()
    make_folder(path.parent)
    write_atomically(path, content)
    return path


def page(runs: Sequence[RunFiles]) -> str:
    """The page as text.

    Args:
        runs: What to tell of, at least one.
    """
    names = short_names([str(run.path) for run in runs])
    named = [(names[str(run.path)] or "run", run) for run in runs]
    several = len(runs) > 1
    title = "Report: " + ", ".join(name for name, _ in named)
    found = [one for run in runs for one in run.comparisons]
    body = join(
        tag("h1", title),
        *(_verdict(name, run, anchor=f"run-{n}") for n, (name, run) in enumerate(named)),
        compared(runs) if several else None,
        comparisons(found) if several else None,
        *(_run(name, run, anchor=f"run-{n}") for n, (name, run) in enumerate(named)),
        None if several else comparisons(found),
        _footer(),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=content_policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    main = tag("main", body)
    script = tag("script", Html(SCRIPT))
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', main, script), lang='en')}\n"


def _verdict(name: str, run: RunFiles, *, anchor: str) -> Html:
    """What the page says first of a run."""
    link = tag("a", name, href=f"#{anchor}")
    ordered = strongest_first(run)
    if not ordered:
        text = tag("p", link, ": ", tag("span", "not evaluated", class_="badge"), ".")
        return tag("div", text, class_="verdict unknown")
    verdict, others = verdict_of(ordered[0]), contradictions(run)
    words = STATUS_WORDS[verdict.status] + (", but broken in another evaluation" if others else "")
    return tag(
        "div",
        tag("p", link, ": ", tag("span", words, class_="badge")),
        paragraph(verdict.finding, verdict.reach),
        *map(paragraph, others),
        class_=f"verdict {'broken' if others else verdict.status}",
    )


def _run(name: str, run: RunFiles, *, anchor: str) -> Html:
    ordered = strongest_first(run)
    return tag(
        "section",
        tag("h2", name, id=anchor),
        paragraph(f"Read from {run.path}.", kind="soft"),
        tag("h3", "What is missing, or not as it should be") if run.notes else None,
        bullets(run.notes),
        tag("h3", "Evaluations") if ordered else None,
        *(evaluation_section(run, one, opened=one is ordered[0]) for one in ordered),
        foresight_section(run),
        dataset_section(run) if run.training else None,
        training_section(run),
    )


def _footer() -> Html:
    versions = installed_versions(["safer-offline"])
    made_by = " ".join(["safer-offline", *versions.values()])
    return tag(
        "footer",
        paragraph(
            f"Made by {made_by} from the files named above; the page asks for no other file and no "
            "network. Every interval and bound is computed from the episodes of the evaluation; "
            "the files beside it (evaluation.csv, episodes.csv) hold the numbers themselves.",
            kind="soft",
        ),
    )
