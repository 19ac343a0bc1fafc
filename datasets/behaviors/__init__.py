"""Scripted behaviour policies, one module a task family."""
