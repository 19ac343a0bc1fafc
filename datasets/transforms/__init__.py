"""Datasets made from datasets.

episodes    splitting and sampling, by whole episodes
filtering   choosing episodes by cost, return and density
merging     one dataset of several
"""
