"""Collection: a function of its arguments, whatever the workers, and whoever is killed."""

import concurrent.futures
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from safer_offline.datasets import from_minari, load_dataset, save_dataset
from safer_offline.datasets.behaviors.base import ExplorationNoise
from safer_offline.datasets.collection import collector, processes, shards
from safer_offline.datasets.collection.collector import collect, collect_to_minari
from safer_offline.datasets.collection.recipe import Actor, Recipe, load_recipe
from safer_offline.datasets.collection.shards import CollectionPlan, collect_shard, save_shard
from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.source import EnvironmentSource
from safer_offline.errors import UsageError

ENV = "SafetyBallCircle-v0"
TRANSITIONS = 2_400
SHARD = 250
SHARDS = 10
"""Nine shards of 400 transitions, whole episodes of 200, and one of 200. So many that workers
whose parent was killed cannot finish all that waits in their queue."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_TRANSITIONS", SHARD)


def make_plan(transitions=TRANSITIONS, seed=0):
    return CollectionPlan.make(load_recipe(ENV).instead(transitions=transitions, seed=seed))


def run(path, **settings):
    settings = {"transitions": TRANSITIONS, "workers": 1, "progress": False} | settings
    return collect(ENV, path, **settings)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def collected(monkeypatch):
    """Shards are collected in this process; the numbers of those that are."""
    numbers = []

    class Pool:
        def submit(self, function, plan, number, folder):
            numbers.append(number)
            function(plan, number, folder)
            future = concurrent.futures.Future()
            future.set_result(None)
            return future

        def shutdown(self, **how):
            pass

    monkeypatch.setattr(processes, "_pool", lambda workers: contextlib.nullcontext(Pool()))
    return numbers


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A collection that nobody disturbed, made without any process but this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_TRANSITIONS", SHARD)
        plan = make_plan()
        folder = tmp_path_factory.mktemp("whole") / "data.h5.shards"
        folder.mkdir()
        (folder / "plan.json").write_text(plan.to_json())
        for number in range(len(plan.shards)):
            save_shard(plan, number, folder)
        # With all shards there, collecting is joining.
        return run(folder.with_name("data.h5"))


# Content


def test_workers_do_not_change_the_content(whole, tmp_path):
    two = run(tmp_path / "two.h5", workers=2)
    assert two.metadata.content_sha256 == whole.metadata.content_sha256
    assert load_dataset(two.path).metadata == two.metadata
    assert names(tmp_path) == ["two.h5"]


def test_the_seed_changes_the_content(whole):
    plan = make_plan(transitions=200, seed=1)
    other = collect_shard(plan, 0).observations[0]
    assert not (whole.observations == other).all(dim=1).any()


def test_shards_differ_and_none_depends_on_the_others(whole):
    plan = make_plan()
    assert plan.shards == (250,) * 9 + (150,)
    third = collect_shard(plan, 2).to_arrays()
    for name in ("observations", "actions", "rewards", "costs", "infos/seed"):
        assert np.array_equal(third[name], whole.to_arrays()[name][800:1200])
    # Whatever else the plan holds, such as more shards.
    more = make_plan(transitions=10 * TRANSITIONS)
    assert np.array_equal(collect_shard(more, 2).to_arrays()["actions"], third["actions"])


def test_episodes_are_whole_and_no_two_alike(whole):
    episodes = whole.episodes
    assert whole.num_transitions == 9 * 400 + 200
    assert episodes["length"].tolist() == [200] * 19
    assert not episodes["terminated"].any()
    assert whole.timeouts[199::200].all()
    assert episodes["seed"].nunique() == 19
    assert whole.infos["episode_id"].tolist() == np.repeat(range(19), 200).tolist()
    assert set(episodes["behavior"]) == {"broad", "frontier", "recovery"}
    inside = ~whole.timeouts[:-1]
    assert (whole.next_observations[:-1] == whole.observations[1:])[inside].all()


def test_an_episode_can_be_replayed_from_its_seed_and_its_actions(whole):
    environment = SafetyEnvironment(whole.metadata.env_id)
    for episode in (0, 7, 18):
        rows = slice(200 * episode, 200 * episode + 200)
        seen = [environment.reset(int(whole.infos["seed"][rows][0]))]
        steps = [environment.step(action) for action in whole.actions[rows].numpy()]
        seen.extend(step.observation for step in steps)
        assert np.array_equal(np.stack(seen[:-1]), whole.observations[rows])
        assert np.array_equal(np.stack(seen[1:]), whole.next_observations[rows])
        assert np.array_equal(np.float32([step.reward for step in steps]), whole.rewards[rows])
        assert np.array_equal(np.float32([step.cost for step in steps]), whole.costs[rows])


def test_metadata_tell_how_the_dataset_came_about(whole):
    metadata = load_dataset(whole.path).metadata
    assert metadata.env_id == ENV
    assert metadata.base_seed == 0
    assert metadata.max_episode_steps == 200
    assert metadata.env_spec["id"] == ENV
    assert metadata.action_space.low == (-1.0, -1.0)
    assert len(metadata.observation_space.high) == 8
    assert [(policy.name, policy.share) for policy in metadata.behavior_policies] == [
        ("broad", 0.4),
        ("frontier", 0.4),
        ("recovery", 0.2),
    ]
    assert metadata.name == f"bullet/ball-circle/mixed-n{TRANSITIONS}-v1"
    assert Recipe.from_toml(metadata.recipe) == make_plan().recipe
    assert metadata.reference_scores == {
        "return_min": whole.episodes["return"].min(),
        "return_max": whole.episodes["return"].max(),
        "cost_max": whole.episodes["cost"].max(),
    }
    assert set(metadata.versions) >= {"pybullet-arm64", "numpy"}
    assert metadata.parents == ()
    assert metadata.created_at
    assert metadata.num_transitions == whole.num_transitions


def test_minari_holds_the_same(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "bullet/ball-circle/test-v0"
    made = collect_to_minari(ENV, name, transitions=250, workers=1, progress=False)
    back = from_minari(name)
    for array in ("observations", "actions", "rewards", "costs", "timeouts"):
        assert np.array_equal(back.to_arrays()[array], made.to_arrays()[array])
        assert np.array_equal(made.to_arrays()[array], whole.to_arrays()[array][:400])
    with pytest.raises(UsageError, match=name):
        collect_to_minari(ENV, name, transitions=250, workers=1, progress=False)
    assert names(tmp_path) == ["minari"]


# Crashes

COLLECT_AND_DIE = """
import contextlib, os, signal, sys
from safer_offline.datasets.collection import collector
from safer_offline.datasets.collection import shards

class Bar:
    finished = 0
    def advance(self, amount):
        self.finished += 1
        if self.finished == 1:
            {kill}

@contextlib.contextmanager
def progress_bar(*args, **kwargs):
    yield Bar()

if __name__ == "__main__":
    shards.SHARD_TRANSITIONS = {shard}
    collector.progress_bar = progress_bar
    collector.collect("{env}", sys.argv[1], transitions={transitions}, seed=0, workers=2)
"""

KILLS = {
    "the whole process group": "os.killpg(0, signal.SIGKILL)",
    "the parent alone": "os.kill(os.getpid(), signal.SIGKILL)",
}


def crash(path, kill):
    """Collect in a process that is killed when it hears of the first finished shard."""
    script = path.with_suffix(".py")
    script.write_text(
        COLLECT_AND_DIE.format(kill=KILLS[kill], shard=SHARD, env=ENV, transitions=TRANSITIONS)
    )
    process = subprocess.run(
        [sys.executable, str(script), str(path)], start_new_session=True, check=False, timeout=60
    )
    script.unlink()
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()


def processes_with(variable):
    """Processes that have, or have inherited, this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable in process.joinpath("environ").read_bytes().decode(errors="replace"):
                found.append(process.name)
        except OSError:
            continue  # gone meanwhile
    return found


def wait_until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("kill", KILLS)
def test_killed_and_continued_it_equals_a_run_that_nobody_disturbed(
    whole, tmp_path, monkeypatch, collected, kill
):
    path, folder = tmp_path / "data.h5", tmp_path / "data.h5.shards"
    monkeypatch.setenv("COLLECTED_BY", str(path))  # its children inherit this
    crash(path, kill)
    monkeypatch.delenv("COLLECTED_BY")
    # The workers of a parent that was killed end by themselves.
    wait_until(lambda: not processes_with(f"COLLECTED_BY={path}"))

    finished = {shard: shard.stat() for shard in folder.glob("shard-*.h5")}
    assert 1 <= len(finished) < SHARDS
    (folder / "shard-00009.h5.tmp-4711").write_bytes(b"half a shard")

    dataset = run(path)

    assert sorted(collected) == sorted(
        set(range(SHARDS)) - {int(shard.stem.removeprefix("shard-")) for shard in finished}
    )
    assert dataset.metadata.content_sha256 == whole.metadata.content_sha256
    assert names(tmp_path) == ["data.h5"]


@pytest.fixture
def unfinished(whole, tmp_path, monkeypatch):
    """A folder in which all shards wait, made by a run that could not write its result."""
    plan = make_plan()
    folder = tmp_path / "data.h5.shards"
    folder.mkdir()
    (folder / "plan.json").write_text(plan.to_json())
    start = 0
    for number in range(len(plan.shards)):
        count = 2 if number < SHARDS - 1 else 1
        episodes = whole.select_episodes(range(start, start + count))
        save_dataset(folder / f"shard-{number:05d}.h5", episodes)
        start += count
    return folder


def damage_cut(shard):
    shard.write_bytes(shard.read_bytes()[:5_000])


def damage_flip(shard):
    with h5py.File(shard, "r+") as file:
        file["rewards"][3] += 1


def damage_empty(shard):
    shard.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_empty])
def test_a_damaged_shard_is_collected_again_and_the_others_are_not(
    unfinished, whole, collected, damage
):
    damage(unfinished / "shard-00003.h5")
    dataset = run(unfinished.with_name("data.h5"))
    assert collected == [3]
    assert dataset.metadata.content_sha256 == whole.metadata.content_sha256


def test_what_was_left_half_written_is_swept(unfinished):
    (unfinished / "shard-00001.h5.tmp-12").write_bytes(b"x")
    (unfinished / "plan.tmp-13").write_bytes(b"x")
    collector._claim(unfinished, make_plan())
    assert not list(unfinished.glob("*tmp*"))
    assert len(list(unfinished.glob("shard-*.h5"))) == SHARDS


def test_a_failing_worker_ends_the_collection_and_keeps_what_is_done(
    unfinished, monkeypatch, collected
):
    (unfinished / "shard-00002.h5").unlink()

    def fail(plan, number, folder):
        raise MemoryError("no more")

    monkeypatch.setattr(processes, "save_shard", fail)
    with pytest.raises(MemoryError):
        run(unfinished.with_name("data.h5"))
    assert len(list(unfinished.glob("shard-*.h5"))) == SHARDS - 1


def test_shards_wait_until_the_result_is_written(unfinished, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(collector, "save_dataset", fail)
    with pytest.raises(OSError, match="disk full"):
        run(unfinished.with_name("data.h5"))
    assert len(list(unfinished.glob("shard-*.h5"))) == SHARDS


# Refusals


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"transitions": TRANSITIONS + 1}, {"shard": SHARD + 1}]
)
def test_shards_of_another_plan_are_neither_used_nor_touched(unfinished, monkeypatch, change):
    before = {path: path.read_bytes() for path in unfinished.iterdir()}
    if shard := change.pop("shard", None):
        monkeypatch.setattr(shards, "SHARD_TRANSITIONS", shard)
    with pytest.raises(UsageError) as caught:
        run(unfinished.with_name("data.h5"), **change)
    assert str(unfinished) in str(caught.value)
    assert "delete the folder" in str(caught.value)
    assert {path: path.read_bytes() for path in unfinished.iterdir()} == before


def test_an_existing_file_is_refused_before_any_work(tmp_path, monkeypatch):
    path = tmp_path / "data.h5"
    path.write_text("precious")
    with pytest.raises(UsageError, match=r"data\.h5 exists"):
        run(path)
    assert path.read_text() == "precious"
    assert names(tmp_path) == ["data.h5"]


def test_an_existing_file_is_replaced_when_asked(unfinished, whole):
    path = unfinished.with_name("data.h5")
    path.write_text("worthless")
    run(path, overwrite=True)
    assert load_dataset(path).metadata.content_sha256 == whole.metadata.content_sha256


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        ("ball-circel", {}, "the nearest is 'ball-circle"),
        (ENV, {"transitions": 0}, "transitions must be at least 1"),
        (ENV, {"seed": -1}, "seed must not be negative"),
        (ENV, {"workers": 0}, "--workers must be at least 1"),
    ],
)
def test_impossible_requests_leave_nothing_behind(tmp_path, env, settings, message):
    with pytest.raises(UsageError, match=message):
        collect(env, tmp_path / "data.h5", progress=False, **({"workers": 1} | settings))
    assert not names(tmp_path)


def test_the_plan_names_all_that_the_content_depends_on():
    plan = make_plan(transitions=7, seed=3)
    told = json.loads(plan.to_json())
    assert told["recipe"]["environment"]["id"] == ENV
    assert (told["recipe"]["transitions"], told["recipe"]["seed"]) == (7, 3)
    assert told["shard_transitions"] == SHARD
    assert set(told["versions"]) >= {"safer-offline", "pybullet-arm64", "numpy"}
    assert told["checkpoints"] == ["", "", ""]
    assert plan.shards == (7,)
    assert make_plan(transitions=7, seed=3) == plan


# Recipes


def one_actor(**settings):
    actor = Actor(**({"policy": "frontier"} | settings))
    source = EnvironmentSource(name="ball-circle")
    return Recipe(environment=source, behaviors=(actor,), transitions=200)


def test_noise_of_the_recipe_is_added_to_whoever_acts():
    calm, noisy, burst = (
        collect_shard(CollectionPlan.make(recipe), 0)
        for recipe in (
            one_actor(),
            one_actor(noise=ExplorationNoise(scale=0.3)),
            one_actor(noise=ExplorationNoise(burst_rate=1.0, burst_steps=1)),
        )
    )
    assert (calm.observations[0] == noisy.observations[0]).all()  # the same start
    assert (calm.actions[:20] != noisy.actions[:20]).any()
    assert burst.actions.abs().mean() > 0.3  # nothing but uniform random actions
    assert abs(float((burst.actions[1:] * burst.actions[:-1]).mean())) < 0.05


def test_who_acts_can_be_renamed_and_is_told():
    shard = collect_shard(CollectionPlan.make(one_actor(name="mine", share=5)), 0)
    (policy,) = shard.metadata.behavior_policies
    assert (policy.name, policy.share, policy.parameters["policy"]) == ("mine", 1.0, "frontier")
