"""Offline safe reinforcement learning that stays safe under observation attacks."""
