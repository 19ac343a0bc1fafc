"""The constrained E-step, one convex problem.

problem             `solve_estep`: what is solved, and what is done where nothing is feasible
dual                the two-variable dual and Newton's method on it
cvxpy_statement     the same problem as stated, for CVXPY
"""

from safer_offline.estep.problem import (
    ESTEP_SOLVERS,
    EStepResult,
    EStepSolver,
    Multipliers,
    solve_estep,
    solve_estep_cvxpy,
)

__all__ = [
    "ESTEP_SOLVERS",
    "EStepResult",
    "EStepSolver",
    "Multipliers",
    "solve_estep",
    "solve_estep_cvxpy",
]
