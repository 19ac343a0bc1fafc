"""Training of an adversary against one victim, by Stable-Baselines3's SAC."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from safer_offline.attacks.budget import Box
from safer_offline.attacks.learned import AdversaryNetwork, Learned, load_adversary
from safer_offline.datasets.behaviors.learned.stable_baselines import stable_baselines
from safer_offline.environments.vector import VectorEnvironment
from safer_offline.errors import CheckpointError
from safer_offline.evaluation.adversaries.rehearsal import Rehearsal, Totals, rehearsal_seeds

if TYPE_CHECKING:
    from stable_baselines3 import SAC

    from safer_offline.evaluation.adversaries.problem import StateAdversarialProblem

METHOD = 1
"""To be counted up with every change of the training: what was kept before is then trained anew."""

ROWS = 16
"""Episodes at a time; an update of the networks costs more than a step of all of them."""

GRADIENT_STEPS = 8
"""Updates after each step of all rows."""

UPDATE_WORK = 40
"""Steps of a simulator that take as long as an update, roughly."""

HIDDEN_SIZES = (64, 64)
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
DISCOUNT = 0.99

ENTROPY = "auto_0.1"
"""Begins low: from 1, it would take a thousand updates to matter less than costs do."""

EXPLORED = 0.1
"""Share of the steps, but at least an episode in each row, in which perturbations are random and
constant over many steps: what changes at every step leads nowhere, and from costs that were never
met nothing can be learned."""

CONSTANT_STEPS = 50
"""How long a random perturbation stays."""

CHECKS = 10
"""How many times a training is interrupted to measure what was learned."""

# Parts of the seeds: one for each use.
_OBSERVE, _JUDGE, _LEARN = 1001, 1002, 1003


def train_adversary(attack: Learned, rehearsal: Rehearsal) -> Learned:
    """The attack with the network that harmed most in episodes of the rehearsal.

    Each training is interrupted several times to measure what was learned so far in episodes other
    than those of learning; of all that was measured, in all restarts, the best is kept.

    Same seed, same machine, same adversary. The global random generators, which SB3 seeds, are
    afterwards as they were.

    Raises:
        UsageError: If Stable-Baselines3 is not installed.
    """
    trainings = []
    for restart in range(attack.restarts):
        single = Learned(steps=attack.steps, seed=attack.seed + restart)
        settings = {"steps": single.steps, "seed": single.seed, "method": METHOD}
        file = rehearsal.file_for("learned", settings, suffix=".safetensors")
        kept = None if file is None else _read(file)
        if kept is None:
            kept = _train(single, rehearsal)
            if file is not None:
                kept.save(file)
        else:
            rehearsal.bar.advance(training_work(attack.steps))
        trainings.append(kept)
    best = max(trainings, key=lambda one: max(map(harm_of, one.curve)))
    return attack.having_learned(best.trained_network, curve=best.curve, trained_on=best.trained_on)


def harm_of(point: Mapping[str, float]) -> tuple[float, float]:
    """What trainings are ranked by, of a point of their curve; see `Totals.harm`."""
    return point["cost"], -point["return"]


def training_work(steps: int) -> float:
    """What one training counts as, in steps of the simulator."""
    return steps * (1 + UPDATE_WORK * GRADIENT_STEPS / ROWS)


def _read(file: Path) -> Learned | None:
    """What an earlier training gave; None if there was none, or its file is damaged."""
    try:
        return load_adversary(file)
    except CheckpointError:
        return None


def _train(attack: Learned, rehearsal: Rehearsal) -> Learned:
    """One training; see `train_adversary`."""
    stable_baselines("attack 'learned'")
    from safer_offline.evaluation.adversaries.problem import (  # noqa: PLC0415 - needs SB3
        StateAdversarialProblem,
    )

    work = training_work(ROWS)
    with rehearsal.simulators(ROWS) as simulators, as_before():
        mean, std = _observed(rehearsal, simulators, attack.seed)
        network = AdversaryNetwork(len(mean), hidden_sizes=HIDDEN_SIZES)
        network.mean.copy_(mean)
        network.std.copy_(std)
        network.free.copy_(rehearsal.budget > 0)
        # More than any training needs: no episode is shorter than a step.
        seeds = rehearsal_seeds(attack.seed, attack.steps + (CHECKS + 2) * ROWS, part=_LEARN)
        problem = StateAdversarialProblem(
            rehearsal, simulators, seeds=iter(seeds), mean=mean, std=std
        )
        model = _sac(problem, attack)
        judge = _Judge(network, rehearsal, simulators)

        def advance(*_: object) -> bool:
            rehearsal.bar.advance(work)
            return True

        least = min(attack.steps // 2, ROWS * simulators.max_episode_steps)
        random_steps = max(int(EXPLORED * attack.steps), least)
        _explore(model, problem, random_steps, seed=attack.seed, advance=advance)
        judge(model, random_steps)
        for before, after in itertools.pairwise(_checks(random_steps, attack.steps)):
            # Measuring took the simulators: episodes begin anew.
            model._last_obs = None
            model.learn(after - before, callback=advance)
            judge(model, after)
    return judge.best(attack)


def _checks(first: int, last: int) -> list[int]:
    """After how many steps to measure, `first` and `last` included."""
    return sorted(set(np.linspace(first, last, CHECKS + 1).astype(int).tolist()))


class _Judge:
    """Measures what was learned, and keeps the best."""

    def __init__(
        self, network: AdversaryNetwork, rehearsal: Rehearsal, simulators: VectorEnvironment
    ) -> None:
        self._network = network
        self._rehearsal = rehearsal
        self._simulators = simulators
        # The same for all trainings, which are compared with one another.
        self._seeds = rehearsal_seeds(0, ROWS, part=_JUDGE)
        self._curve: list[dict[str, float]] = []
        self._best: dict[str, Tensor] = {}

    def __call__(self, model: SAC, steps: int) -> None:
        """Measure the model as it is after so many steps."""
        _copy_actor(model, self._network)
        totals = _episodes_under(self._network, self._rehearsal, self._seeds, self._simulators)
        cost, loss = totals.harm()
        point = {"steps": steps, "cost": cost, "return": -loss}
        if not self._curve or harm_of(point) > max(map(harm_of, self._curve)):
            state = self._network.state_dict()
            self._best = {name: tensor.clone() for name, tensor in state.items()}
        self._curve.append(point)
        self._rehearsal.bar.advance(0, learned=f"cost {cost:.3g}")

    def best(self, attack: Learned) -> Learned:
        """The attack with the most harmful that was measured."""
        self._network.load_state_dict(self._best)
        return attack.having_learned(
            self._network, curve=self._curve, trained_on=self._rehearsal.identity
        )


def _sac(problem: StateAdversarialProblem, attack: Learned) -> SAC:
    from stable_baselines3 import SAC  # noqa: PLC0415 - an optional package

    return SAC(
        "MlpPolicy",
        problem,
        learning_rate=LEARNING_RATE,
        buffer_size=attack.steps + ROWS,
        learning_starts=0,
        batch_size=BATCH_SIZE,
        gamma=DISCOUNT,
        ent_coef=ENTROPY,
        train_freq=1,
        gradient_steps=GRADIENT_STEPS,
        policy_kwargs={"net_arch": list(HIDDEN_SIZES)},
        seed=attack.seed,
        device="cpu",
    )


def _explore(
    model: SAC,
    problem: StateAdversarialProblem,
    steps: int,
    *,
    seed: int,
    advance: Callable[[], object],
) -> None:
    """Fill the replay buffer with what random corners of the budget, held for a while, lead to."""
    assert model.replay_buffer is not None
    generator = np.random.default_rng(seed)
    shape = (problem.num_envs, *(problem.action_space.shape or ()))
    observed, actions = problem.reset(), np.zeros(shape, np.float32)
    for step in range(max(1, steps // problem.num_envs)):
        if step % CONSTANT_STEPS == 0:
            actions = generator.choice(np.array([-1, 1], np.float32), size=shape)
        problem.step_async(actions)
        following, rewards, done, infos = problem.step_wait()
        after = following.copy()
        for row in np.flatnonzero(done).tolist():
            after[row] = infos[row]["terminal_observation"]
        model.replay_buffer.add(observed, after, actions, rewards, done, infos)
        observed = following
        advance()


def _copy_actor(model: SAC, network: AdversaryNetwork) -> None:
    """The weights of SB3's actor: its trunk is `latent_pi`, its mean `mu`, squashed by tanh."""
    state = model.policy.actor.state_dict()
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for place, layer in enumerate(linear[:-1]):
            layer.weight.copy_(state[f"latent_pi.{2 * place}.weight"])
            layer.bias.copy_(state[f"latent_pi.{2 * place}.bias"])
        linear[-1].weight[network.free > 0] = state["mu.weight"]
        linear[-1].bias[network.free > 0] = state["mu.bias"]


def _episodes_under(
    network: AdversaryNetwork,
    rehearsal: Rehearsal,
    seeds: list[int],
    simulators: VectorEnvironment,
) -> Totals:
    @torch.no_grad()
    def perturb(observations: Tensor, _: slice) -> Tensor:
        box = Box.around(observations, rehearsal.budget)
        return box.project(observations + network(observations) * rehearsal.budget)

    return rehearsal.run(perturb, seeds, simulators=simulators)


def _observed(
    rehearsal: Rehearsal, simulators: VectorEnvironment, seed: int
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of what the victim meets without an attack, each (ds,)."""
    seen: list[Tensor] = []

    def perturb(observations: Tensor, _: slice) -> Tensor:
        seen.append(observations)
        return observations

    rehearsal.run(perturb, rehearsal_seeds(seed, ROWS, part=_OBSERVE), simulators=simulators)
    observations = torch.cat(seen)
    # A coordinate that hardly moves is not blown up.
    return observations.mean(dim=0), observations.std(dim=0).clamp_min(1e-2)


@contextmanager
def as_before() -> Iterator[None]:
    """One thread, and afterwards the global random generators and threads as they were.

    More threads do not help small networks, and their number changes the last bits.
    """
    threads = torch.get_num_threads()
    states: Any = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(threads)
