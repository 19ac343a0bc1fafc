"""From a file to a folder, and from there to a hub: a stand-in on localhost."""

import dataclasses
import json
import re
import subprocess
import sys

import h5py
import minari
import pandas as pd
import pytest
from hub import TOKEN, Hub
from typer.testing import CliRunner

huggingface_hub = pytest.importorskip("huggingface_hub")

from huggingface_hub import constants  # noqa: E402

from safer_offline.cli.main import app  # noqa: E402
from safer_offline.datasets import load_dataset, save_dataset  # noqa: E402
from safer_offline.datasets.publishing import folder as publishing  # noqa: E402
from safer_offline.datasets.publishing.folder import MissingPackageError, build_folder  # noqa: E402
from safer_offline.datasets.publishing.hub_connection import HubError  # noqa: E402
from safer_offline.errors import DataError, UsageError  # noqa: E402

NAME = "bullet/car-circle/mixed-v0"
FILE = "bullet-car-circle-mixed-v0.h5"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.*")


@pytest.fixture
def file(tmp_path, dataset):
    metadata = dataclasses.replace(
        dataset.metadata, name=NAME, license="cc-by-4.0", recipe="transitions = 19\n"
    )
    path = tmp_path / "data.h5"
    save_dataset(path, dataclasses.replace(dataset, metadata=metadata))
    return path


@pytest.fixture
def other_file(tmp_path, make_arrays, dataset, file):
    other = dataset.from_arrays(make_arrays(seed=1), metadata=load_dataset(file).metadata)
    save_dataset(tmp_path / "other.h5", other)
    return tmp_path / "other.h5"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Drawing takes half of the time, and tests of the folder look at the pictures.
        for draw in ("plot_episodes", "_plot_histograms"):
            monkeypatch.setattr(publishing, draw, lambda _, path: path.write_bytes(b"drawn"))
        monkeypatch.delenv("MINARI_REMOTE", raising=False)
        yield server
        server.shutdown()


def publish(*arguments):
    result = CliRunner().invoke(app, ["publish", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


# --- a folder


def test_the_folder_is_complete_and_sound(file, tmp_path):
    folder = tmp_path / "public" / "car"
    output = publish(file, "--to", folder)

    assert "Car-Circle mixed v0" in output
    assert {path.name for path in folder.iterdir()} == {
        FILE,
        "README.md",
        "SHA256SUMS",
        "croissant.json",
        "episodes.parquet",
        "episodes.png",
        "histograms.png",
        "recipe.toml",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["car"]
    assert (folder / FILE).read_bytes() == file.read_bytes()
    assert (folder / "recipe.toml").read_text() == "transitions = 19\n"
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 0
    for name in ("episodes.png", "histograms.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_card_refers_to_what_is_there(file, tmp_path):
    build_folder(file, tmp_path / "car")

    card = huggingface_hub.DatasetCard.load(tmp_path / "car" / "README.md")
    (config,) = card.data.to_dict()["configs"]
    linked = [path for path in re.findall(r"\]\(([^)]+)\)", card.text) if "://" not in path]
    for path in [config["data_files"][0]["path"], *linked]:
        assert (tmp_path / "car" / path).is_file()
    for name, sha256 in re.findall(r"\| `([\w.-]+)` \| [\d.]+ \w+ \| `(\w{64})` \|", card.text):
        assert f"{sha256}  {name}\n" in (tmp_path / "car" / "SHA256SUMS").read_text()


def test_the_table_is_the_one_of_the_dataset(file, tmp_path):
    build_folder(file, tmp_path / "car")

    table = pd.read_parquet(tmp_path / "car" / "episodes.parquet")
    expected = load_dataset(file).episodes
    pd.testing.assert_frame_equal(table, expected.reset_index(), check_dtype=True)


def test_croissant_reads_the_episodes(file, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    build_folder(file, tmp_path / "car")

    read = mlcroissant.Dataset(jsonld=tmp_path / "car" / "croissant.json")

    assert not read.metadata.ctx.issues.errors
    assert not read.metadata.ctx.issues.warnings
    records = list(read.records("episodes"))
    returns = load_dataset(file).episodes["return"]
    assert [record["episodes/return"] for record in records] == pytest.approx(list(returns))


def test_the_snippets_run(file, tmp_path, monkeypatch):
    build_folder(file, tmp_path / "car")
    monkeypatch.chdir(tmp_path / "car")
    text = (tmp_path / "car" / "README.md").read_text()

    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    # DSRL and D4RL are no dependencies of ours.
    ours = [code for code in snippets if "import dsrl" not in code and "d4rl" not in code]
    assert len(ours) == 3
    for code in ours:
        exec(code, {})


def test_the_same_file_gives_the_same_folder(file, tmp_path):
    for name in ("a", "b"):
        build_folder(file, tmp_path / name)

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_existing_folder_is_left_alone(file, tmp_path):
    (tmp_path / "car").mkdir()

    with pytest.raises(UsageError, match="exists already"):
        build_folder(file, tmp_path / "car")
    assert not list((tmp_path / "car").iterdir())


def test_bad_data_are_not_published(file, tmp_path):
    with h5py.File(file, "r+") as data:
        data["costs"][3] = -1

    with pytest.raises(DataError, match="costs"):
        build_folder(file, tmp_path / "car")
    assert not (tmp_path / "car").exists()


def test_nothing_is_left_of_a_failure(file, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("safer_offline.datasets.publishing.folder.render_card", fail)
    with pytest.raises(DataError, match="no space left"):
        build_folder(file, tmp_path / "public" / "car")
    assert not list((tmp_path / "public").iterdir())


def test_name_licence_and_author_are_needed(dataset, tmp_path):
    bare = dataclasses.replace(dataset.metadata, author="")
    save_dataset(tmp_path / "bare.h5", dataclasses.replace(dataset, metadata=bare))

    with pytest.raises(UsageError, match="name and license and author") as caught:
        build_folder(tmp_path / "bare.h5", tmp_path / "car")
    assert '--license cc-by-4.0 --author "Your Name"' in str(caught.value)
    with pytest.raises(UsageError, match="no name of a dataset"):
        build_folder(tmp_path / "bare.h5", tmp_path / "car", name="x", license="mit", author="I")

    publish(
        tmp_path / "bare.h5", "-t", tmp_path / "car", "--name", "own-v2", "--license", "mit",
        "--author", "Ünal",
    )  # fmt: skip
    assert (tmp_path / "car" / "own-v2.h5").is_file()
    assert "Ünal" in (tmp_path / "car" / "README.md").read_text(encoding="utf-8")


def test_missing_pyarrow_is_explained(file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(MissingPackageError, match=r"safer-offline\[publish\]"):
        build_folder(file, tmp_path / "car")


def test_unknown_places(file):
    with pytest.raises(UsageError, match=r"s3://"):
        publish(file, "--to", "s3://bucket/x")
    with pytest.raises(UsageError, match="not for a folder"):
        publish(file, "--to", "folder", "--upload")
    with pytest.raises(UsageError, match="hf://USER/NAME"):
        publish(file, "--to", "hf://alice")


# --- the hub


def test_a_dry_run_changes_nothing(file, hub):
    output = publish(file, "--to", "hf://alice/car")

    assert f"hf://alice/car as {'v0'}, private:" in output
    for text in (FILE, "croissant.json", "would be created, private", "Nothing was sent"):
        assert text in output
    assert hub.requests
    assert hub.changes == []
    assert not hub.repositories


def test_what_arrives_is_what_was_built(file, hub, tmp_path):
    output = publish(file, "--to", "hf://alice/car", "--upload")

    repository = hub.repositories["alice/car"]
    assert repository.private
    assert repository.tags == {"v0": repository.head}
    assert f"{hub.url}/datasets/alice/car/tree/v0" in output
    assert repository.head in output
    build_folder(file, tmp_path / "car", repository="alice/car")
    files = repository.commits[repository.head]
    assert files.keys() == {".gitattributes", *(path.name for path in (tmp_path / "car").iterdir())}
    for path in (tmp_path / "car").iterdir():
        assert files[path.name] == path.read_bytes()
    assert files[FILE] == file.read_bytes()
    assert 'revision="v0"' in files["README.md"].decode()
    urls = [part["contentUrl"] for part in json.loads(files["croissant.json"])["distribution"]]
    assert urls[0] == f"https://huggingface.co/datasets/alice/car/resolve/v0/{FILE}"


def test_public_only_when_asked(file, hub):
    publish(file, "--to", "hf://alice/car", "--upload", "--public")
    assert not hub.repositories["alice/car"].private

    with pytest.raises(UsageError, match="alice/car is public"):
        publish(file, "--to", "hf://alice/car", "--upload")
    hub.add("alice/hidden")
    with pytest.raises(UsageError, match="alice/hidden is private"):
        publish(file, "--to", "hf://alice/hidden", "--upload", "--public")


def test_publishing_twice_is_no_second_version(file, hub):
    publish(file, "--to", "hf://alice/car", "--upload")
    hub.requests.clear()

    output = publish(file, "--to", "hf://alice/car", "--upload")

    assert "nothing is left to do" in output
    assert hub.changes == []


def test_a_version_is_never_replaced(file, other_file, hub):
    publish(file, "--to", "hf://alice/car", "--upload")
    hub.requests.clear()

    with pytest.raises(UsageError, match="v0 already, with another content") as caught:
        publish(other_file, "--to", "hf://alice/car", "--upload")
    assert "--name bullet/car-circle/mixed-v1" in str(caught.value)
    assert hub.changes == []


def test_the_next_version_keeps_the_one_before(file, other_file, hub):
    publish(file, "--to", "hf://alice/car", "--upload")
    publish(
        other_file, "--to", "hf://alice/car", "--upload", "--name", "bullet/car-circle/mixed-v1"
    )

    repository = hub.repositories["alice/car"]
    assert repository.tags.keys() == {"v0", "v1"}
    assert repository.commits[repository.tags["v0"]][FILE] == file.read_bytes()
    latest = repository.commits[repository.head]
    assert latest["bullet-car-circle-mixed-v1.h5"] == other_file.read_bytes()
    assert FILE not in latest


def test_files_that_no_tag_keeps_are_not_overwritten(file, hub):
    hub.add("alice/car", files={"README.md": b"by hand"})

    with pytest.raises(UsageError, match=r"no tag keeps \(README.md\)"):
        publish(file, "--to", "hf://alice/car", "--upload")
    assert hub.changes == []


@pytest.mark.parametrize("breaks", ["PUT /large", "POST .*/commit/", "POST .*/tag/"])
def test_an_upload_that_broke_off_is_finished(file, hub, breaks, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub tries again by itself
    hub.broken = breaks
    with pytest.raises(HubError, match="the hub answered 503") as caught:
        publish(file, "--to", "hf://alice/car", "--upload")
    assert "try again" in str(caught.value)
    assert not hub.repositories["alice/car"].tags
    hub.broken = None

    publish(file, "--to", "hf://alice/car", "--upload")

    repository = hub.repositories["alice/car"]
    assert repository.commits[repository.tags["v0"]][FILE] == file.read_bytes()
    assert len(repository.commits) == 2


def test_a_token_that_is_not_accepted(file, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")

    with pytest.raises(HubError, match="does not accept the token") as caught:
        publish(file, "--to", "hf://alice/car", "--upload")
    assert "HF_TOKEN" in str(caught.value)
    assert "hf_wrong" not in str(caught.value)
    assert not hub.repositories


def test_no_token(file, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")

    with pytest.raises(UsageError, match="no Hugging Face token"):
        publish(file, "--to", "hf://alice/car", "--upload")
    assert hub.requests == []


@pytest.mark.parametrize("target", ["hf://alice/car", "minari://alice"])
@pytest.mark.parametrize("installed", [True, False])
def test_a_dry_run_needs_no_account(file, hub, monkeypatch, target, installed):
    monkeypatch.delenv("HF_TOKEN")
    if not installed:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    output = publish(file, "--to", target)

    for text in ("in all", "was not asked what alice/", "HF_TOKEN", "Nothing was sent"):
        assert text in output
    assert hub.requests == []


def test_the_namespace_of_somebody_else(file, hub):
    with pytest.raises(HubError, match="may not do this"):
        publish(file, "--to", "hf://bob/car", "--upload")


def test_no_network(file, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(HubError, match="cannot be reached"):
        publish(file, "--to", "hf://alice/car")


# --- Minari's remote


def test_a_dry_run_for_minari_changes_nothing(file, hub, minari_folder):
    output = publish(file, "--to", "minari://alice")

    for text in (NAME, "data/main_data.hdf5", "private", "Nothing was sent"):
        assert text in output
    assert hub.changes == []
    assert not minari_folder.exists()


def test_minari_downloads_what_was_published(file, hub, minari_folder, monkeypatch):
    output = publish(file, "--to", "minari://alice", "--upload")

    assert hub.repositories["alice/bullet"].private
    assert f"MINARI_REMOTE=hf://alice minari download {NAME}" in output
    monkeypatch.setenv("MINARI_REMOTE", "hf://alice")
    minari.download_dataset(NAME)
    read = minari.load_dataset(NAME)
    dataset = load_dataset(file)
    assert read.total_steps == dataset.num_transitions
    assert "Änne" in read.storage.metadata["author"]
    assert sum(episode.infos["cost"][1:].sum() for episode in read) == dataset.costs.sum()


def test_minari_versions_are_never_replaced(file, other_file, hub, monkeypatch):
    monkeypatch.setenv("MINARI_REMOTE", "hf://alice")
    publish(file, "--to", "minari://", "--upload")
    hub.requests.clear()

    assert "nothing is left to do" in publish(file, "--to", "minari://", "--upload")
    with pytest.raises(UsageError, match="another content") as caught:
        publish(other_file, "--to", "minari://", "--upload")
    assert "mixed-v1" in str(caught.value)
    assert hub.changes == []

    publish(other_file, "--to", "minari://", "--upload", "--name", "bullet/car-circle/mixed-v1")
    files = hub.repositories["alice/bullet"].commits[hub.repositories["alice/bullet"].head]
    register = json.loads(files["namespace_metadata.json"])
    assert set(register["datasets"]) == {NAME, "bullet/car-circle/mixed-v1"}


@pytest.mark.parametrize("commits", range(5))
def test_a_minari_upload_that_broke_off_is_finished(file, hub, commits, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    repository = hub.add("alice/bullet")
    hub.commits_allowed = commits
    with pytest.raises(HubError, match="503"):
        publish(file, "--to", "minari://alice", "--upload")
    assert len(repository.commits) == 1 + commits
    hub.commits_allowed = None

    publish(file, "--to", "minari://alice", "--upload")

    files = repository.commits[repository.head]
    assert NAME in json.loads(files["namespace_metadata.json"])["datasets"]
    assert "car-circle/mixed-v0/data/main_data.hdf5" in files


def test_minari_needs_a_user(file):
    for place in ("minari://", "minari://alice/bullet"):
        with pytest.raises(UsageError, match="minari://USER"):
            publish(file, "--to", place)
