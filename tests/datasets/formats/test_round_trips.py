"""Whatever a dataset holds, it comes back from every format bit for bit."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safer_offline.datasets import (
    BehaviorPolicy,
    BoxSpace,
    Metadata,
    OfflineDataset,
    load_dataset,
    save_dataset,
)
from safer_offline.datasets.formats import Format
from safer_offline.datasets.loading import read_dataset, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
finite = st.floats(-1e6, 1e6, width=32)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = itertools.count()


@st.composite
def datasets(draw):
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    rows, observation, action = sum(lengths), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    ends = np.zeros(rows, np.bool_)
    ends[np.cumsum(lengths) - 1] = True
    terminated = draw(hnp.arrays(np.bool_, rows))
    states = draw(hnp.arrays(np.float32, (rows + len(lengths), observation), elements=finite))
    before = np.ones(len(states), np.bool_)
    before[np.cumsum(np.array(lengths) + 1) - 1] = False
    arrays = {
        "observations": states[before],
        "next_observations": states[np.flatnonzero(before) + 1],
        "actions": draw(
            hnp.arrays(np.float32, (rows, action), elements=st.floats(-1, 1, width=32))
        ),
        "rewards": draw(hnp.arrays(np.float32, rows, elements=finite)),
        "costs": draw(hnp.arrays(np.float32, rows, elements=st.floats(0, 10, width=32))),
        "terminals": ends & terminated,
        "timeouts": ends & ~terminated,
    }
    if draw(st.booleans()):
        arrays["infos/seed"] = np.repeat(np.arange(len(lengths)) + 2**40, lengths)
        arrays["infos/speed"] = draw(hnp.arrays(np.float64, rows, elements=finite))
        arrays["infos/position"] = draw(hnp.arrays(np.float32, (rows, 2), elements=finite))
        arrays["infos/on ice"] = draw(hnp.arrays(np.bool_, rows))
    metadata = Metadata(
        env_id=draw(texts),
        description=draw(texts),
        author=draw(texts),
        max_episode_steps=draw(st.none() | st.integers(6, 1000)),
        cost_limit=draw(st.none() | st.floats(0, 100)),
        action_space=BoxSpace(low=(-1.0,) * action, high=(1.0,) * action),
        behavior_policies=(BehaviorPolicy(name=draw(texts), share=draw(st.floats(0, 1))),),
    )
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


@pytest.mark.parametrize("through", list(Format))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(dataset=datasets())
def test_files_come_back_bit_for_bit(tmp_path, through, dataset):
    run = next(names)
    first, last = tmp_path / f"{run}.h5", tmp_path / f"{run}-back.h5"
    save_dataset(first, dataset)
    original = read_dataset(first)
    target = (
        {"dataset_id": f"own-v{run}"}
        if through is Format.minari
        else {"out": tmp_path / f"{run}.{through.value}.hdf5"}
    )

    written = write_dataset(original, through, **target)
    source = target.get("dataset_id", written)
    write_dataset(read_dataset(source, source_format=through), Format.hdf5, out=last)

    back = load_dataset(last)
    assert back.metadata == load_dataset(first).metadata  # the hashes of all arrays among them
    for name, array in dataset.to_arrays().items():
        assert back.to_arrays()[name].dtype == array.dtype
        assert back.to_arrays()[name].tobytes() == array.tobytes()
