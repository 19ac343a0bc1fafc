"""The eight Bullet tasks: four robots, each of which shall circle or run without leaving its lane.

Robots, worlds, rewards and costs are those of Bullet-Safety-Gym 1.4 (Gronauer, "Bullet-Safety-Gym:
A Framework for Constrained Reinforcement Learning", 2022), number for number: a test steps both
side by side. What is ours is what that package lacks: an episode is a function of its seed and its
actions, whatever ran before; no global state; fewer calls a step; every Python that has pybullet.

engine        one physics server, and its state
robot         what a task knows of a robot
ball, car, drone, ant   the robots: how they act, what they observe, what they pay themselves
task          what an environment knows of a task
circle, run   the tasks: world, start, reward, cost
environment   robot and task as a Gymnasium environment
simulated     the same as collection and evaluation drive it
bodies/       shapes and masses; chassis.stl is the convex hull of the car's, the rest are texts
"""
