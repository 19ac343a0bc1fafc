"""Datasets made from datasets: filtered, thinned, split, sampled, merged."""
