"""Drivers written by hand, one module a family of tasks.

circle   ball and car round the circle
run      ball and car straight ahead
drone    both tasks of the drone
ant      a learned gait, steered
"""
