"""Learning algorithms behind one small protocol.

base      what an algorithm must offer to be trained
simple    a learner with its bookkeeping done: begin your own here
registry  the names of algorithms, those of other packages and your own included
safer/    offline SAFER
cloning   behaviour cloning, of all or of safe episodes
cpq       constraints penalized Q-learning
bcq_lag   batch-constrained Q-learning with a multiplier
bear_lag  support matching with a multiplier
coptidice imitation by the distribution of the best safe policy
state     what a learner remembers, for checkpoints
constrained       what algorithms with a limit on the discounted cost share
lagrangian        what those with a multiplier share
mstep, margins    parts that algorithms share
"""

from safer_offline.learners.base import Learner
from safer_offline.learners.bcq_lag import BCQLagConfig
from safer_offline.learners.bear_lag import BEARLagConfig
from safer_offline.learners.cloning import BCConfig, BCSafeConfig
from safer_offline.learners.coptidice import COptiDICEConfig
from safer_offline.learners.cpq import CPQConfig
from safer_offline.learners.registry import ALGORITHMS
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.learner import SAFER
from safer_offline.learners.simple import SimpleLearner

__all__ = [
    "ALGORITHMS",
    "SAFER",
    "BCConfig",
    "BCQLagConfig",
    "BCSafeConfig",
    "BEARLagConfig",
    "COptiDICEConfig",
    "CPQConfig",
    "Learner",
    "SAFERConfig",
    "SimpleLearner",
]
