"""Learning algorithms, one module each, behind one small protocol."""

from safer_offline.learners.base import Learner
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.learner import SAFER

__all__ = ["SAFER", "Learner", "SAFERConfig"]
