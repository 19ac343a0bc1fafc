"""The catalogue: its numbers are those of the files, and the text around it stays."""

import dataclasses
import re

import pytest
from typer.testing import CliRunner

from safer_offline.cli.main import app
from safer_offline.datasets import save_dataset
from safer_offline.datasets.publishing.catalog import BEGIN, END, update_catalog
from safer_offline.errors import DataError


@pytest.fixture
def files(tmp_path, dataset):
    paths = []
    for quality in ("mixed", "safe"):
        metadata = dataclasses.replace(
            dataset.metadata, name=f"toy/{quality}-v0", build_seconds=90.0
        )
        paths.append(tmp_path / f"{quality}.h5")
        save_dataset(paths[-1], dataclasses.replace(dataset, metadata=metadata))
    return paths


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "DATASETS.md"
    path.write_text(f"# Mine\n\n{BEGIN}\nold numbers\n{END}\n\nafterword\n")
    return path


def test_rows_and_pictures_come_from_the_files(files, dataset, document, tmp_path):
    update_catalog(document, files, pictures=tmp_path / "pictures")
    text = document.read_text()
    assert text.startswith("# Mine\n\n")
    assert text.endswith("\n\nafterword\n")
    assert "old numbers" not in text
    row = next(line for line in text.splitlines() if "toy/safe-v0" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == [str(dataset.num_transitions), str(dataset.num_episodes)]
    assert cells[3].endswith(f"{dataset.episodes['return'].max():.0f}")
    assert cells[5].split(" / ")[1] == f"{(dataset.episodes['cost'] <= 10).mean():.0%}"
    assert cells[7] == "1.5 min"
    pictures = re.findall(r"\]\((pictures/\w+\.png)\)", text)
    assert pictures == ["pictures/mixed.png", "pictures/safe.png"]
    assert all((tmp_path / picture).stat().st_size > 5_000 for picture in pictures)


def test_writing_it_twice_changes_nothing(files, document, tmp_path):
    update_catalog(document, files, pictures=tmp_path)
    once = document.read_text()
    update_catalog(document, files, pictures=tmp_path)
    assert document.read_text() == once


def test_a_document_without_a_place_for_it_is_left_alone(files, tmp_path):
    document = tmp_path / "README.md"
    document.write_text("precious")
    with pytest.raises(DataError, match="no place for the catalogue"):
        update_catalog(document, files, pictures=tmp_path)
    assert document.read_text() == "precious"


def test_the_command(files, document, tmp_path):
    command = ["data", "catalog", *map(str, files), "--into", str(document)]
    result = CliRunner().invoke(app, [*command, "--pictures", str(tmp_path / "p")])
    assert result.exit_code == 0
    assert "Wrote 2 datasets" in result.stdout
