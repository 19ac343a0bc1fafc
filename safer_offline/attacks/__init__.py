"""Observation attacks, one class each."""
