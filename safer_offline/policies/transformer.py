"""A policy that reads its episode as a sequence: the Constrained Decision Transformer's network.

A step t is four tokens: the return that is still to come, the cost that is still to come, the
observation, the action. What a causal transformer makes of the observation's token gives the
action. Sources: Liu et al., "Constrained Decision Transformer for Offline Safe Reinforcement
Learning", ICML 2023, and OSRL's code of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.policies.actors import ActionBox
from safer_offline.policies.gaussian import MIN_STD
from safer_offline.policies.memory import Memory, RememberingActor

TOKENS = 4
"""Of a step, in this order: return to come, cost to come, observation, action."""

INITIAL_STD = 0.02


class Block(nn.Module):
    """Attention and two layers behind it, each with its norm before and a shortcut around it.

    Args:
        size: Numbers in a token.
        heads: Of the attention.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.attended = nn.Linear(size, size)
        self.hidden_norm = nn.LayerNorm(size)
        self.widen = nn.Linear(size, 4 * size)
        self.narrow = nn.Linear(4 * size, size)

    def forward(
        self, tokens: Tensor, *, last: int = TOKENS, mask: Tensor | None = None, drop: float = 0.0
    ) -> Tensor:
        """The next layer's tokens.

        Args:
            tokens: Shape (B, T, size).
            last: How many tokens at the end of each step to compute; all or some of `TOKENS`.
            mask: Who may look at whom, True where, (B, 1, T, T); None for everybody at the past.
            drop: Share of numbers to drop, in training.

        Returns:
            Shape (B, T * last / TOKENS, size).
        """
        normed = self.attention_norm(tokens)
        if last == TOKENS:
            query, key, value = self.query_key_value(normed).chunk(3, dim=-1)
        else:
            size = tokens.shape[-1]
            weights = self.query_key_value.weight.split_with_sizes([size, 2 * size])
            biases = self.query_key_value.bias.split_with_sizes([size, 2 * size])
            tokens = _end_of_steps(tokens, last)
            query = functional.linear(_end_of_steps(normed, last), weights[0], biases[0])
            key, value = functional.linear(normed, weights[1], biases[1]).chunk(2, dim=-1)
            mask = causal(key.shape[1], tokens.device).view(1, 1, -1, TOKENS, key.shape[1])
            mask = mask[:, :, :, TOKENS - last :].flatten(2, 3)
        found = attention(
            self.split(query), self.split(key), self.split(value), mask=mask, drop=drop
        )
        return self.behind(tokens, found.transpose(1, 2).flatten(2), drop=drop)

    def behind(self, tokens: Tensor, found: Tensor, *, drop: float = 0.0) -> Tensor:
        """What follows the attention: shortcuts, and the two layers.

        Args:
            tokens: What asked, (..., size).
            found: What the heads found, same shape.
            drop: See `forward`.
        """
        tokens = tokens + _dropped(self.attended(found), drop)
        hidden = functional.gelu(self.widen(self.hidden_norm(tokens)))
        return tokens + _dropped(self.narrow(hidden), drop)

    def split(self, tokens: Tensor) -> Tensor:
        """(B, T, size) as (B, heads, T, size / heads)."""
        return tokens.reshape(*tokens.shape[:-1], self.heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class Recalled:
    """What the past of B episodes is to their present observation.

    Attributes:
        keys_values: For each block the keys and values of the T tokens before it, each
            (B, heads, T, size / heads).
        time: Embedding of the present step, (B, size).
        hidden: 0, and -inf for tokens that are from before the episode, (B, 1, 1, T).
    """

    keys_values: Sequence[tuple[Tensor, Tensor]]
    time: Tensor
    hidden: Tensor


class SequencePolicy(RememberingActor):
    """pi(a_t | the last K steps, return and cost to come), a causal transformer.

    Acting, it begins with its targets as what is to come, and takes off what it earns and costs.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Nothing: the sizes of a transformer are these.
        embedding_size: Numbers in a token.
        layers: Blocks.
        heads: Of their attention; a divisor of `embedding_size`.
        sequence_length: Steps K that it looks back, the present one included.
        episode_length: Steps that have an embedding of their time; later ones share the last.
        reward_scale: Unit of the returns that the network sees.
        cost_origin: The cost to come that the network sees as 0.
        stochastic: Whether the deviation of the actions is learned, too.

    Attributes:
        target_return: Return of the episode to aim at, raw, shape (1,).
        target_cost: Cost of it, likewise.
    """

    targets: ClassVar[tuple[str, ...]] = ("target_return", "target_cost")
    target_return: Tensor
    target_cost: Tensor

    def __init__(
        self,
        observation_size: int,
        box: ActionBox,
        *,
        hidden_sizes: Sequence[int] = (),
        embedding_size: int,
        layers: int,
        heads: int,
        sequence_length: int,
        episode_length: int,
        reward_scale: float,
        cost_origin: float,
        stochastic: bool,
    ) -> None:
        super().__init__(observation_size, box, hidden_sizes=hidden_sizes)
        self._settings = {
            "embedding_size": embedding_size,
            "layers": layers,
            "heads": heads,
            "sequence_length": sequence_length,
            "episode_length": episode_length,
            "reward_scale": reward_scale,
            "cost_origin": cost_origin,
            "stochastic": stochastic,
        }
        self.sequence_length, self.episode_length = sequence_length, episode_length
        self.reward_scale, self.cost_origin = reward_scale, cost_origin
        action_size = box.centre.shape[0]
        self.of_time = nn.Embedding(episode_length, embedding_size)
        self.of_return = nn.Linear(1, embedding_size)
        self.of_cost = nn.Linear(1, embedding_size)
        self.of_observation = nn.Linear(observation_size, embedding_size)
        self.of_action = nn.Linear(action_size, embedding_size)
        self.first_norm = nn.LayerNorm(embedding_size)
        self.blocks = nn.ModuleList(Block(embedding_size, heads) for _ in range(layers))
        self.last_norm = nn.LayerNorm(embedding_size)
        self.head = nn.Linear(embedding_size, (1 + stochastic) * action_size)
        self.apply(initialize)
        for block in self._blocks:
            nn.init.xavier_uniform_(block.query_key_value.weight)
        self.register_buffer("target_return", torch.zeros(1))
        self.register_buffer("target_cost", torch.zeros(1))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Actor`."""
        return self._settings

    # ---------------------------------------------------------------- whole sequences

    def features(self, window: Mapping[str, Tensor], *, drop: float = 0.0) -> Tensor:
        """What the transformer makes of observations and actions in sequences of L steps.

        Args:
            window: `observations` (B, L, ds) and `actions` (B, L, da), raw; `returns_to_come` and
                `costs_to_come`, raw, and `steps` since the episode began, each (B, L). What follows
                a step does not reach it, so that the end of a sequence may be anything.
            drop: Share of numbers to drop, in training.

        Returns:
            Shape (B, L, 2, embedding size): at the observation, and at the action.
        """
        tokens = _dropped(self._tokens(window), drop)
        *blocks, last = self._blocks
        for block in blocks:
            tokens = block(tokens, drop=drop)
        tokens = last(tokens, last=2, drop=drop)
        normed: Tensor = self.last_norm(tokens)
        return normed.view(len(normed), -1, 2, normed.shape[-1])

    def heads_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation before bounds, in half action ranges, of what `features` gives.

        Args:
            features: At observations, (..., embedding size).
        """
        raw: Tensor = self.head(features)
        if not self._settings["stochastic"]:
            return raw, torch.full_like(raw, MIN_STD)
        mean, log_std = raw.chunk(2, dim=-1)
        return mean, log_std.exp()

    # ---------------------------------------------------------------- step by step

    def begin(self, rows: int) -> Memory:
        """See `RememberingActor`. What is remembered lies at the end; before it are zeros."""
        past = self.sequence_length - 1
        to_come = torch.zeros(2, rows, past + 1)
        to_come[0, :, -1:], to_come[1, :, -1:] = self.target_return, self.target_cost
        return {
            "observations": torch.zeros(rows, past, self.of_observation.in_features),
            "actions": torch.zeros(rows, past, self.of_action.in_features),
            "returns_to_come": to_come[0],
            "costs_to_come": to_come[1],
            "step": torch.zeros(rows, dtype=torch.long),
        }

    def remember(self, memory: Memory, observations: Tensor, actions: Tensor) -> Memory:
        """See `RememberingActor`."""
        new = {
            "observations": observations,
            "actions": actions,
            # The next step begins with what this one began with, until it is told what it earned.
            "returns_to_come": memory["returns_to_come"][:, -1],
            "costs_to_come": memory["costs_to_come"][:, -1],
        }
        kept = {
            name: torch.cat([memory[name], values[:, None]], dim=1)[:, 1:]
            for name, values in new.items()
        }
        return {**kept, "step": memory["step"] + 1}

    def earn(self, memory: Memory, rewards: Tensor, costs: Tensor) -> Memory:
        """See `RememberingActor`."""
        left = {"returns_to_come": rewards, "costs_to_come": costs}
        for name, spent in left.items():
            left[name] = memory[name].clone()
            left[name][:, -1] -= spent
        return {**memory, **left}

    def recall(self, memory: Memory) -> Recalled:
        """See `RememberingActor`: keys and values of all tokens before the present observation."""
        steps = memory["step"]
        length = min(self.sequence_length, int(steps.max()) + 1)
        ages = torch.arange(1 - length, 1)
        window = {
            name: functional.pad(memory[name], (0, 0, 0, 1))[:, -length:]
            for name in ("observations", "actions")
        }
        window |= {name: memory[name][:, -length:] for name in ("returns_to_come", "costs_to_come")}
        window["steps"] = (steps[:, None] + ages).clamp(0, self.episode_length - 1)
        tokens = self._tokens(window)[:, :-2]
        count = tokens.shape[1]
        held = (steps[:, None] + ages >= 0).repeat_interleave(TOKENS, 1)[:, :-2]
        mask = None
        if not held.all():
            # A token looks at itself even if it is from before the episode: something it must see.
            mask = causal(count, tokens.device) & held[:, None] | torch.eye(count).bool()
            mask = mask[:, None]
        keys_values = []
        for number, block in enumerate(self._blocks):
            if number:
                tokens = self._blocks[number - 1](tokens, mask=mask)
            _, key, value = block.query_key_value(block.attention_norm(tokens)).chunk(3, dim=-1)
            keys_values.append((block.split(key), block.split(value)))
        hidden = torch.where(held, 0.0, -torch.inf)[:, None, None]
        return Recalled(keys_values, self.of_time(window["steps"][:, -1]), hidden)

    def respond(self, recalled: Recalled, observations: Tensor) -> tuple[Tensor, Tensor]:
        """See `RememberingActor`: one token, which looks at what was recalled and at itself."""
        rows = len(recalled.time)
        tokens = self.of_observation(self.observations(observations))
        tokens = self.first_norm(tokens.view(-1, rows, tokens.shape[-1]) + recalled.time)
        for block, (keys, values) in zip(self._blocks, recalled.keys_values, strict=True):
            normed = block.query_key_value(block.attention_norm(tokens))
            # (B, heads, R, size / heads): what is tried asks the one past of its row.
            query, key, value = (block.split(part.transpose(0, 1)) for part in normed.chunk(3, -1))
            at_past = query @ keys.transpose(-1, -2)
            at_self = (query * key).sum(-1, keepdim=True)
            scores = torch.cat([at_past, at_self], -1) / math.sqrt(query.shape[-1])
            scores = scores + functional.pad(recalled.hidden, (0, 1))
            weights = scores.softmax(-1)
            found = weights[..., :-1] @ values + weights[..., -1:] * value
            tokens = block.behind(tokens, found.permute(2, 0, 1, 3).flatten(2))
        mean, std = self.heads_of(self.last_norm(tokens.flatten(0, 1)))
        return self.box.scale(mean.clamp(-1, 1)), self.box.half_range * std.clamp_min(MIN_STD)

    @property
    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _tokens(self, window: Mapping[str, Tensor]) -> Tensor:
        """Embedded and normed tokens, (B, L * TOKENS, embedding size); see `features`."""
        parts = [
            self.of_return(self.reward_scale * window["returns_to_come"][..., None]),
            self.of_cost(self.cost_origin - window["costs_to_come"][..., None]),
            self.of_observation(self.observations(window["observations"])),
            self.of_action(self.box.units(window["actions"])),
        ]
        tokens = torch.stack(parts, dim=2) + self.of_time(window["steps"])[:, :, None]
        normed: Tensor = self.first_norm(tokens.flatten(1, 2))
        return normed


def causal(count: int, device: torch.device) -> Tensor:
    """Who may look at whom of so many tokens: everybody at itself and the past, (T, T) bool."""
    return torch.ones(count, count, dtype=torch.bool, device=device).tril()


def attention(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, drop: float = 0.0
) -> Tensor:
    """What (B, heads, R, size) queries find among T keys and values, (B, heads, R, size).

    Args:
        query: Who asks.
        key: Who is asked, (B, heads, T, size).
        value: What is found, likewise.
        mask: Who may look at whom, True where, to be expanded to (B, heads, R, T); None for
            everybody at itself and the past, where R = T.
        drop: Share of the attention that is dropped, in training.
    """
    if not drop:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None
        )
    # The same as with PyTorch's `dropout_p` on the CPU, to the last bit; its kernels for other
    # devices draw numbers of their own.
    unit = math.sqrt(1 / math.sqrt(query.shape[-1]))
    scores = (unit * query) @ (unit * key).transpose(-2, -1)
    seen = causal(key.shape[-2], key.device) if mask is None else mask
    weights = (scores + torch.where(seen, 0.0, -torch.inf)).softmax(-1)
    return _dropped(weights, drop) @ value


def initialize(module: nn.Module) -> None:
    """First weights as in GPT-2: normal with a small deviation."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def _end_of_steps(tokens: Tensor, last: int) -> Tensor:
    """The last ones of each step's tokens: of (B, T, size), (B, T * last / TOKENS, size)."""
    steps = tokens.view(len(tokens), -1, TOKENS, tokens.shape[-1])
    return steps[:, :, TOKENS - last :].flatten(1, 2)


def _dropped(values: Tensor, share: float) -> Tensor:
    """`functional.dropout`, by numbers of the CPU's generator wherever the values are."""
    if not share:
        return values
    kept = torch.empty_like(values, device="cpu").bernoulli_(1 - share).div_(1 - share)
    return values * kept.to(values.device)
