"""Our Bullet tasks beside the package that they come from: are they the same, and how fast.

Command: OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python benchmarks/simulators.py
Writes benchmarks/results/simulators.csv: one row a task. Both step the same actions in turn,
several times, in one run and one process: a shared machine changes its speed, a ratio within one
run hardly does. The original is stepped bare, which repeats no episode; ours as collection steps
it, which does. Numbers are compared as datasets hold them, rewards to the last of 64 bits besides.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.environments.bullet.simulated import SafetyEnvironment
from safer_offline.environments.tasks import BULLET_IDS, short_name

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "environments"))
from beside_original import Original, actions_of

EPISODES = 20
ROUNDS = 7
STEPS = 1500


def compare(env_id: str) -> tuple[int, int]:
    """Steps compared over whole episodes, and in how many of them any number differs."""
    theirs, ours = Original(env_id), SafetyEnvironment(env_id)
    steps = different = 0
    for episode in range(EPISODES):
        first = theirs.reset(episode).astype(np.float32)
        different += not np.array_equal(first, ours.reset(episode))
        for action in actions_of(episode, ours.action_space.shape[0], ours.max_episode_steps):
            observation, *numbers = theirs.step(action)
            step = ours.step(action)
            same = np.array_equal(step.observation, observation.astype(np.float32))
            same = same and [step.reward, step.cost, step.terminated] == numbers
            steps, different = steps + 1, different + (not same)
            if step.terminated:
                break
    theirs.environment.close()
    ours.close()
    return steps, different


def rate(environment: Any, actions: NDArray[Any], *, bare: bool, limit: int) -> float:  # noqa: ANN401
    """Steps per second, resets included."""
    environment.reset() if bare else environment.reset(0)
    elapsed, start = 0, time.perf_counter()
    for number, action in enumerate(actions):
        answer = environment.step(action)
        elapsed += 1
        if answer[2 if bare else 3] or elapsed == limit:
            environment.reset() if bare else environment.reset(number)
            elapsed = 0
    return len(actions) / (time.perf_counter() - start)


def start_up(env_id: str, module: str) -> float:
    """Seconds that a new process takes until its environment has begun an episode."""
    code = {
        "ours": (
            "from safer_offline.environments.bullet.simulated import SafetyEnvironment as E\n"
            f"E({env_id!r}).reset(0)"
        ),
        "original": (
            "import gymnasium, bullet_safety_gym\n"
            f"gymnasium.make({env_id!r}, disable_env_checker=True).unwrapped.reset()"
        ),
    }[module]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    rows = []
    for env_id in BULLET_IDS:
        steps, different = compare(env_id)
        theirs, ours = Original(env_id).environment, SafetyEnvironment(env_id)
        actions = actions_of(0, ours.action_space.shape[0], STEPS)
        bare, own = [], []
        for _ in range(ROUNDS):
            bare.append(rate(theirs, actions, bare=True, limit=ours.max_episode_steps))
            own.append(rate(ours, actions, bare=False, limit=ours.max_episode_steps))
        theirs.close()
        ours.close()
        ratios = [mine / other for mine, other in zip(own, bare, strict=True)]
        rows.append(
            {
                "task": short_name(env_id),
                "episodes compared": EPISODES,
                "steps compared": steps,
                "steps that differ": different,
                "original steps/s": round(statistics.median(bare)),
                "ours steps/s": round(statistics.median(own)),
                "ratio": round(statistics.median(ratios), 2),
                "lowest ratio": round(min(ratios), 2),
                "highest ratio": round(max(ratios), 2),
                "original start-up s": round(min(start_up(env_id, "original") for _ in "123"), 2),
                "ours start-up s": round(min(start_up(env_id, "ours") for _ in "123"), 2),
            }
        )
        print(rows[-1], flush=True)
        table = pd.DataFrame(rows)
        table.to_csv(Path(__file__).parent / "results" / "simulators.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
