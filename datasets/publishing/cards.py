"""Dataset cards: the README.md that tells a reader whether to use a dataset, and how.

The headings are those of Hugging Face's template, so that readers find what they look for. A
sentence is only there where the dataset knows it to be true; what a file does not say is named as
unknown instead of left out.
"""

from __future__ import annotations

import json
import re

from safer_offline.datasets.description.summary import DatasetSummary, Spread, summarize
from safer_offline.datasets.formats.dsrl import offline_env_id
from safer_offline.datasets.publishing.card_facts import (
    UNKNOWN,
    describe_cost,
    describe_creation,
    describe_scores,
    describe_structure,
    markdown_table,
    span,
)
from safer_offline.datasets.publishing.quality import find_limitations
from safer_offline.datasets.publishing.release import (
    CHECKSUMS,
    CROISSANT,
    EPISODES,
    SCATTER,
    Release,
)

# What the Hugging Face hub calls a number of rows: the first that exceeds it.
SIZES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (1e8, "10M<n<100M"),
    (1e9, "100M<n<1B"),
)


def render_card(release: Release) -> str:
    """The README.md of a release: front matter for the hub, then text for people."""
    summary = summarize(release.dataset)
    sections = (
        f"# {release.title}, {release.tag}",
        release.summary,
        f"![Return and cost of every episode]({SCATTER})",
        _glance(release, summary),
        _details(release),
        _uses(),
        describe_structure(release, summary),
        describe_cost(release, summary),
        describe_scores(release),
        describe_creation(release, summary),
        _limitations(release),
        _files(release),
        _rights(release),
    )
    return f"---\n{_front_matter(release)}---\n\n" + "\n\n".join(sections) + "\n"


def size_category(rows: int) -> str:
    """What the hub calls a dataset of so many rows."""
    return next((name for bound, name in SIZES if rows < bound), "n>1B")


def keywords(release: Release) -> list[str]:
    """Words to find it by."""
    environment = [release.metadata.env_id] if release.metadata.env_id else []
    return [
        "reinforcement-learning",
        "offline-reinforcement-learning",
        "safe-reinforcement-learning",
        "constrained-mdp",
        "safer-offline",
        "dsrl",
        "hdf5",
        *environment,
    ]


def _front_matter(release: Release) -> str:
    # A JSON string is a YAML string, whatever is in it.
    if release.license:
        license = [f"license: {release.license.hub_id}"]
    else:
        slug = re.sub(r"[^a-z0-9.]+", "-", release.metadata.license.lower())
        license = ["license: other", f"license_name: {json.dumps(slug)}"]
    lines = [
        *license,
        f"pretty_name: {json.dumps(release.title, ensure_ascii=False)}",
        "language:",
        "- en",
        "task_categories:",
        "- reinforcement-learning",
        "tags:",
        *(f"- {json.dumps(word)}" for word in keywords(release)),
        "size_categories:",
        f"- {size_category(release.dataset.num_transitions)}",
        "configs:",
        "- config_name: episodes",
        "  default: true",
        "  data_files:",
        "  - split: train",
        f"    path: {EPISODES}",
    ]
    return "\n".join(lines) + "\n"


def _glance(release: Release, summary: DatasetSummary) -> str:
    metadata = release.metadata
    behaviors = ", ".join(policy.name for policy in metadata.behavior_policies)
    return markdown_table(
        ("", ""),
        [
            ("id", f"`{release.name}`"),
            ("environment", metadata.env_id or UNKNOWN),
            ("transitions", f"{summary.num_transitions:,}"),
            ("episodes", f"{summary.num_episodes:,} of {span(summary.lengths)} steps"),
            ("observation, action", f"{summary.observation_size}, {summary.action_size} numbers"),
            ("return of an episode", _mean(summary.returns)),
            ("cost of an episode", _mean(summary.costs)),
            ("who acted", behaviors or UNKNOWN),
            ("licence", release.license_title),
        ],
    )


def _details(release: Release) -> str:
    metadata = release.metadata
    simulation = f" of `{metadata.env_id}`" if metadata.env_id else ""
    benign = (
        " No observation was attacked or perturbed while they were recorded."
        if metadata.recipe
        else ""
    )
    return f"""\
## Dataset details

**Why it exists.** A robot that learns by trial and error does its harm while it learns. Offline
safe reinforcement learning learns from a fixed record instead: earn reward, but keep the cost of
an episode within a limit. Such a record should show careful and careless behaviour and say what
each step cost; the tables below tell how far this one does.

**What it is.** Logged transitions (s, a, r, c, s'){simulation}, in whole episodes, each
with a reward and a separate cost.{benign}
`{release.data.name}` holds them; the preview on the hub shows `{EPISODES}`, one row an episode.

{_loading(release)}"""


def _uses() -> str:
    return """\
## Uses

**Meant for** training and comparing offline safe reinforcement learning, imitation learning with
constraints, off-policy evaluation of return and cost, and for teaching.

**Not meant for** control of real machines: a policy that keeps the limit where these data come
from may break it elsewhere. Nor do the data show what a policy does when its observations are
attacked; measure that, do not infer it."""


def _limitations(release: Release) -> str:
    lines = "\n".join(f"- {note}" for note in find_limitations(release.dataset))
    return f"## Bias, risks and limitations\n\n{lines}"


def _files(release: Release) -> str:
    rows = [
        (f"`{file.name}`", file.readable_size, f"`{file.sha256}`")
        for file in (release.data, *release.files)
    ]
    return (
        "## Files\n\n"
        + markdown_table(("file", "size", "SHA-256"), rows)
        + f"\n\n`sha256sum -c {CHECKSUMS}` checks all of them, this card and `{CROISSANT}` too."
    )


def _rights(release: Release) -> str:
    known = release.license
    license = f"[{known.title}]({known.url})" if known else release.license_title
    author = release.metadata.author
    return f"""\
## Licence, citation, maintenance

By {author}, {release.date[:4]}. Licence: {license}.

```bibtex
{release.citation}
```

A version is never changed after it was published; corrections come as the next version. Send
questions and errors to the author, {author}."""


def _mean(spread: Spread) -> str:
    return f"{spread.mean:,.1f} ± {spread.std:,.1f}"


def _loading(release: Release) -> str:
    """How to read the data, with us, with HDF5 alone, and with the libraries of others."""
    file, name = release.data.name, release.name
    fetch = f'''
From the hub:

```python
from huggingface_hub import hf_hub_download

path = hf_hub_download(
    "{release.repository}", "{file}", repo_type="dataset", revision="{release.tag}"
)
```
'''
    dsrl = f'''
With DSRL, and so with OSRL:

```python
import dsrl
import gymnasium as gym

data = gym.make("{offline_env_id(release.dataset)}").get_dataset("{file}")
```
'''
    return f'''\
### Loading
{fetch if release.repository else ""}
With `safer-offline`:

```python
from safer_offline.datasets import load_dataset

dataset = load_dataset("{file}")  # tensors, checked against their hashes
dataset.episodes  # a pandas DataFrame
```

With nothing but HDF5:

```python
import h5py

with h5py.File("{file}") as data:
    observations, costs = data["observations"][:], data["costs"][:]
```
{dsrl if offline_env_id(release.dataset) else ""}
With Minari, which has no place for costs but `infos`:

```python
import minari
from safer_offline.datasets import load_dataset, to_minari

to_minari(load_dataset("{file}"), "{name}")
for episode in minari.load_dataset("{name}"):
    costs = episode.infos["cost"][1:]  # entry t + 1 belongs to action t
```

With D4RL, imported so that it asks for no simulator:

```python
import h5py
from safer_offline.datasets import import_d4rl

with h5py.File("{file}") as data:
    arrays = {{name: data[name][:] for name in data if name != "infos"}}
for episode in import_d4rl().sequence_dataset(None, dataset=arrays):
    costs = episode["costs"]  # qlearning_dataset would drop them
```'''
