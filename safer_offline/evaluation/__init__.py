"""How safe a policy stays when its observations are attacked, measured in simulation.

harness     `evaluate`: a policy, an environment, attacks and a budget
rollouts    episodes of an attacked policy, many at once
statistics  estimators: plain functions of arrays
results     what was found: every episode under every attack
rendering   the same as a table, files and a figure
"""
