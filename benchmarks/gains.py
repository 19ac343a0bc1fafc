"""What the drone of Drone-Run answers to a wrong speed, tilt or turn: the driver and who imitates.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/gains.py FOLDER
    (seconds, after largest_budgets.py; FOLDER is its)

How much the pitch command (rotor behind less rotor in front, halved) changes per unit of an
observed coordinate, by differences of 0.005 to either side, where flights of the data that cost
nothing go about as fast as the driver wants to. A drone that is too fast, leans or turns forward
must pitch back: negative. Writes benchmarks/results/gains.csv.

speed      of flying ahead, units of 5 m/s
tilt       of leaning ahead, a coordinate of the quaternion: units of 2 rad
turn       of turning ahead, units of 10 rad/s
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets_of_tasks import dataset_of
from eight_tasks import RESULTS
from largest_budgets import WITHOUT, cautious_driver

from safer_offline import load_policy
from safer_offline.datasets import OfflineDataset, load_dataset
from safer_offline.datasets.behaviors.base import FloatArray
from safer_offline.datasets.behaviors.scripted.drone import VELOCITY
from safer_offline.datasets.behaviors.scripted.run import DroneRunner

TASK = "drone-run"
COORDINATES = {"speed": 3, "tilt": 7, "turn": 11}
STEP = 0.005
AHEAD, BEHIND = 0, 2
"""The rotors."""

Act = Callable[[FloatArray], FloatArray]


def policies(driver: DroneRunner, root: Path) -> Iterator[tuple[str, Act]]:
    """Who acts, at observations (B, ds)."""
    yield "driver", lambda seen: np.array([driver(one) for one in seen], np.float32)
    runs = {"safer": root / "eight" / f"{TASK}-robust-0"}
    for name in WITHOUT:
        runs[name] = root / "budgets" / f"{TASK}-{name}"
    for name, run in runs.items():
        yield name, load_policy(run).predict


def in_flight(dataset: OfflineDataset, *, speed: float) -> FloatArray:
    """Every tenth observation of flights that cost nothing, under way at about that speed, m/s."""
    flights = dataset.episodes.query("cost == 0")
    rows = [np.arange(start + 30, start + length)
            for start, length in flights[["start", "length"]].to_numpy()]  # fmt: skip
    seen = dataset.observations.numpy()[np.concatenate(rows)]
    return seen[np.abs(VELOCITY * seen[:, COORDINATES["speed"]] - speed) < 0.1][::10]


def gain(act: Act, seen: FloatArray, coordinate: int) -> float:
    """Mean change of the pitch command per unit of a coordinate."""
    step = np.zeros(seen.shape[1], np.float32)
    step[coordinate] = STEP
    change = (act(seen + step) - act(seen - step)) / (2 * STEP)
    return float((change[:, BEHIND] - change[:, AHEAD]).mean() / 2)


def main() -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    driver = cautious_driver(TASK)
    assert isinstance(driver, DroneRunner)
    seen = in_flight(load_dataset(dataset_of(TASK, root)), speed=driver.speed)
    table = pd.DataFrame(
        {"policy": name}
        | {told: round(gain(act, seen, place), 2) for told, place in COORDINATES.items()}
        for name, act in policies(driver, root)
    )
    table.to_csv(RESULTS / "gains.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
