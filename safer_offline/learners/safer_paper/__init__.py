"""SAFER as its paper has it: E-steps over actions and robust M-steps, over and over.

Source: Liu et al., "Towards Robust and Safe Reinforcement Learning with Benign Off-policy Data",
ICML 2023, built on Liu et al., "Constrained Variational Policy Optimization for Safe Reinforcement
Learning", ICML 2022. In each update, with critics Q and Qc,

    E-step   max_q  mean_k sum_i q_ik Q(s_k, a_ik)
             s.t.   mean_k sum_i q_ik Qc(s_k, a_ik) <= d,   mean_k KL(q_k || w_k) <= kl_limit;
    M-step   min_pi -mean_k sum_i q_ik log pi(a_ik | s_k), within a trust region about the last pi
             (`decoupled`), and the same where an adversary shows s_hat instead of s (`robust`).

`safer` is what we made of it: one E-step over episodes in place of these, with a margin, recovery
and supervised critics; this one is here to measure what that adds. The paper's agent goes on
collecting. What a fixed dataset changes is

* Candidates a_i are drawn from a model of the behaviour, never from pi, which may lie outside of
  the data. So is the anchor w, and the KL limit is one on the whole way from the data: ten times
  the authors', which is for one step from the last policy. `anchor="policy", kl_limit=0.1` is
  theirs, with w_i = pi(a_i | s) / behaviour(a_i | s): the last policy as far as data support it.
* Critics evaluate q through such candidates at s', weighed by the same E-step:

      y = r + discount * sum_i q_i(s') Q'(s', a_i),   yc = c + discount * sum_i q_i(s') Qc'(s', a_i)

* Q is a lower and Qc an upper estimate of an ensemble, where the authors' code takes the least
  member for both (`reward_deviations`, `cost_deviations`); yc stays within what a cost can be.
* At first, critics are fitted to what the data's episodes went on to earn and cost, and the policy
  to their actions: critics that begin at zero promise safety everywhere (`warmup_share=0`).
* The trust region is about the policy of the last update, as in FSRL's CVPO. Its multipliers are
  solved and its limits kept after every gradient step; the authors' follow the excess up to a cap,
  and nothing keeps a limit (`trust_region="penalised"`).
* The limit is one on the mean over states of the data, many of which a safe policy never meets.
  Where no q in reach keeps it, the least cost in reach (almost) takes its place: `relaxed` in the
  log, and a warning if that is so in most of the last E-steps.
* Targets of cost end where an episode does; the authors' go on (`cost_ends=False`).
* The policy is a diagonal Gaussian; theirs has a full covariance.

The authors' code that is public finds attacked observations and has no loss for them. The term here
is that of `robust`: what the M-step maximises at s, q's likelihood, at s_hat as well.

config     the settings
learner    E-step, critics, M-step
attacked   whom attacks meet in the M-step
"""
