"""Attacks that must be found in whole episodes of their victim, before they can be met.

An attack in `safer_offline.attacks` decides a single step and knows no simulator. What to do over
an episode is searched for here: `rehearse` does it for every attack that `needs_rehearsal`, in
episodes other than those that it is then judged on. What was found is kept in files, if there is a
folder for them, so that it is found once.

rehearse   how each kind of attack is found
rehearsal  the victim in the simulator
bias       the constant offset that harms most, by corners and the cross-entropy method
problem    the victim and its simulator as an environment, in which perturbations are the actions
learned    an adversary that learns in it, by Stable-Baselines3
"""
