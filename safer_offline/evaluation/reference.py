"""The returns that DSRL scales its own by, for comparison with what others publish.

DSRL normalises by the extreme episode returns of its datasets. Its tables are about other episodes
than the dataset of a policy here, so one policy has two scores; a report shows and names both.
Source: `dsrl.infos` of the package dsrl 0.1.0 (Liu et al., "Datasets and Benchmarks for Offline
Safe Reinforcement Learning", 2023), which registers the eight Bullet tasks under these ids.
"""

from __future__ import annotations

from safer_offline.context import EnvironmentContext

_DSRL: dict[str, tuple[int, float, float]] = {
    "SafetyAntCircle-v0": (500, 0.0177031010389328, 460.7091979980469),
    "SafetyAntRun-v0": (200, 0.001767391717990563, 955.4818725585938),
    "SafetyBallCircle-v0": (200, 0.38312244415283203, 881.46337890625),
    "SafetyBallRun-v0": (100, 26.339754104614258, 1327.445556640625),
    "SafetyCarCircle-v0": (300, 3.484419822692871, 534.3060913085938),
    "SafetyCarRun-v0": (200, 204.28726196289062, 574.6533203125),
    "SafetyDroneCircle-v0": (300, 207.794189453125, 996.38916015625),
    "SafetyDroneRun-v0": (200, 10.557029724121094, 682.8330078125),
}
"""Step limit, and the least and the largest return of an episode."""


def dsrl_range(context: EnvironmentContext) -> tuple[float, float] | None:
    """R_min and R_max of DSRL's dataset of this very task; None where DSRL has none.

    Another step limit is another task: returns would not compare.
    """
    steps, low, high = _DSRL.get(context.env_id, (0, 0.0, 0.0))
    return (low, high) if steps and context.max_episode_steps == steps else None
