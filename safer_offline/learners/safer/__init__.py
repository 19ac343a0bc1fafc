"""Offline SAFER, the algorithm of this package.

learner         the three stages, one update after the other
config          its settings
estimation      stage 1: critics, a model of the behaviour and a model of cost
offline_estep   stage 2: the E-step over episodes and over candidate actions
imitation       stage 3: the robust M-step
foretelling     in its place for what must be steered all the time: imitate what drivers meant
conditioned     all of it for several limits and budgets at once: told when it acts which hold
doubts          what is said where the first two do not carry the third
schedule        the learning rate within a stage
"""
