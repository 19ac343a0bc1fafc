"""The settings of offline SAFER."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from safer_offline.attacks import training_attacks
from safer_offline.errors import UsageError
from safer_offline.estep import ESTEP_SOLVERS
from safer_offline.learners.robust import RobustConfig


@dataclass(frozen=True, kw_only=True)
class SAFERConfig(RobustConfig):
    """Settings of offline SAFER.

    Attributes:
        cost_limit: Largest expected cost of an episode, undiscounted.
        margin: Part of the budget that a path must stay clear of cost by to be imitated. More is
            safer under attack and slower without.
        estep_solver: `newton`, or `cvxpy` for the same problem in a general-purpose solver.
        limit_each_episode: Whether only episodes are followed that cost at most the limit each.
            Else they do on average, as in the paper, and where costs are all or nothing, as under
            a speed limit, some that break it are imitated.
        episode_share: Effective share of the episodes that the E-step may concentrate on; its KL
            limit is the logarithm of one over this.
        candidates: Actions that the E-step chooses among at a state: the data's own and samples
            of the behaviour model.
        candidate_kl: KL limit of that choice, averaged over states.
        recovery_states: States at which it is made, drawn from all of the data.
        recovery_weight: Weight of these states in the M-step, against 1 for the chosen episodes.
            Among themselves they count by how much the E-step has to say there (`information`).
        recovery_horizon: Only states count among them at which cost within the margin followed in
            the data, within so many steps; 0 takes all, which is slower and may come to a stand.
        read_last_action: Whether the policy reads coordinates that only repeat the last action
            (`echoes`), which imitation would copy and an attacker would own.
        foretold: Steps ahead, from and to, whose mean reward and cost the policy is told while it
            imitates all of the data (`foretelling`), in place of the robust M-step; empty is none.
        carry_noise: Whether, in that imitation, the noise of an action is explained by that of the
            action before it; it matters only with `foretold`.
        correction_weight: How much more often, in that imitation, steps are drawn whose reward is
            unlike what follows (`corrections`); 0 draws all alike.
        adversarial_weight: Weight of attacked observations in the M-step, against 1 for true ones;
            `ramp_share` is a share of that stage.
        attacks: Who attacks them, each an equal part of a batch. Whoever tempts (`mc`, `mr`) makes
            the policy too careful; who holds it back (`minr`) undoes that.
        discount: Of the critics, below 1.
        critic_members: Networks in each critic ensemble.
        cost_deviations: Standard deviations of the ensemble that are added to a cost estimate.
        mixture_components: Gaussians in the behaviour model.
        estimation_share: Part of all updates spent on stage 1.
        hidden_sizes: Hidden layers of policy, critics and behaviour model.
        batch_size: Rows of a batch; the M-step takes one of each kind.
        learning_rate: Of all networks; falls to zero over the last 40 % of a stage.
        averaging_rate: The policy that is kept is an exponential average of the fitted one, at
            this rate.
    """

    cost_limit: float = 10.0
    margin: float = 0.5
    estep_solver: Literal["newton", "cvxpy"] = "newton"
    limit_each_episode: bool = False
    episode_share: float = 0.1
    candidates: int = 16
    candidate_kl: float = 1.0
    recovery_states: int = 20_000
    recovery_weight: float = 0.6
    recovery_horizon: int = 30
    read_last_action: bool = False
    foretold: tuple[int, ...] = ()
    carry_noise: bool = True
    correction_weight: float = 1.0
    adversarial_weight: float = 1.0
    attacks: tuple[str, ...] = ("mc", "mr", "mad", "minr")
    discount: float = 0.99
    critic_members: int = 2
    cost_deviations: float = 1.0
    mixture_components: int = 5
    estimation_share: float = 0.25
    hidden_sizes: tuple[int, ...] = (128, 128)
    batch_size: int = 256
    learning_rate: float = 1e-3
    averaging_rate: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        training_attacks(self.attacks, steps=self.attack_steps)
        for name in (
            "cost_limit",
            "margin",
            "recovery_weight",
            "correction_weight",
            "cost_deviations",
        ):
            _require(0 <= getattr(self, name) < math.inf, self, name, ">= 0 and finite")
        for name in ("episode_share", "estimation_share", "averaging_rate", "discount"):
            _require(0 < getattr(self, name) < 1, self, name, "between 0 and 1")
        for name in ("candidate_kl", "learning_rate"):
            _require(0 < getattr(self, name) < math.inf, self, name, "> 0 and finite")
        for name in ("critic_members", "mixture_components", "batch_size"):
            _require(getattr(self, name) >= 1, self, name, ">= 1")
        _require(
            bool(self.hidden_sizes) and min(self.hidden_sizes) >= 1,
            self,
            "hidden_sizes",
            "one or more numbers >= 1",
        )
        _require(self.candidates >= 2, self, "candidates", ">= 2")
        _require(self.recovery_states >= 1, self, "recovery_states", ">= 1")
        _require(self.recovery_horizon >= 0, self, "recovery_horizon", ">= 0")
        window = self.foretold
        _require(
            not window or (len(window) == 2 and 0 <= window[0] < window[1]),
            self,
            "foretold",
            "two numbers of steps, from and to, such as 15,45, or nothing",
        )
        if window and (self.adversarial_weight or self.recovery_weight):
            raise UsageError(
                "what is foretold takes the place of attacks and recovery in training: set "
                "adversarial_weight=0 and recovery_weight=0 with it"
            )
        _require(self.estep_solver in ESTEP_SOLVERS, self, "estep_solver", "newton or cvxpy")


AFTER_STAGE_1 = frozenset(
    {
        *(f.name for f in dataclasses.fields(RobustConfig)),
        "cost_limit",
        "margin",
        "estep_solver",
        "limit_each_episode",
        "episode_share",
        "candidates",
        "candidate_kl",
        "recovery_states",
        "recovery_weight",
        "recovery_horizon",
        "attacks",
        "foretold",
        "carry_noise",
        "correction_weight",
        "cost_deviations",
        "averaging_rate",
    }
)
"""Settings that stage 1 knows nothing of: where only these differ, it comes out the same."""

UNATTACKED: Mapping[str, Any] = {
    "adversarial_weight": 0.0,
    "recovery_weight": 0.0,
    "margin": 0.25,
    "limit_each_episode": True,
}
"""Settings for where nobody attacks (`--no-robust`).

Recovery and margin cost return that only attacks make worth while: on Car-Circle the defaults
without attacks in training return 283, these 366. What is left of the margin is for the errors of
the imitation itself.
"""

ALTERNATIVES: tuple[Mapping[str, Any], ...] = (
    {
        "limit_each_episode": True,
        "margin": 0.75,
        "recovery_weight": 3.0,
        "adversarial_weight": 1.0,
        "attacks": ("mc", "mr", "mad"),
    },
    {
        "limit_each_episode": True,
        "margin": 2.0,
        "recovery_weight": 0.0,
        "adversarial_weight": 0.0,
        "foretold": (15, 45),
    },
)
"""Settings that serve some data better than the defaults (`foresight.choose_where_needed`).

1. For speed limits and gaits: half as much margin again, nobody followed who speeds, and more of
   who comes back. Under the seven attacks of evaluation it took Ball-Run from a worst cost of 37 to
   between 2 and 9 and Ant-Run from 16 to 6, at the same natural return; Car-Circle, which needs
   none of it, it would cost a quarter of its return. At a margin of 1 Ant-Run returns 494 instead
   of 552, and Ball-Run 384 instead of 394, and neither costs less (16 episodes of seed 7, before
   `recovery_horizon`). Nobody holds back here: with `minr` the worst costs are 9.9 on Ball-Run and
   8.5 and 9.2 on Ant-Run (training seeds 0, and 0 and 1), too near the limit.
2. For what is steered all the time, as what flies: who stays clear of cost is imitated by what was
   meant (`foretelling`), and nothing is attacked in training, which flattens the gains that an
   unstable plant lives on. Drone-Run then keeps the limit under half of the budget, where a clone
   breaks it under an eighth, and Drone-Circle returns 513 / 0.0 unattacked, where the defaults
   have 49 / 29.
"""

BOLDER: tuple[Mapping[str, Any], ...] = ({"adversarial_weight": 0.25},)
"""Settings of less care, for data on which the defaults are foreseen to cost next to nothing.

Attacked observations count a quarter: Ball-Circle then returns 549 instead of 485, and 321 instead
of 345 under MAD, at a worst cost of 0.2 (16 episodes of seed 7; foreseen 0.8; all of this before
`recovery_horizon`). With half of the margin and half of the weight it returns 541, 373 under MAD,
but is foreseen to cost 2.4; with half of the margin and of the recovery 525, 447 and 4.1. On
Car-Circle half of the weight is worth no return and costs 22 under MR.
"""


def _require(holds: bool, config: SAFERConfig, name: str, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} must be {expected}, but is {getattr(config, name)}")
