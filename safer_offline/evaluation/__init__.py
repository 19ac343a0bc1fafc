"""How safe a policy stays when its observations are attacked, measured in simulation.

harness     `evaluate`: a policy, an environment, attacks and a budget
budgets     `evaluate_budgets`: the same with several budgets, and the curve through them
task        which environment is meant: what the policy carries, or what the user says
foreign     policies that others trained or wrote, as ours look to an attack
plan        all that the numbers depend on, as JSON and as a name
rollouts    episodes of an attacked policy, many at once
critics     critics that were fitted for an attack, so that the policy's own need not lead it
adversaries attacks that must first be found in whole episodes, and how they are
durations   how long an evaluation takes, before it begins
unfinished  what is done so far, for an evaluation that is interrupted
gates       what must hold of every evaluation
statistics  estimators on the episodes of one policy: plain functions of arrays
seeds       estimators over several trainings of one method
reference   the returns that DSRL scales its own by
results     what was found: every episode under every attack
remarks     what to know of attacks that were searched for
tables      the same as a table on screen
rendering   the same as files and a figure
curves      cost against budget as tables, files and a figure
comparison  several policies beside each other, start by start
trainings   which of them differ in the training seed alone
running     evaluations one after the other
side_by_side  a comparison as a table, files and a figure
outputs     one budget or several, on screen, as JSON and as files
folders     where they lie, so that none replaces another, and which there are
"""
