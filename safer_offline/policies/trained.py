"""A trained policy as users hold it: it predicts, it can be attacked, it is one file."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from safer_offline.context import EnvironmentContext
from safer_offline.errors import CheckpointError, UsageError
from safer_offline.files import make_folder, write_atomically
from safer_offline.policies.actors import ACTORS, ActionBox, Actor
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.digest import digest
from safer_offline.policies.memory import Episodes, RememberedEpisodes, RememberingActor

FORMAT = "safer-offline/policy/1"
POLICY_FILE = "policy.safetensors"


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """What a policy file tells beside the weights.

    `TrainedPolicy` fills in what its networks look like, from `hidden_sizes` to `critic_members`.

    Attributes:
        algorithm: Who trained it, such as `safer`.
        observation_size: Numbers in an observation.
        action_size: Numbers in an action.
        hidden_sizes: Hidden layers of the policy network.
        actor: Kind of the policy network, a name in `ACTORS` or `module:Class`.
        actor_settings: Further arguments of its constructor.
        critics: Which critics go along, `reward` and `cost`.
        critic_hidden_sizes: Hidden layers of the critics.
        critic_members: Networks in each critic ensemble.
        context: Environment of the dataset, as far as it told.
        cost_limit: Episode cost that the policy was trained to keep.
        reward_range: Least and largest episode return of the dataset.
        dataset_sha256: Content hash of the dataset, or empty.
        training: Configuration, steps and seed of the training, for the record.
    """

    algorithm: str
    observation_size: int
    action_size: int
    hidden_sizes: tuple[int, ...] = ()
    actor: str = "gaussian"
    actor_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    critics: tuple[str, ...] = ("reward", "cost")
    critic_hidden_sizes: tuple[int, ...] = ()
    critic_members: int = 0
    context: EnvironmentContext = dataclasses.field(default_factory=EnvironmentContext)
    cost_limit: float | None = None
    reward_range: tuple[float, float] | None = None
    dataset_sha256: str = ""
    training: dict[str, Any] = dataclasses.field(default_factory=dict)


class TrainedPolicy(nn.Module):
    """A policy with its critics, in raw observation units throughout.

    The critics are no part of acting. They go along because the attacks of the evaluation ask them
    which actions would hurt; an algorithm that has none leaves them out.

    Args:
        info: Sizes and provenance.
        actor: The policy network.
        reward_critic: Value of actions.
        cost_critic: Cost of actions.
    """

    def __init__(
        self,
        info: PolicyInfo,
        *,
        actor: Actor,
        reward_critic: CriticEnsemble | None = None,
        cost_critic: CriticEnsemble | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(actor, Actor):
            raise UsageError(
                f"the network of a policy must be an Actor (safer_offline.policies.actors), not a "
                f"{type(actor).__name__}"
            )
        given = {"reward": reward_critic, "cost": cost_critic}
        critics = {name: critic for name, critic in given.items() if critic is not None}
        shapes = {(one.hidden_sizes, one.ensemble.members) for one in critics.values()}
        if len(shapes) > 1:
            raise UsageError("both critics of a policy must have the same layers and members")
        critic_hidden_sizes, critic_members = next(iter(shapes), ((), 0))
        self.info = dataclasses.replace(
            info,
            hidden_sizes=actor.hidden_sizes,
            actor=ACTORS.name_of(type(actor)),
            actor_settings=dict(actor.settings),
            critics=tuple(critics),
            critic_hidden_sizes=critic_hidden_sizes,
            critic_members=critic_members,
        )
        self.actor = actor
        self.reward_critic = reward_critic
        self.cost_critic = cost_critic

    @classmethod
    def untrained(cls, info: PolicyInfo, *, kind: type[Actor] | None = None) -> TrainedPolicy:
        """Networks of the sizes that `info` gives, for weights to be loaded into.

        Args:
            info: Sizes.
            kind: Class of the policy network; None takes the one that `info` names.
        """
        box = ActionBox(torch.zeros(info.action_size), torch.zeros(info.action_size))

        def critic(name: str) -> CriticEnsemble | None:
            if name not in info.critics:
                return None
            return CriticEnsemble(
                info.observation_size,
                info.action_size,
                members=info.critic_members,
                hidden_sizes=info.critic_hidden_sizes,
            )

        build: Any = kind or ACTORS.get(info.actor)
        actor = build(
            info.observation_size, box, hidden_sizes=info.hidden_sizes, **info.actor_settings
        )
        return cls(info, actor=actor, reward_critic=critic("reward"), cost_critic=critic("cost"))

    def predict(self, observations: NDArray[Any], *, deterministic: bool = True) -> NDArray[Any]:
        """Actions for one observation (ds,) or a batch (B, ds), in raw units.

        Args:
            observations: As the environment returns them.
            deterministic: The mean action; False samples, with PyTorch's global generator.

        Returns:
            Actions of shape (da,) or (B, da), float32, within the action bounds.

        Raises:
            UsageError: If the observations have the wrong size, or one is not finite; if the
                policy remembers its episode, see `begin`.
        """
        given = self.checked(observations)
        if self.remembers:
            raise UsageError(
                f"this policy ({self.info.algorithm}) remembers its episode: episode = "
                "policy.begin(); then episode.predict(observation) and "
                "episode.earn(reward, cost) in each step"
            )
        with torch.no_grad():
            rows = given.reshape(-1, self.info.observation_size)
            actions = self.actor(rows)[0] if deterministic else self.actor.sample(rows)
        return actions.reshape(*given.shape[:-1], self.info.action_size).numpy()

    def checked(self, observations: NDArray[Any]) -> Tensor:
        """Observations (ds,) or (B, ds) as float32.

        Raises:
            UsageError: If they have the wrong size, or one is not finite.
        """
        given = _as_floats(observations)
        if given.ndim not in (1, 2) or given.shape[-1] != self.info.observation_size:
            raise UsageError(
                f"observations have shape {tuple(given.shape)}; the policy takes "
                f"({self.info.observation_size},) or (batch, {self.info.observation_size})"
            )
        if not torch.isfinite(given).all():
            raise UsageError(_not_finite(given))
        return given

    @property
    def remembers(self) -> bool:
        """Whether actions depend on what the episode held before; then `begin` one to act."""
        return isinstance(self.actor, RememberingActor)

    def begin(self, rows: int = 1) -> Episodes:
        """Episodes that begin, to act in; what they hold is remembered if the policy remembers.

        Args:
            rows: How many run as one batch.
        """
        if rows < 1:
            raise UsageError(f"at least one episode must begin, not {rows}")
        if isinstance(self.actor, RememberingActor):
            return RememberedEpisodes.begun(self, self.actor, rows)
        return Episodes(self)

    def aimed_at(self, **targets: float) -> TrainedPolicy:
        """The same policy, told to aim at something else: `aimed_at(target_cost=20)`.

        Args:
            **targets: What its kind can be told, see `Actor.targets`; the others stay.

        Raises:
            UsageError: If it cannot be told that, or the number is not finite.
        """
        told = copy.deepcopy(self)
        for name, value in targets.items():
            if name not in self.actor.targets:
                known = ", ".join(self.actor.targets) or "nothing"
                raise UsageError(
                    f"this policy ({self.info.algorithm}) has no {name}; it can be told {known}"
                )
            if not math.isfinite(value):
                raise UsageError(f"{name} must be finite, but is {value}")
            getattr(told.actor, name).fill_(value)
        return told

    @property
    def aims(self) -> dict[str, float]:
        """What it aims at, by the names that `aimed_at` takes."""
        return {name: float(getattr(self.actor, name)) for name in self.actor.targets}

    def action_distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the actions at raw (B, ds) observations.

        A policy that remembers answers as at the beginning of an episode; see `begin`.
        """
        mean, std = self.actor(observations)
        return mean, std

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Expected discounted return, shape (B,).

        Raises:
            UsageError: If there is no reward critic.
        """
        return self._require_critic("reward").mean(observations, actions)

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Expected discounted cost, shape (B,).

        Raises:
            UsageError: If there is no cost critic.
        """
        return self._require_critic("cost").mean(observations, actions)

    def _require_critic(self, name: str) -> CriticEnsemble:
        critic = self.reward_critic if name == "reward" else self.cost_critic
        if critic is None:
            raise UsageError(f"this policy ({self.info.algorithm}) has no {name} critic")
        return critic

    @property
    def critics(self) -> tuple[str, ...]:
        """Which critics there are, of `reward` and `cost`."""
        return self.info.critics

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return self.info.observation_size

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return self.info.action_size

    @property
    def observation_std(self) -> Tensor:
        """Standard deviation of each observation coordinate in the dataset, shape (ds,).

        Infinite for a coordinate that the policy does not read: it never varies there, or only
        repeats the last action.
        """
        return self.actor.observations.std

    @property
    def context(self) -> EnvironmentContext:
        """Environment of the dataset, as far as the file told."""
        return self.info.context

    @property
    def env_id(self) -> str | None:
        """Its name, if the file told."""
        return self.info.context.env_id or None

    @property
    def cost_limit(self) -> float | None:
        """Episode cost that the policy was trained to keep."""
        return self.info.cost_limit

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """Least and largest episode return of the dataset."""
        return self.info.reward_range

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and provenance; the file says it, too."""
        return _digest(*self._content())

    def _content(self) -> tuple[str, dict[str, Tensor]]:
        info = dataclasses.asdict(self.info) | {"context": self.info.context.to_json()}
        state = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        return json.dumps(info), state

    def save(self, path: str | Path) -> None:
        """Write everything that is needed to act to one safetensors file, whole or not at all."""
        path = Path(path)
        make_folder(path.parent)
        info, state = self._content()
        header = {"format": FORMAT, "info": info, "sha256": _digest(info, state)}
        write_atomically(path, _with_sorted_header(to_bytes(state, metadata=header)))


def load_policy(path: str | Path, *, actor: str | type[Actor] | None = None) -> TrainedPolicy:
    """Read a policy from its file, or from the run directory that holds it.

    Args:
        path: The file, or the directory.
        actor: The policy network's class, or `module:Class`, where that is code of your own. A
            file that names such code does not get it imported: whoever loads it must name it, too,
            or have imported it.

    Raises:
        CheckpointError: If it is missing, damaged or no policy of ours.
        UsageError: If `path` is no path, or there is no such actor.
    """
    if not isinstance(path, str | Path):
        raise UsageError(
            "a policy is read from a run directory or a policy.safetensors, not from "
            f"{'nothing (None)' if path is None else f'a {type(path).__name__}'}"
        )
    path = Path(path)
    if path.is_dir():
        path = path / POLICY_FILE
    if not path.is_file():
        raise CheckpointError(
            "there is no such policy",
            path=path,
            remedy="give a run directory or a policy.safetensors that `safer-offline train` wrote",
        )
    foreign = "give a policy.safetensors that `safer-offline train` wrote, or train it again"
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the file cannot be read ({error})", path=path, remedy=foreign
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"the file has format '{header.get('format')}', not '{FORMAT}'",
            path=path,
            remedy=foreign,
        )
    if "sha256" in header and _digest(header.get("info"), state) != header["sha256"]:
        raise CheckpointError("the file is damaged (its digest differs)", path=path, remedy=foreign)
    try:
        info = _read_info(json.loads(header["info"]))
        policy = TrainedPolicy.untrained(info, kind=_actor_class(actor, info.actor, path=path))
        policy.load_state_dict(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights do not fit what the file says ({error})", path=path, remedy=foreign
        ) from error
    return policy.requires_grad_(False)


def _actor_class(given: str | type[Actor] | None, named: str, *, path: Path) -> type[Actor]:
    """The class of a policy network, without importing code because a file says so."""
    if isinstance(given, type):
        return given
    module = named.partition(":")[0]
    if given is None and module != named and module not in sys.modules:
        raise CheckpointError(
            f"its network is {named}, code that does not come with this package",
            path=path,
            remedy=f"if you trust it, name it: --actor {named}, or load_policy(..., "
            f"actor='{named}')",
        )
    return ACTORS.get(given or named)


def _as_floats(observations: object) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(observations, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise UsageError(f"observations must be an array of numbers: {error}") from None


def _not_finite(observations: Tensor) -> str:
    """What to say of observations of which one is NaN or infinite."""
    *row, coordinate = (~torch.isfinite(observations)).nonzero()[0].tolist()
    where = f"row {row[0]}, " if row else ""
    value = observations[(*row, coordinate)].item()
    return f"observations must be finite, but {where}coordinate {coordinate} is {value}"


def _digest(info: str | None, state: dict[str, Tensor]) -> str:
    return digest([info, sorted(state.items())])


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file; the library writes metadata in another order each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors are aligned
    return len(header).to_bytes(8, "little") + header + content[end:]


def _read_info(values: dict[str, Any]) -> PolicyInfo:
    """Inverse of what `save` writes: JSON has lists for tuples."""
    entries: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    # Files from before the context tell the name of the environment alone.
    context = entries.pop("context", None) or {"env_id": entries.pop("env_id", "")}
    return PolicyInfo(**entries, context=EnvironmentContext.from_json(context))
