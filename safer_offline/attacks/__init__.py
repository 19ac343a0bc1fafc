"""Observation attacks, one class each, and their names.

base        what an attack is, and projected gradient ascent
budget      how far an attack may move an observation
random      none, and two kinds of noise
divergence  MAD and AMAD: the policy shall act unlike itself
critic      MC, MR, min-reward: the policy shall do what costs, tempts or earns nothing
both_critics  mixtures of cost and reward, a lure, MC at a share of the steps
jointly     several on one batch at once, for training
training    attacks by name as training wants them
selective   attacks that tell observations apart, or leave most alone
search      the same by asking for actions alone, for policies that pass no gradients on
bias        a constant offset, or one that grows, which must first be found in whole episodes
learned     a network, which must first learn in whole episodes
with_critics  a victim that is judged by other critics than its own
noise       where their random numbers come from
registry    their names, also of attacks of your own, and their settings as text
"""

from __future__ import annotations

from safer_offline.attacks.base import ActionAttack, Attack, AttackTarget, GradientAttack
from safer_offline.attacks.bias import Bias, Drift
from safer_offline.attacks.both_critics import Lure, Mixed, Timed
from safer_offline.attacks.budget import EpsilonUnits, attack_budget
from safer_offline.attacks.critic import CoupledMaxCost, MaxCost, MaxReward, MinReward
from safer_offline.attacks.divergence import AMAD, MAD
from safer_offline.attacks.jointly import Jointly
from safer_offline.attacks.learned import AdversaryNetwork, Learned, load_adversary
from safer_offline.attacks.noise import GeneratorNoise, NoiseSource, RowNoise
from safer_offline.attacks.random import Gaussian, Natural, Uniform
from safer_offline.attacks.registry import (
    ATTACKS,
    NO_CRITIC,
    attack_settings,
    make_attack,
    preset_of,
    relabelled,
    resolve_attacks,
)
from safer_offline.attacks.search import Search
from safer_offline.attacks.training import training_attacks
from safer_offline.attacks.with_critics import Critics, WithCritics, judged_by

__all__ = [
    "AMAD",
    "ATTACKS",
    "MAD",
    "NO_CRITIC",
    "ActionAttack",
    "AdversaryNetwork",
    "Attack",
    "AttackTarget",
    "Bias",
    "CoupledMaxCost",
    "Critics",
    "Drift",
    "EpsilonUnits",
    "Gaussian",
    "GeneratorNoise",
    "GradientAttack",
    "Jointly",
    "Learned",
    "Lure",
    "MaxCost",
    "MaxReward",
    "MinReward",
    "Mixed",
    "Natural",
    "NoiseSource",
    "RowNoise",
    "Search",
    "Timed",
    "Uniform",
    "WithCritics",
    "attack_budget",
    "attack_settings",
    "judged_by",
    "load_adversary",
    "make_attack",
    "preset_of",
    "relabelled",
    "resolve_attacks",
    "training_attacks",
]
