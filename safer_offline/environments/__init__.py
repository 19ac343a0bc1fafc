"""Environments by name, made deterministic, many at once. Learning never imports this package.

tasks               names of the tasks that come with the package
names               what any other name means
source              which environment is meant; it can be sent to other processes and makes one
base                what collection and evaluation know of an environment
bullet/             the Bullet tasks: ball, car, drone and ant, in a circle or straight ahead
mujoco              MuJoCo's runners with a speed limit
gymnasium_adapter   any Gymnasium environment with a cost, held to its promises
vector              many environments on several processes
processes           such a process, and what it says when something fails
checking            what is wrong with an environment of one's own, and the remedy
"""
