"""Policies and what goes with them.

layers      standardisation, networks, ensembles of networks
actors      what a policy network must offer, and the kinds there are
gaussian    the kind that is used most
squashed    a Gaussian behind a tanh
candidates  the best of what a VAE proposes
vae         what actions the data take, as a variational autoencoder
diffusion   the safest of what is left of noise
switching   one of several Gaussians, by what its action would cost
conditioned Gaussians that are told something: the first, what the episode shall cost
foretold    a Gaussian that is told what shall follow a little later
limit_and_budget  several Gaussians, of which the limit and the attackers' budget say who acts
memory      policies that remember their episode, and episodes to act in
transformer one of them: reads its episode as a sequence
behavior    who acted in the data: a mixture of Gaussians
critics     values of actions and states, and their targets
trained     a policy as users hold it, and its file
aiming      telling it the limit and the budget that hold
digest      how a file proves that it is whole
"""
