"""Collecting a dataset: behaviour policies act, on several processes, and a crash costs little.

recipe      who acts, where and how long; `recipes/` holds those of the published datasets
checks      a look at those who act, before the work
shards      the work cut into pieces of whole episodes
processes   shards on the cores of this machine
cluster     shards on a Ray cluster
collector   `collect`: from a recipe to a file
"""
