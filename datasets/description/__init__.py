"""A dataset described: how much, how good, how safe, and who acted.

summary     in numbers
plots       return against cost, one dot an episode
"""
