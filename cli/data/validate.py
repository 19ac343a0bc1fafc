"""`safer-offline data validate`: everything that is wrong with a dataset."""

from __future__ import annotations

import dataclasses
import json

import typer

from safer_offline.cli.data.arguments import AsJson, Source


def validate_command(
    source: Source,
    as_json: AsJson = False,
) -> None:
    """Find everything that is wrong with a dataset; exit code 1 if it cannot be used."""
    from safer_offline.datasets.loading import find_source_problems

    problems = find_source_problems(source)
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        found = [dataclasses.asdict(problem) for problem in problems]
        typer.echo(json.dumps({"path": source, "valid": not errors, "problems": found}, indent=2))
    else:
        for problem in problems:
            typer.echo(f"{problem.severity}: {problem.to_error(path=source)}")
        verdict = "cannot be used" if errors else "is sound"
        typer.echo(f"{source} {verdict}: {errors} errors, {len(problems) - errors} warnings")
    raise typer.Exit(1 if errors else 0)
