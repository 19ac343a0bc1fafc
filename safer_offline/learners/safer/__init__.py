"""Offline SAFER, the algorithm of this package.

learner         the three stages, one update after the other
config          its settings
offline_estep   the E-step over episodes and over candidate actions
"""
