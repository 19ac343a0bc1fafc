"""E-step: Newton on the dual against CVXPY with Clarabel, same batches, one thread.

    python benchmarks/estep.py        (some minutes; writes benchmarks/results/estep.csv)

K = 256 states, N = 64 actions, float64. One row is one case; times are medians in milliseconds:

newton_cold_ms, newton_warm_ms  `solve_estep` whole, checks and certificate included; the warm
                                start is 10 % off the solution
cvxpy_ms                        `solve_estep_cvxpy` whole: the problems to find out whether the
                                budget binds and is in reach, each stated, compiled and solved
cvxpy_one_ms                    the last of these problems alone: stated, compiled and solved
clarabel_one_ms                 Clarabel's own clock on that one problem, nothing of CVXPY

Each ratio divides by the Newton time of the whole E-step, which solves all of the problems.
"""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from safer_offline.estep import EStepResult, Multipliers, solve_estep, solve_estep_cvxpy
from safer_offline.estep.cvxpy_statement import state_primal
from safer_offline.estep.dual import EStepProblem

RESULTS = Path(__file__).parent / "results" / "estep.csv"
ACTIONS, STATES = 64, 256
CASES = {  # name: (kl_limit, cost_limit); costs have mean 5
    "active": (0.1, 4.9),
    "active, kl 0.5": (0.5, 4.7),
    "barely feasible": (0.1, 4.6),
    "inactive": (0.1, 6.0),
    "infeasible": (0.1, 0.0),
}


def main() -> None:
    torch.set_num_threads(1)
    table = pd.DataFrame([measure(name, *limits) for name, limits in CASES.items()])
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False, float_format="%.3g")
    print(table.T.to_string(float_format=lambda x: f"{x:.3g}"))


def measure(case: str, kl_limit: float, cost_limit: float) -> dict[str, float | str]:
    generator = torch.Generator().manual_seed(0)
    reward, noise = torch.randn(2, ACTIONS, STATES, generator=generator, dtype=torch.float64)
    cost = 5 + 0.5 * reward + noise
    solve = partial(solve_estep, reward, cost, cost_limit=cost_limit, kl_limit=kl_limit)
    solve_cvxpy = partial(solve_estep_cvxpy, reward, cost, cost_limit=cost_limit, kl_limit=kl_limit)

    newton, cvxpy = solve(), solve_cvxpy()
    start = Multipliers(1.1 * newton.eta, 0.9 * newton.lam)
    cold_ms = milliseconds(solve, 200)
    warm_ms = milliseconds(partial(solve, warm_start=start), 200)
    cvxpy_ms = milliseconds(solve_cvxpy, 5)
    last_problem = EStepProblem(
        reward=reward,
        cost=cost,
        base_weights=torch.full_like(reward, 1 / ACTIONS),
        kl_limit=kl_limit,
        budget=newton.cost_limit,
    )
    runs = [clarabel_once(last_problem) for _ in range(5)]
    one_ms, clarabel_ms = (statistics.median(column) for column in zip(*runs, strict=True))
    return {
        "case": case,
        "status": newton.status,
        "newton_cold_ms": cold_ms,
        "newton_warm_ms": warm_ms,
        "cvxpy_ms": cvxpy_ms,
        "cvxpy_one_ms": one_ms,
        "clarabel_one_ms": clarabel_ms,
        "cvxpy_over_cold": cvxpy_ms / cold_ms,
        "cvxpy_over_warm": cvxpy_ms / warm_ms,
        "clarabel_one_over_cold": clarabel_ms / cold_ms,
        "clarabel_one_over_warm": clarabel_ms / warm_ms,
        "value_difference_std": (mean(newton, reward) - mean(cvxpy, reward)) / float(reward.std()),
        "newton_violation": violation(newton, cost, kl_limit),
        "cvxpy_violation": violation(cvxpy, cost, kl_limit),
        "newton_kkt": newton.kkt_residual,
        "cvxpy_kkt": cvxpy.kkt_residual,
    }


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    return 1e3 * statistics.median(timeit.repeat(call, number=1, repeat=repeats))


def clarabel_once(problem: EStepProblem) -> tuple[float, float]:
    """Milliseconds to state, compile and solve one problem, and Clarabel's share of them."""
    began = time.perf_counter()
    primal, _ = state_primal(problem)
    primal.solve(solver="CLARABEL", max_step_fraction=0.9)
    return 1e3 * (time.perf_counter() - began), 1e3 * primal.solver_stats.solve_time


def mean(result: EStepResult, values: torch.Tensor) -> float:
    return float((result.weights * values).sum(0).mean())


def violation(result: EStepResult, cost: torch.Tensor, kl_limit: float) -> float:
    """Largest excess: of cost in standard deviations, of KL relative to its limit."""
    kl = float(torch.xlogy(result.weights, result.weights * ACTIONS).sum(0).mean())
    cost_excess = (mean(result, cost) - result.cost_limit) / float(cost.std())
    return max(cost_excess, kl / kl_limit - 1, 0.0)


if __name__ == "__main__":
    main()
