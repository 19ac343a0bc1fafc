"""`safer-offline data validate`: everything that is wrong with a file."""

from __future__ import annotations

import dataclasses
import json

import typer

from safer_offline.cli.data.arguments import AsJson, File


def validate_command(
    file: File,
    as_json: AsJson = False,
) -> None:
    """Find everything that is wrong with a dataset file; exit code 1 if it cannot be used."""
    from safer_offline.datasets.storage import find_file_problems

    problems = find_file_problems(file)
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        found = [dataclasses.asdict(problem) for problem in problems]
        typer.echo(
            json.dumps({"path": str(file), "valid": not errors, "problems": found}, indent=2)
        )
    else:
        for problem in problems:
            typer.echo(f"{problem.severity}: {problem.to_error(path=file)}")
        verdict = "cannot be used" if errors else "is sound"
        typer.echo(f"{file} {verdict}: {errors} errors, {len(problems) - errors} warnings")
    raise typer.Exit(1 if errors else 0)
