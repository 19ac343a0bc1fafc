"""Learning algorithms behind one small protocol.

base      what an algorithm must offer to be trained
simple    a learner with its bookkeeping done: begin your own here
registry  the names of algorithms, those of other packages and your own included
safer/    offline SAFER
cloning   behaviour cloning, of all episodes or of some
cpq       constraints penalized Q-learning
bcq_lag   batch-constrained Q-learning with a multiplier
bear_lag  support matching with a multiplier
coptidice imitation by the distribution of the best safe policy
fisor     the best reward where no cost need be, by a diffusion model
caps      several policies by implicit Q-learning, switched by a limit that is told later
safer_paper/      SAFER as published: E-steps over actions, critics of the improved policy
decoupled         its M-step: mean and deviation, each in a trust region
cdt       a transformer over sequences, told what they earn and cost
state     what a learner remembers, for checkpoints and devices
robust    attacked observations, for whatever fits a policy
selection which episodes an imitator looks at, and how much each counts
margins   what an episode would cost under attack
echoes    which coordinates only repeat the last action
constrained       what algorithms with a limit on the discounted cost share
lagrangian        what those with a multiplier share
expectile         what those on implicit Q-learning share
"""

from safer_offline.learners.base import Learner
from safer_offline.learners.bcq_lag import BCQLagConfig
from safer_offline.learners.bear_lag import BEARLagConfig
from safer_offline.learners.caps import CAPSConfig
from safer_offline.learners.cdt import CDTConfig
from safer_offline.learners.cloning import (
    BCBoundaryConfig,
    BCConfig,
    BCFrontierConfig,
    BCMultiTaskConfig,
    BCRiskyConfig,
    BCSafeConfig,
)
from safer_offline.learners.coptidice import COptiDICEConfig
from safer_offline.learners.cpq import CPQConfig
from safer_offline.learners.fisor import FISORConfig
from safer_offline.learners.registry import ALGORITHMS
from safer_offline.learners.safer.conditioned import SAFERConditionedConfig
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.learner import SAFER
from safer_offline.learners.safer_paper.config import SAFERPaperConfig
from safer_offline.learners.simple import SimpleLearner

__all__ = [
    "ALGORITHMS",
    "SAFER",
    "BCBoundaryConfig",
    "BCConfig",
    "BCFrontierConfig",
    "BCMultiTaskConfig",
    "BCQLagConfig",
    "BCRiskyConfig",
    "BCSafeConfig",
    "BEARLagConfig",
    "CAPSConfig",
    "CDTConfig",
    "COptiDICEConfig",
    "CPQConfig",
    "FISORConfig",
    "Learner",
    "SAFERConditionedConfig",
    "SAFERConfig",
    "SAFERPaperConfig",
    "SimpleLearner",
]
