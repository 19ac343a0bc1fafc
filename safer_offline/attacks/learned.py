"""An adversary that was learned: a network that answers each observation with a perturbation.

Source: the optimal adversary of Zhang et al., "Robust Reinforcement Learning on State Observations
with Learned Optimal Adversary", ICLR 2021. For a fixed victim the choice of perturbations is a
Markov decision problem of its own, in which any learner of policies may search for what attacks
that look one step ahead cannot find.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from safer_offline.attacks.base import Attack, AttackTarget
from safer_offline.attacks.budget import Box
from safer_offline.attacks.noise import NoiseSource
from safer_offline.errors import CheckpointError, UsageError
from safer_offline.files import make_folder, write_atomically

FORMAT = "safer-offline/adversary/1"


class AdversaryNetwork(nn.Module):
    """Perturbations in multiples of the budget, of raw observations.

    Args:
        observation_size: Coordinates ds of an observation.
        hidden_sizes: Hidden layers, with ReLU between them.
    """

    mean: Tensor
    std: Tensor
    free: Tensor

    def __init__(self, observation_size: int, *, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = [observation_size, *hidden_sizes]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.hidden_sizes = tuple(hidden_sizes)
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], observation_size), nn.Tanh())
        # Of the observations that the victim meets without an attack.
        self.register_buffer("mean", torch.zeros(observation_size))
        self.register_buffer("std", torch.ones(observation_size))
        # Coordinates that had a budget while it learned, 1, and others, 0.
        self.register_buffer("free", torch.ones(observation_size))

    @property
    def observation_size(self) -> int:
        """Coordinates of an observation."""
        return len(self.mean)

    def forward(self, observations: Tensor) -> Tensor:
        """Within [-1, 1], of (B, ds), shape (B, ds)."""
        perturbations: Tensor = self.layers((observations - self.mean) / self.std)
        return perturbations * self.free

    def __str__(self) -> str:
        # Stands for it in reports, and in what tells evaluations apart.
        content = to_bytes({n: t.contiguous() for n, t in self.state_dict().items()})
        return f"sha256 {hashlib.sha256(content).hexdigest()}"


class Learned(Attack):
    """Perturbs as a network learned to, whose reward was the cost of its victim.

    It needs neither gradients nor critics. `safer_offline.evaluation.adversaries` trains it by
    Stable-Baselines3's SAC in the simulator; it may then be saved, and met by other policies.

    Args:
        steps: Environment steps of each training.
        restarts: Trainings, of which the best adversary is kept.
        seed: Of the trainings.
        file: An adversary that was saved; none is trained then.

    Attributes:
        network: What it learned, or None as long as it has not.
        curve: The mean cost that it caused, by the steps it had learned; of the best training.
        trained_on: Against whom, where and within which budget it learned.

    Raises:
        UsageError: If a number is impossible.
        CheckpointError: If there is no such file, or it is no adversary of ours.
    """

    name: ClassVar[str] = "learned"

    def __init__(
        self, *, steps: int = 40_000, restarts: int = 1, seed: int = 0, file: str | None = None
    ) -> None:
        if steps < 1 or restarts < 1 or seed < 0:
            raise UsageError(
                "attack 'learned' needs at least one step and one restart, and no seed below 0, "
                f"not steps={steps}, restarts={restarts}, seed={seed}"
            )
        self.steps = steps
        self.restarts = restarts
        self.seed = seed
        self.network: AdversaryNetwork | None = None
        self.curve: list[dict[str, float]] = []
        self.trained_on: dict[str, Any] = {}
        if file is not None:
            vars(self).update(vars(load_adversary(file)))

    @property
    def needs_rehearsal(self) -> bool:
        """True as long as it has learned nothing."""
        return self.network is None

    @property
    def trained_network(self) -> AdversaryNetwork:
        """What it learned.

        Raises:
            UsageError: If it has learned nothing yet.
        """
        if self.network is None:
            raise UsageError(
                "attack 'learned' has learned nothing yet: evaluate trains it, or give a file"
            )
        return self.network

    def having_learned(
        self,
        network: AdversaryNetwork,
        *,
        curve: Sequence[Mapping[str, float]] = (),
        trained_on: Mapping[str, Any] | None = None,
    ) -> Learned:
        """The same attack with what it learned; see the attributes."""
        learned = copy.copy(self)
        learned.network = network.requires_grad_(False)
        learned.curve = [dict(point) for point in curve]
        learned.trained_on = dict(trained_on or {})
        return learned

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`.

        Raises:
            UsageError: If it has learned nothing yet, or in a task with other observations.
        """
        network, clean = self.trained_network, observations.detach()
        if network.observation_size != clean.shape[1]:
            raise UsageError(
                f"attack 'learned' was learned on observations of {network.observation_size} "
                f"coordinates, but these have {clean.shape[1]}"
            )
        epsilon = epsilon.to(clean)
        with torch.no_grad():
            deltas = network(clean) * epsilon
        return Box.around(clean, epsilon).project(clean + deltas)

    def save(self, path: str | Path) -> None:
        """Write what it learned to a safetensors file, whole or not at all.

        Raises:
            UsageError: If it has learned nothing yet.
        """
        network, path = self.trained_network, Path(path)
        make_folder(path.parent)
        header = {
            "format": FORMAT,
            "observation_size": network.observation_size,
            "hidden_sizes": network.hidden_sizes,
            "steps": self.steps,
            "restarts": self.restarts,
            "seed": self.seed,
            "curve": self.curve,
            "trained_on": self.trained_on,
        }
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        # One entry, for the library writes several in another order each time.
        write_atomically(path, to_bytes(state, metadata={"adversary": json.dumps(header)}))


def load_adversary(path: str | Path) -> Learned:
    """Read what `Learned.save` wrote.

    Raises:
        CheckpointError: If there is no such file, or it is damaged or none of ours.
    """
    path = Path(path)
    remedy = "give an adversary that `safer-offline evaluate --attacks learned` kept"
    if not path.is_file():
        raise CheckpointError("there is no such adversary", path=path, remedy=remedy)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["adversary"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"the file has format '{header['format']}', not '{FORMAT}'",
                path=path,
                remedy=remedy,
            )
        network = AdversaryNetwork(header["observation_size"], hidden_sizes=header["hidden_sizes"])
        network.load_state_dict(state)
        attack = Learned(steps=header["steps"], restarts=header["restarts"], seed=header["seed"])
        return attack.having_learned(
            network, curve=header["curve"], trained_on=header["trained_on"]
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the file is no adversary of ours ({error})", path=path, remedy=remedy
        ) from error
