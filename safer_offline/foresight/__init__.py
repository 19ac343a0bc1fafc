"""What a policy would do, foreseen from the dataset alone: nothing here touches a simulator.

model       an ensemble that predicts the next observation, reward, cost and end
episodes    whole episodes of a policy inside of it, natural and attacked
worst_bias  the constant offset of the sensors that harms most there
estimate    return and cost of these with intervals, and whether they are to be believed
runs        the same for run directories
preference  what is best, going by that
choice      settings chosen by it
"""

from safer_offline.foresight.choice import Choice, choose, choose_where_needed
from safer_offline.foresight.episodes import Foreseen, foresee_episodes
from safer_offline.foresight.estimate import Estimate, Foresight, foresee
from safer_offline.foresight.model import DynamicsConfig, DynamicsEnsemble, fit_dynamics
from safer_offline.foresight.preference import Alternative

__all__ = [
    "Alternative",
    "Choice",
    "DynamicsConfig",
    "DynamicsEnsemble",
    "Estimate",
    "Foreseen",
    "Foresight",
    "choose",
    "choose_where_needed",
    "fit_dynamics",
    "foresee",
    "foresee_episodes",
]
