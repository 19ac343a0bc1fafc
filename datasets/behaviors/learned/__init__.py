"""Behaviours that were learned.

families              actors that come with the package, as families of drivers
actor_files           the files they lie in
checkpoint_policies   `checkpoint:FILE`: whatever the file turns out to be
velocity              MuJoCo's runners, below, at and above their speed limit
stable_baselines      models of Stable-Baselines3
"""
