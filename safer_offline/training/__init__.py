"""Training: updates, logs, checkpoints, and resuming as if nothing had happened.

loop          `train`: any learner, any dataset, one run directory
checkpoints   all that a training needs to go on, in one file
devices       where networks are trained
"""
