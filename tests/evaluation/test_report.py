"""The page about runs: whole without a network, true to the files, and calm before junk."""

import base64
import dataclasses
import hashlib
import html
import itertools
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from safer_offline import evaluate, load_policy, write_report
from safer_offline.cli.main import app, main
from safer_offline.context import EnvironmentContext
from safer_offline.datasets import save_dataset
from safer_offline.errors import UsageError
from safer_offline.evaluation import write_report as same_report
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.rendering import report_json
from safer_offline.evaluation.report.documents import read_run
from safer_offline.evaluation.report.figures import MOST_POINTS, downsampled
from safer_offline.evaluation.report.foreseen import foresight_section
from safer_offline.evaluation.report.markup import escape, join, tag
from safer_offline.evaluation.report.page import page
from safer_offline.evaluation.report.reproduction import evaluation_command, training_command
from safer_offline.evaluation.report.sentences import contradictions, strongest_first, verdict_of
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.foresight import DynamicsConfig
from safer_offline.learners import BCConfig
from safer_offline.training import loop

ENV = "toy_environments:make_point"
VOID = {"meta", "img", "br"}
OPTIONS = ("--env", ENV, "--episodes", 2, "--workers", 0, "--epsilon", 0.1, "--cost-limit", 6)
EVIL = '<script>alert(\'&\')</script>" onload="x" $\\bad$'


class Page(HTMLParser):
    """What a page holds; it fails where the page is not well formed."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.elements, self.tables, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append({"text": "", "tag": tag, **attributes})
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.words.append(data)
        if "td" in self.stack or "th" in self.stack:
            self.tables[-1][-1][-1]["text"] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def place(points, small_config, tmp_path_factory):
    """Two runs, evaluated with a searched attack, with several budgets, and compared."""
    folder = tmp_path_factory.mktemp("place")
    save_dataset(folder / "points.h5", points)
    loop.train(small_config, folder / "points.h5", out=folder / "safer", steps=200, progress=False)
    config = BCConfig(hidden_sizes=(8, 8), batch_size=16)
    loop.train(config, folder / "points.h5", out=folder / "bc", steps=20, seed=3, progress=False)
    search = ("--attack-set", "bias.population=4,generations=0,episodes=1")
    safer = folder / "safer"
    quick = ("--attack-set", "mad.steps=2,restarts=1")
    with pytest.MonkeyPatch.context() as patch:
        # The figures beside the numbers take long, and nobody reads them here.
        patch.setattr("safer_offline.evaluation.rendering._saved", lambda figure, **told: b"")
        model = partial(DynamicsConfig, steps=5, hidden_sizes=(8,))
        patch.setattr("safer_offline.foresight.runs.DynamicsConfig", model)
        invoke("foresee", safer)
        invoke("evaluate", safer, *OPTIONS, "--attacks", "natural,uniform,bias", *search)
        invoke(
            "evaluate", safer, *OPTIONS, "--attacks", "uniform,mad", *quick, "--budgets", "0,1,3"
        )
        invoke(
            "evaluate", safer, folder / "bc", *OPTIONS, "--attacks", "natural,uniform", "--seed", 4
        )
    foreseen = json.loads((safer / "foresight.json").read_text())
    tried = [
        {"settings": settings, "run": "tried/0", **foreseen} for settings in ({}, {"margin": 1.5})
    ]
    choice = {"chosen": "margin=1.5", "reason": "It is said to.", "alternatives": tried}
    (safer / "choice.json").write_text(json.dumps(choice))
    return folder


@pytest.fixture
def copied(place, tmp_path):
    """The runs, to be damaged."""
    shutil.copytree(place, tmp_path / "place")
    for config in tmp_path.glob("place/*/config.json"):
        # Not the dataset that was copied.
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dataset": "points.h5"}))
    return tmp_path / "place"


@pytest.fixture
def sketched(monkeypatch):
    """Figures are drawn, but not turned into SVG, which takes most of the time."""
    sketch = b'<svg viewBox="0 0 1 1"></svg>'
    monkeypatch.setattr(
        "safer_offline.evaluation.report.figures.as_svg", lambda figure, **told: sketch
    )


@pytest.fixture
def small(copied, sketched):
    """A run with few figures."""
    for other in (copied / "safer" / "evaluations").iterdir():
        if "2runs" not in other.name:
            shutil.rmtree(other)
    (copied / "safer" / "metrics.csv").write_text("step,nll\n100,1.5\n200,\n")
    return copied / "safer"


def made_up(costs, *, limit=10.0, epsilon=0.05, remarks=None, policy="abc"):
    """A report of given costs by attack."""
    frames = [
        pd.DataFrame(
            {
                "attack": name, "episode": range(len(several)), "seed": 1, "length": 9,
                "reward": np.linspace(1.0, 2.0, len(several)), "cost": np.asarray(several, float),
                "terminated": False, "budget_used": 0.5,
            }
        )
        for name, several in costs.items()
    ]  # fmt: skip
    plan = EvaluationPlan(
        context=EnvironmentContext(env_id="Some-v0"), policy=policy, epsilon=epsilon,
        epsilon_units="raw", episodes=len(frames[0]), seed=4, cost_limit=limit,
        attacks={name: {} for name in costs},
    )  # fmt: skip
    return EvaluationReport(
        plan=plan, attacks={name: {} for name in costs},
        episodes=pd.concat(frames, ignore_index=True),
    )  # fmt: skip


@pytest.fixture
def folder_of(tmp_path, sketched):
    """Writes the documents of reports as evaluations of one run."""

    def write(*reports):
        for number, report in enumerate(reports):
            folder = tmp_path / "run" / "evaluations" / f"e{number}"
            folder.mkdir(parents=True)
            (folder / "evaluation.json").write_text(report_json(report))
        return tmp_path / "run"

    return write


def read(run, **settings):
    return Page(write_report(run, **settings).read_text(encoding="utf-8"))


def table_of(found, heading):
    """The first table with a heading, as a list of dicts of cells."""
    for rows in found.tables:
        names = [cell["text"] for cell in rows[0]]
        if heading in names:
            return [dict(zip(names, row, strict=True)) for row in rows[1:]]
    raise AssertionError(f"no table has a column {heading}")


# One file, for everybody


@pytest.fixture(scope="module")
def whole(place):
    out = place / "both.html"
    assert same_report([place / "safer", place / "bc"], out) == out
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(place):
    """The page of one run."""
    return read(place / "safer")


def test_the_page_asks_for_nothing_else(whole):
    found = Page(whole)
    assert not re.search(r"https?:|//[a-z]|@import|<link|<iframe|<object|<base", whole)
    for name, attributes in found.elements:
        for attribute in ("src", "href", "data", "action"):
            value = attributes.get(attribute, "#")
            assert value.startswith(("#", "data:image/svg+xml;base64,")), (name, value)
    assert not [u for u in re.findall(r"url\(([^)]*)\)", whole) if not u.startswith("#")]
    (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
    (script,) = re.findall(r"<script>(.*?)</script>", whole, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"'sha256-{digest}'" in policy


def test_ids_are_unique_and_every_reference_has_one(whole):
    found = Page(whole)
    ids = Counter(a["id"] for _, a in found.elements if "id" in a)
    assert [name for name, count in ids.items() if count > 1] == []
    asked = set(re.findall(r'(?:href="#|url\(#)([^")]+)', whole))
    assert asked <= set(ids)
    assert sum(name.startswith("f") for name in ids) > 10  # clip paths and markers of figures


def test_everybody_can_read_it(whole):
    found = Page(whole)
    assert found.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for drawing in found.all("svg"):
        assert drawing["role"] == "img"
        assert drawing["aria-label"]
    for rows in found.tables:
        assert all(cell["scope"] == "col" for cell in rows[0])
        assert all(row[0]["scope"] == "row" for row in rows[1:])
    assert len(found.all("caption")) == len(found.tables) == len(found.all("tbody"))
    assert "prefers-color-scheme: dark" in whole
    for fixed in ("#000000", "#333333", "#ffffff"):  # only the style sheet names colours
        assert fixed not in whole.partition("</style>")[2]


def test_equal_files_give_equal_pages(place, whole, tmp_path):
    out = write_report([place / "safer", place / "bc"], tmp_path / "again.html")
    assert out.read_text(encoding="utf-8") == whole


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """
const page = document.querySelector("iframe").contentDocument, found = {};
const box = page.documentElement;
found.width = [box.scrollWidth, box.clientWidth];
const table = [...page.querySelectorAll("table.sortable")].find(
  one => one.caption.textContent === "Methods under each attack");
const headings = [...table.tHead.rows[0].cells];
const column = headings.findIndex(heading => heading.textContent === "return");
const order = () => [...table.tBodies[0].rows].map(row => Number(row.cells[column].textContent));
found.before = order();
found.buttons = headings.map(heading => heading.querySelectorAll("button").length);
headings[column].querySelector("button").click();
found.up = order();
headings[column].querySelector("button").click();
found.down = order();
found.sorted = headings.map(heading => heading.getAttribute("aria-sort"));
document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed")
def test_a_browser_sorts_the_tables_and_nothing_is_wider_than_a_phone(whole, tmp_path):
    frame = f'<iframe width="390" height="800" style="border:0" srcdoc="{html.escape(whole)}">'
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<meta charset="utf-8"><body>{frame}</iframe>'
        f"<script>onload = () => {{{PROBE}}}</script></body>",
        encoding="utf-8",
    )
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
    )  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, wrapper.as_uri()],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = json.loads(html.unescape(re.search("FOUND(.*)END", done.stdout, re.S)[1]))
    assert found["width"][0] == found["width"][1] <= 390
    assert set(found["buttons"]) == {1}
    assert found["before"] != sorted(found["before"])
    assert found["up"] == sorted(found["before"])
    assert found["down"] == sorted(found["before"], reverse=True)
    assert [name for name in found["sorted"] if name] == ["descending"]


# True to the files


def test_the_table_has_the_numbers_of_the_evaluation(place, shown):
    tables = place.glob("safer/evaluations/*/evaluation.csv")
    (path,) = [path for path in tables if "bias" in path.read_text()]
    table = pd.read_csv(path)
    rows = table_of(shown, "over limit")
    names = ["natural", "uniform", "bias", "worst per episode"]
    assert [row["attack"]["text"] for row in rows] == names
    for row, (_, wanted) in zip(rows, table.iterrows(), strict=False):
        assert row["return"]["text"] == f"{wanted.reward_mean:.1f} ± {wanted.reward_std:.1f}"
        assert float(row["cost"]["data-value"]) == pytest.approx(wanted.cost_mean)
        assert row["cost"]["class"] == ("above" if wanted.cost_mean > 6 else "within")
    case = json.loads(path.with_suffix(".json").read_text())["worst_case"]
    assert float(rows[-1]["cost"]["data-value"]) == pytest.approx(case["cost_mean"])


@pytest.mark.parametrize(
    ("costs", "limit", "status", "words"),
    [
        ({"natural": [0, 1], "mc": [30, 34]}, 10, "broken", "broken by mc at ε = 0.05 (raw)"),
        ({"natural": [30, 34], "mc": [0, 1]}, 10, "broken", "broken without any attack: an"),
        ({"natural": [0, 1], "mc": [2, 4]}, 10, "kept", "(95 % interval 2.0 to 4.0)"),
        ({"natural": [0, 0], "mc": [0, 0]}, 10, "kept", "all episodes are alike"),
        ({"natural": [0, 1], "mc": [2, 16]}, 10, "open", "not for certain"),
        ({"natural": [0, 1], "mc": [2, 16]}, None, "unknown", "No cost limit is known"),
    ],
)
def test_the_verdict_comes_first(folder_of, costs, limit, status, words):
    run = folder_of(made_up(costs, limit=limit))
    assert verdict_of(read_run(run).evaluations[0]).status == status
    found = read(run)
    assert words in found.text[:600]
    assert "No attack that is searched for in whole episodes" in found.text[:800]
    assert f"verdict {status}" in [a.get("class") for a in found.all("div")]


def test_bounds_of_violations_are_those_of_the_evaluation(folder_of):
    report = made_up({"natural": [0] * 20, "mc": [0] * 19 + [11]})
    high = 100 * report.summary()["violation_high"].iloc[1]
    text = read(folder_of(report)).text
    assert (
        f"5.0 % of 20 episodes exceed the limit (at most {high:.0f} %, with 95 % confidence)"
        in text
    )


def test_a_broken_limit_is_never_hidden_by_a_stronger_evaluation(folder_of):
    kept = made_up({"natural": [0, 1], "uniform": [0, 1], "mc": [2, 3]})
    broken = made_up({"natural": [0, 1], "mr": [50, 51]}, epsilon=0.01)
    run = folder_of(kept, broken)
    assert verdict_of(strongest_first(read_run(run))[0]).status == "kept"
    assert len(contradictions(read_run(run))) == 1
    text = read(run).text
    assert "limit kept, but broken in another evaluation" in text[:200]
    assert "broken by mr at ε = 0.01" in text[:800]


def test_searched_attacks_are_named_and_what_was_not_tried(shown):
    text = shown.text
    assert "Among the attacks was bias, which is searched for in whole episodes." in text[:700]
    assert "Not tried, of the attacks of the literature: gaussian, mad, amad, mc and mr." in text
    assert "There is no certificate" in text


def test_several_budgets_have_curves_and_say_how_far(place, shown):
    evaluations = strongest_first(read_run(place / "safer"))
    (several,) = [one for one in evaluations if one.several]
    assert "cost against the budget" in " ".join(a["aria-label"] for a in shown.all("svg"))
    costs = [point["cost_mean"] for point in several.points]
    assert costs == sorted(costs)
    assert "Of the budgets tried, " in shown.text
    rows = table_of(shown, "ε")
    assert {row["ε"]["text"] for row in rows} == {"0", "0.1", "0.3"}


def test_the_training_is_drawn_and_the_dataset(place, shown):
    labels = " ".join(a["aria-label"] for a in shown.all("svg"))
    metrics = pd.read_csv(place / "safer" / "metrics.csv")
    for name in metrics.columns.drop("step"):
        count = metrics[name].notna().sum()
        assert (f"{name} over the training" in labels) == (count > 1), name
    once = table_of(shown, "at update")
    (eta,) = [row for row in once if row["number"]["text"] == "episodes_eta"]
    value = metrics["episodes_eta"].dropna().iloc[0]
    assert float(eta["value"]["data-value"]) == pytest.approx(value)
    assert "points.h5 holds 60 episodes, 1,200 steps. 80% of the episodes keep" in shown.text


def test_what_was_foreseen_stands_beside_what_came(place, shown, copied, sketched):
    rows = table_of(shown, "cost foreseen")
    told = json.loads((place / "safer" / "foresight.json").read_text())
    came = {row["attack"]: row for row in strongest_first(read_run(place / "safer"))[0].at(1.0)}
    assert [row["attack"]["text"] for row in rows] == [one["attack"] for one in told["estimates"]]
    assert {"natural", "uniform", "bias"} <= set(came)
    for row, one in zip(rows, told["estimates"], strict=True):
        low, high = one["cost_interval"]
        assert row["cost foreseen"]["text"] == f"{one['cost']:.1f} ({low:.1f} to {high:.1f})"
        known = came.get(one["attack"])
        wanted = "–" if known is None else f"{known['reward_mean']:.1f}"
        assert row["return simulated"]["text"] == wanted
        assert row["trusted"]["text"] == ("yes" if one["trusted"] else "no")
    assert "margin=1.5: worst cost foreseen" in shown.text
    assert "Chosen: margin=1.5. It is said to." in shown.text
    # Under another budget only what needs none can be compared.
    (copied / "safer" / "foresight.json").write_text(json.dumps(told | {"epsilon": 0.3}))
    known = {
        row["attack"]["text"]: row["cost simulated"]["text"] != "–"
        for row in table_of(read(copied / "safer"), "cost foreseen")
    }
    assert known == {name: name == "natural" for name in known}


def test_where_nobody_foresaw_nothing_is_said(folder_of):
    assert foresight_section(read_run(folder_of(made_up({"natural": [0, 1]})))) is None


def test_long_curves_are_thinned_to_means():
    steps = np.arange(1, 10_001.0)
    few, means = downsampled(steps, steps**2)
    assert len(few) == MOST_POINTS
    assert means.mean() == pytest.approx((steps**2).mean())
    assert downsampled(steps[:50], steps[:50])[0].tolist() == steps[:50].tolist()


def test_learned_adversaries_certificates_remarks_and_paths_are_shown(folder_of):
    run = folder_of(made_up({"natural": [0, 1], "learned": [2, 3]}))
    file = run / "evaluations" / "e0" / "evaluation.json"
    document = json.loads(file.read_text())
    document["attacks"]["learned"] = {"curve": [{"steps": s, "cost": s / 9} for s in (1, 2, 3)]}
    document |= {"certificate": {"radius": 0.25}, "remarks": ["learned was <weak>"]}
    document["gate_failures"] = ["at ε = 0, mad changes 2 of 3 episodes"]
    file.write_text(json.dumps(document))
    picture = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    (file.parent / "paths.svg").write_text(picture)
    found = read(run)
    assert "learned was <weak>" in found.text
    assert '"radius": 0.25' in found.text
    assert "no certificate" not in found.text
    assert "cannot be trusted: at ε = 0, mad changes 2 of 3 episodes." in found.text
    labels = [drawing["aria-label"] for drawing in found.all("svg")]
    assert any("steps of the adversary's training" in label for label in labels)
    (image,) = found.all("img")
    assert base64.b64decode(image["src"].partition(",")[2]).decode() == picture
    assert len(found.all("script")) == 1


def test_runs_stand_beside_each_other(place, whole):
    found = Page(whole)
    rows = table_of(found, "natural cost")
    assert [row["run"]["text"] for row in rows] == ["safer", "bc"]
    assert "All of them met the same evaluation" in found.text
    common = [p for p in place.glob("*/evaluations/*seed4*/evaluation.csv") if "runs" not in str(p)]
    costs = {p.parts[-4]: pd.read_csv(p)["cost_mean"].max() for p in common}
    assert [float(row["cost"]["data-value"]) for row in rows] == [
        pytest.approx(costs[row["run"]["text"]]) for row in rows
    ]
    comparison = table_of(found, "worst tenth")
    saved = pd.read_csv(next(place.glob("safer/evaluations/*2runs*/comparison.csv")))
    assert [float(r["cost"]["data-value"]) for r in comparison] == pytest.approx(saved["cost_mean"])
    assert table_of(found, "lower cost")[0]["than"]["text"] == "bc"


def test_runs_without_a_common_evaluation_say_so(place, folder_of):
    other = folder_of(made_up({"natural": [0, 1]}))
    found = read([place / "bc", other, other])
    assert "They were not evaluated alike" in found.text
    assert len(table_of(found, "natural cost")) == 2  # the same run twice is one


# How to reproduce it


def test_the_commands_of_the_page_are_the_ones_that_made_the_numbers(place, monkeypatch, tmp_path):
    run = read_run(place / "safer")

    class Planned(Exception):
        pass

    def stop(self, *_, **__):
        raise Planned(self.plan)

    monkeypatch.setattr("safer_offline.evaluation.simulation.Evaluation.simulate", stop)
    assert len(run.evaluations) == 3
    for one in run.evaluations:
        command, notes = evaluation_command(run, one)
        assert notes == []
        words = shlex.split(command.replace("\\\n", " "))
        done = CliRunner().invoke(app, [*words[1:], "--out", str(tmp_path / one.folder.name)])
        assert isinstance(done.exception, Planned), done.output
        assert done.exception.args[0].name == one.folder.name

    def planned(config, dataset, **told):
        raise Planned(config, dataset, told)

    monkeypatch.setattr("safer_offline.training.loop.train", planned)
    for name in ("safer", "bc"):
        run = read_run(place / name)
        command, notes = training_command(run)
        assert notes == []
        assert ("--no-choose" in command) == (name == "safer")  # what was chosen is in settings
        done = CliRunner().invoke(app, shlex.split(command.replace("\\\n", " "))[1:])
        assert isinstance(done.exception, Planned), done.output
        config, dataset, told = done.exception.args
        assert json.loads(json.dumps(dataclasses.asdict(config))) == run.training["config"]
        assert dataset.fingerprint() == run.training["dataset_sha256"]
        assert (told["steps"], told["seed"]) == (run.training["steps"], run.training["seed"])


def test_a_run_is_evaluated_by_its_folder_too(place):
    given = {"env": "toy_environments:make_point", "attacks": "natural", "episodes": 2}
    told = [
        evaluate(whom, **given, workers=0).episodes
        for whom in (
            load_policy(place / "safer"),
            place / "safer",
            str(place / "safer" / "policy.safetensors"),
        )
    ]
    assert told[0].equals(told[1])
    assert told[0].equals(told[2])


def test_what_a_policy_was_told_to_aim_at_is_in_the_command(copied):
    run = read_run(copied / "bc")
    for one in run.evaluations:
        file = one.folder / "evaluation.json"
        document = json.loads(file.read_text())
        document["config"]["aims"] = {"target_cost": 25.0}
        file.write_text(json.dumps(document))
    told = [evaluation_command(run, one)[0] for one in read_run(copied / "bc").evaluations]
    assert told
    assert all("--aim target_cost=25" in " ".join(one.split()) for one in told)


def test_what_a_command_cannot_say_is_said(copied):
    config = copied / "bc" / "config.json"
    document = json.loads(config.read_text()) | {"algorithm": "mine", "dataset": ""}
    config.write_text(json.dumps(document))
    (copied / "bc" / "policy.safetensors").unlink()
    text = read(copied / "bc").text
    assert "The algorithm 'mine' does not come with this package" in text
    assert "put in place of DATASET" in text
    assert "put its name in place of POLICY" in text


# Missing, damaged, hostile


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "There is no config.json"),
        ("metrics.csv", "There is no metrics.csv"),
        ("policy.safetensors", "There is no policy.safetensors, although metrics.csv reaches"),
        ("evaluations", "No evaluation that could be read lies here"),
        ("../points.h5", "is no longer where it was"),
    ],
)
def test_what_is_missing_is_said(small, name, said):
    path = small / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in read(small).text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{", "config.json cannot be read"),
        ("config.json", b"[1]", "config.json holds nothing that this version knows"),
        ("config.json", b"\xff", "config.json cannot be read"),
        ("metrics.csv", b"", "metrics.csv cannot be read"),
        ("metrics.csv", b"a,b\n1,2\n", "metrics.csv has no column of steps"),
        ("metrics.csv", b"step,loss\n1,2\nx,3\n", "1 of 2 lines are damaged"),
        ("policy.safetensors", b"junk", "The policy cannot be looked at"),
        ("evaluations/e/evaluation.json", b"{}", "evaluation.json holds nothing"),
        ("evaluations/e/evaluation.json", b"[" * 100_000, "evaluation.json cannot be read"),
        ("evaluations/e/evaluation.json", b'{"config": {"seed": 1}}', "holds no table of results"),
        ("evaluations/e/unfinished.json", b"{}", "was interrupted"),
        ("evaluations/e/evaluation.json.tmp-12", b"{", "was never finished"),
        ("evaluations/e/comparison.json", b"\x00", "comparison.json cannot be read"),
        ("evaluations/e/comparison.json", b'{"config": 3}', "Its table is missing or damaged"),
        ("../points.h5", b"junk", "The dataset cannot be drawn"),
        ("config.json", b'{"dataset": "' + b"1" * 400 + b'"}', "is no longer where it was"),
        ("config.json", b'{"dataset": "a\\u0000"}', "is no longer where it was"),
    ],
)
def test_what_is_damaged_is_said(small, name, content, said):
    path = small / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert said in read(small).text


def test_an_unfinished_training_says_how_far_it_is(small):
    (small / "policy.safetensors").unlink()
    (small / "config.json").write_text('{"steps": 900}')
    text = read(small).text
    assert "the training is not finished, metrics.csv ends after update 200 of 900" in text


def test_another_policy_and_another_dataset_are_noticed(copied, points):
    save_dataset(copied / "points.h5", points.select_episodes([0, 1]), overwrite=True)
    shutil.copy(copied / "safer" / "policy.safetensors", copied / "bc")
    text = read(copied / "bc").text
    assert "does not hold what the policy learned from any more" in text
    assert "This is not, or not as it stands, the policy that lies in the run now" in text


def test_pictures_that_are_none_are_left_out(folder_of):
    run = folder_of(made_up({"natural": [0, 1]}))
    for content, said in ((b"<svg", "cannot be read"), (b"<html/>", "is no SVG")):
        (run / "evaluations" / "e0" / "paths.svg").write_bytes(content)
        found = read(run)
        assert f"paths.svg {said}" in found.text
        assert found.all("img") == []


def poisoned(value):
    """A document whose every text is markup, and every key that we do not look for."""
    if isinstance(value, dict):
        return {k: poisoned(v) for k, v in value.items()} | {EVIL: EVIL}
    if isinstance(value, list):
        return [*map(poisoned, value), EVIL]
    return f"{value}{EVIL}" if isinstance(value, str) else value


def test_nothing_from_a_file_is_markup(copied):
    run = copied / "safer"
    for path in (*run.glob("*.json"), *run.glob("evaluations/*/*.json")):
        path.write_text(json.dumps(poisoned(json.loads(path.read_text()))))
    header, _, rest = (run / "metrics.csv").read_text().partition("\n")
    (run / "metrics.csv").write_text(header.replace("nll", EVIL.replace('"', "")) + "\n" + rest)
    named = run.rename(run.with_name("<b>&amp;\x07"))
    content = write_report(named, out=copied / "evil.html").read_text(encoding="utf-8")
    found = Page(content)
    assert len(found.all("script")) == 1
    assert found.all("b") == []
    assert not any("onload" in attributes for _, attributes in found.elements)
    assert "<script>alert('&')</script>" in found.text
    assert "Report: <b>&amp;\N{REPLACEMENT CHARACTER}" in found.text


JUNK = (None, True, -1, 1e300, 10**400, "", "NaN", [], {}, [None], {"a": 1}, float("nan"), "a" * 99)


def damaged(value, chance):
    """A document in which some values are something else."""
    if chance.random() < 0.04:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {k: damaged(v, chance) for k, v in value.items() if chance.random() > 0.03}
    return [damaged(v, chance) for v in value] if isinstance(value, list) else value


def test_no_junk_in_documents_crashes_the_page(copied):
    run, chance = copied / "safer", random.Random(0)
    (run / "metrics.csv").unlink()
    (run / "policy.safetensors").unlink()
    names = [*run.glob("evaluations/*/*.json"), *run.glob("*.json")]
    documents = {path: json.loads(path.read_text()) for path in names if "bias" not in path.name}
    assert len(documents) == 7
    for round_ in range(24):
        for path, document in documents.items():
            path.write_text(json.dumps(damaged(document, chance)))
        found = read_run(run)
        if round_ % 12 == 0:
            Page(page([found]))
        for one in strongest_first(found):
            verdict_of(one)
            evaluation_command(found, one)
        training_command(found)
        foresight_section(found)


def test_unknown_numbers_are_dashes(folder_of):
    found = read(folder_of(made_up({"natural": [0, 0], "mc": [2, 3]}, limit=None)))
    rows = table_of(found, "over limit")
    assert [row["over limit"]["text"] for row in rows] == ["–"] * 3
    assert [row["over limit"]["data-value"] for row in rows] == [""] * 3
    assert not re.search(r"\b(nan|None|null)\b", found.text)


def test_markup_escapes_what_is_not_markup():
    assert tag("p", "<&>", tag("b", "x"), None, title='"', hidden=True, lang=None) == (
        '<p title="&quot;" hidden>&lt;&amp;&gt;<b>x</b></p>'
    )
    assert join("\x00\ud800", escape("'")) == "\ufffd\ufffd&#x27;"


# The command


def test_the_command_says_where_the_page_lies(place, tmp_path, capsys, monkeypatch):
    result = invoke("report", place / "bc")
    assert result.stdout == f"Wrote {place / 'bc' / 'report.html'}: open it in a browser.\n"
    policy = place / "bc" / "policy.safetensors"
    invoke("report", policy, "-o", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!DOCTYPE html>")
    wrong = {
        ("nowhere",): "there is no such run",
        (str(tmp_path),): "is no run",
        (str(place / "points.h5"),): "is no run",
        (str(place / "bc"), "-o", str(policy)): "ends in .html",
    }
    for arguments, said in wrong.items():
        before = policy.read_bytes()
        monkeypatch.setattr(sys, "argv", ["safer-offline", "report", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert said in capsys.readouterr().err
        assert policy.read_bytes() == before
    with pytest.raises(UsageError, match="one run at least"):
        write_report([])


def test_results_that_were_led_elsewhere_within_the_run_are_found(folder_of):
    run = folder_of(made_up({"natural": [0, 1], "mad": [3, 5]}))
    (run / "evaluations" / "e0").rename(run / "strong")
    (run / "evaluations").rmdir()
    (run / "config.json").write_text("{}")
    assert table_of(read(run), "cost")[1]["cost"]["text"].startswith("4.0")
