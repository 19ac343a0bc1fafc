"""What no attack within the budget can do to one action: proven, not searched for.

certificate  `certify`: a policy, the states that it visited, a budget
measures     what is proven beside what an attack finds, at each state
networks     which policies are a network that can be bounded, and that network
bounds       intervals of all that a network may answer, for a box of inputs
words        the same in sentences, and what must hold and does not
"""
