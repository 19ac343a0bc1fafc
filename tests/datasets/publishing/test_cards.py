"""Cards and Croissant, read by those who will read them."""

import dataclasses

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from safer_offline.datasets.publishing.cards import render_card, size_category  # noqa: E402
from safer_offline.datasets.publishing.croissant import render_croissant  # noqa: E402
from safer_offline.datasets.publishing.quality import find_limitations  # noqa: E402
from safer_offline.datasets.publishing.release import Release, ReleasedFile, next_version  # noqa: E402

NAME = "bullet/car-circle/mixed-v3"


@pytest.fixture
def release(dataset):
    metadata = dataclasses.replace(dataset.metadata, name=NAME, license="CC-BY-4.0")
    return Release(
        dataset=dataclasses.replace(dataset, metadata=metadata),
        data=ReleasedFile(name="data.h5", size=22_093_379, sha256="ab" * 32),
        files=(ReleasedFile(name="episodes.parquet", size=999, sha256="cd" * 32),),
        date="2026-01-01",
    )


def changed(release, **changes):
    metadata = dataclasses.replace(release.metadata, **changes)
    return dataclasses.replace(
        release, dataset=dataclasses.replace(release.dataset, metadata=metadata)
    )


def test_the_hub_reads_the_front_matter(release):
    card = huggingface_hub.DatasetCard(render_card(release))

    assert card.data.license == "cc-by-4.0"
    assert card.data.pretty_name == "Car-Circle mixed"
    assert card.data.task_categories == ["reinforcement-learning"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.language == ["en"]
    assert {"offline-reinforcement-learning", "SafetyCarCircle-v0"} <= set(card.data.tags)
    (config,) = card.data.to_dict()["configs"]
    assert config["data_files"] == [{"split": "train", "path": "episodes.parquet"}]


def test_a_licence_of_ones_own(release):
    card = huggingface_hub.DatasetCard(render_card(changed(release, license="For: friends # only")))

    assert card.data.license == "other"
    assert card.data.license_name == "for-friends-only"
    assert "For: friends # only" in card.text


@pytest.mark.parametrize(
    ("rows", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (360_000, "100K<n<1M"), (2e9, "n>1B")]
)
def test_sizes_as_the_hub_names_them(rows, category):
    assert size_category(rows) == category


def test_the_card_tells_what_the_data_say(release):
    text = render_card(release)
    episodes = release.dataset.episodes

    for heading in (
        "Dataset details",
        "Uses",
        "Dataset structure",
        "Cost, and how to choose a limit",
        "Reference scores",
        "Dataset creation",
        "Bias, risks and limitations",
        "Files",
        "Licence, citation, maintenance",
    ):
        assert f"\n## {heading}\n" in text
    safe = (episodes["cost"] <= 5).mean()
    best = episodes.loc[episodes["cost"] <= 5, "return"].max()
    assert f"| 5 | {(episodes['cost'] <= 5).sum()} | {safe:.1%} | {best:,.1f} |" in text
    assert (
        f"| return | {episodes['return'].mean():,.1f} | {episodes['return'].std(ddof=0):,.1f}"
        in text
    )
    assert "| `observations` | (19, 3) | float32 |" in text
    assert "each number from -1 to 1" in text
    assert "1 outside \\|x\\| <= 6, else 0" not in text  # only cells of tables are escaped
    assert "**Cost of a step:** 1 outside |x| <= 6, else 0." in text
    assert "| broad | 50% | 2 |" in text
    assert "`margin` = [0.5, 1.5]" in text
    assert f"{episodes['return'].min():,.4f}" in text
    assert "Änne" in text
    assert "| `data.h5` | 22.1 MB | `abab" in text


def test_what_is_not_known_is_said_to_be_unknown(release):
    unknown = dataclasses.replace(
        release.metadata.__class__(), name="own/data-v0", license="mit", author="Me"
    )
    dataset = dataclasses.replace(release.dataset, metadata=unknown, infos={})
    text = render_card(dataclasses.replace(release, dataset=dataset))

    assert "**Who acted** is not recorded." in text
    assert "**Cost of a step:** not recorded." in text
    assert "It is not recorded who acted" in text
    assert "No observation was attacked" not in text
    assert "Rebuilding" not in text
    assert "import dsrl" not in text
    assert "None" not in text.replace("sequence_dataset(None", "")


def test_recipe_and_reference_scores_of_the_dataset_come_first(release):
    text = render_card(
        changed(
            release,
            recipe="name = 'x'",
            reference_scores={"return_min": -7.5, "return_max": 70.25, "cost_max": 3},
        )
    )

    assert "safer-offline collect recipe.toml -o data.h5" in text
    assert "| -7.5000 | 70.2500 | 3.0000 |" in text
    assert "No observation was attacked" in text


def test_a_table_cell_stays_in_its_cell(release):
    text = render_card(changed(release, command="safer-offline | tee\nlog"))

    assert "| command | `safer-offline \\| tee log` |" in text


def test_limitations_are_found(release, make_arrays):
    arrays = make_arrays()
    arrays["observations"][:, 1] = arrays["next_observations"][:, 1] = 2.0
    arrays["actions"][:10, 0] = 1.0
    arrays["costs"][:] = 0.0
    arrays["terminals"][:], arrays["timeouts"][-1] = False, True
    arrays["infos/seed"][:] = 4
    dataset = release.dataset.from_arrays(arrays, metadata=release.metadata)

    notes = "\n".join(find_limitations(dataset))

    for text in (
        "never vary, counted from 0: 1 (always 2).",
        "53% of the actions lie on a bound",
        "Nothing here ever cost anything",
        "No episode truly ends",
        "3 episodes start from a seed that another one has",
    ):
        assert text in notes


@pytest.mark.parametrize("repository", ["", "alice/car"])
def test_croissant_is_valid(release, tmp_path, repository):
    mlcroissant = pytest.importorskip("mlcroissant")
    release = dataclasses.replace(release, repository=repository)
    episodes = release.dataset.episodes.reset_index()
    path = tmp_path / "croissant.json"
    path.write_text(render_croissant(release, episodes))

    read = mlcroissant.Dataset(jsonld=path)

    assert not read.metadata.ctx.issues.errors
    assert not read.metadata.ctx.issues.warnings
    assert read.metadata.version == "3.0.0"
    fields = {field.name: field.data_types[0] for field in read.metadata.record_sets[0].fields}
    assert list(fields) == list(episodes.columns)
    assert str(fields["return"]).endswith("Float")
    assert str(fields["behavior"]).endswith("Text")
    urls = [part.content_url for part in read.metadata.distribution]
    assert urls[0] == (
        "https://huggingface.co/datasets/alice/car/resolve/v3/data.h5" if repository else "data.h5"
    )


def test_citation(release):
    assert release.citation.startswith("@misc{bullet_car_circle_mixed_v3,\n  author = {{Änne}},")
    assert "year = {2026}" in release.citation


def test_versions():
    assert next_version(NAME) == "bullet/car-circle/mixed-v4"
