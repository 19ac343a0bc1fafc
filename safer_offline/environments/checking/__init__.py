"""What is wrong with an environment of one's own, and what to do about it.

checks      the check as a whole: what is looked at, in which order
probing     driving the environment to see how it behaves
findings    what can be found, in words
"""
