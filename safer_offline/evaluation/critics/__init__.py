"""Critics that the evaluator fits itself, so that a defender's own need not lead the attack.

sources     what critics can be fitted to, and which attacks they lead
settings    how they are fitted
experience  what they are fitted to: some of a dataset, or episodes made for them in the simulator
fitted_q    fitted Q evaluation: what reward and cost follow an action if the policy goes on
quality     whether they rank episodes that they have not seen
finding     all of it for one policy, kept in files to be done once
"""
