"""Policies and what goes with them.

layers      standardisation, networks, ensembles of networks
gaussian    the policy network
behavior    who acted in the data: a mixture of Gaussians
critics     values of actions, and their targets
trained     a policy as users hold it, and its file
digest      how a file proves that it is whole
"""
