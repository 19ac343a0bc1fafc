"""The settings of SAFER as published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from safer_offline.attacks import training_attacks
from safer_offline.errors import UsageError
from safer_offline.estep import ESTEP_SOLVERS
from safer_offline.learners.constrained import ConstrainedConfig, require_positive
from safer_offline.learners.robust import RobustConfig


@dataclass(frozen=True, kw_only=True)
class SAFERPaperConfig(RobustConfig, ConstrainedConfig):
    """Settings of SAFER as published (Liu et al., ICML 2023; CVPO: Liu et al., ICML 2022).

    Defaults are those of the authors' code, or of FSRL's CVPO where theirs has none, but for what
    the module names.

    Attributes:
        kl_limit: KL limit of the E-step; the authors' is 0.1 from the last policy.
        anchor: What that KL is from: the behaviour, or, as in the paper, the last policy.
        sampled_actions: Candidates at a state. The authors have 64, for twice the time; from
            10 exp(kl_limit) on, that limit is far below their logarithm, the largest KL there is.
        estep_solver: `newton`, or `cvxpy` for the same problem in a general-purpose solver.
        reward_deviations: Standard deviations of its ensemble by which a value is lowered.
        cost_deviations: The same, by which a cost is raised.
        cost_ends: Whether targets of cost end where an episode does; the authors' go on (false).
        target_rate: Share of the new weights that target networks take over in each update.
        warmup_share: Part of the training before the first E-step, in which critics are fitted to
            observed sums and the policy to the data.
        mixture_components: Gaussians in the model of the behaviour.
        behavior_rate: Its learning rate.
        mstep_iterations: Gradient steps of an M-step.
        mean_kl_limit: Trust region of the policy's mean: its KL from the last policy, averaged over
            the states of a batch.
        deviation_kl_limit: Trust region of its deviation, likewise.
        trust_region: `held`: multipliers are solved and both limits kept. `penalised`: multipliers
            are moved by how far a limit is exceeded, up to a cap, as in the authors' code.
        multiplier_steps: How far they are moved by that, for mean and deviation.
        multiplier_caps: Their caps. Both count for a likelihood that is averaged over candidates,
            as there.
        adversarial_weight: Weight of attacked observations in the M-step, against 1 for true ones.
        attacks: Who attacks them, each an equal part of a batch.
    """

    actor_rate: float = 5e-4
    hidden_sizes: tuple[int, ...] = (128, 128)
    critic_hidden_sizes: tuple[int, ...] = (128, 128)
    batch_size: int = 256
    kl_limit: float = 1.0
    anchor: Literal["behavior", "policy"] = "behavior"
    sampled_actions: int = 32
    estep_solver: Literal["newton", "cvxpy"] = "newton"
    reward_deviations: float = 1.0
    cost_deviations: float = 1.0
    cost_ends: bool = True
    target_rate: float = 0.005
    warmup_share: float = 0.25
    mixture_components: int = 5
    behavior_rate: float = 1e-3
    mstep_iterations: int = 5
    mean_kl_limit: float = 0.01
    deviation_kl_limit: float = 1e-4
    trust_region: Literal["held", "penalised"] = "held"
    multiplier_steps: tuple[float, float] = (1.0, 100.0)
    multiplier_caps: tuple[float, float] = (0.1, 10.0)
    adversarial_weight: float = 1.0
    attacks: tuple[str, ...] = ("mc",)

    def __post_init__(self) -> None:
        RobustConfig.__post_init__(self)
        ConstrainedConfig.__post_init__(self)
        require_positive(
            self, "kl_limit", "mixture_components", "behavior_rate", "mstep_iterations",
            "mean_kl_limit", "deviation_kl_limit",
        )  # fmt: skip
        for name in ("reward_deviations", "cost_deviations"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be >= 0 and finite, but is {getattr(self, name)}")
        for name in ("multiplier_steps", "multiplier_caps"):
            if not all(0 <= value < math.inf for value in getattr(self, name)):
                raise UsageError(f"{name} must be two numbers >= 0, but is {getattr(self, name)}")
        if self.sampled_actions < 2:
            raise UsageError(f"sampled_actions must be >= 2, but is {self.sampled_actions}")
        if not 0 < self.target_rate <= 1:
            raise UsageError(f"target_rate must be > 0 and <= 1, but is {self.target_rate}")
        if not 0 <= self.warmup_share < 1:
            raise UsageError(f"warmup_share must be >= 0 and below 1, but is {self.warmup_share}")
        for name, known in (
            ("anchor", ("behavior", "policy")),
            ("estep_solver", tuple(ESTEP_SOLVERS)),
            ("trust_region", ("held", "penalised")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} must be {' or '.join(known)}, but is {getattr(self, name)}"
                )
        training_attacks(self.attacks, steps=self.attack_steps)
