"""Drivers written by hand, one module a family of tasks."""
