"""Environments by name, made deterministic, many at once. Learning never imports this package.

tasks               names of the eight Bullet tasks
names               what any other name means
source              which environment is meant; it can be sent to other processes and makes one
base                what collection and evaluation know of an environment
bullet              the Bullet tasks, with their seeding repaired
gymnasium_adapter   any Gymnasium environment with a cost, held to its promises
vector              many environments on several processes
checking            what is wrong with an environment of one's own, and the remedy
"""
