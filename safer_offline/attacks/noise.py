"""Where the random numbers of an attack come from: one fast source, one reproducible by row."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class NoiseSource(Protocol):
    """Random numbers for a batch of rows."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers of U[-1, 1), float32, of `shape` = (rows, ...)."""
        ...

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Numbers of N(0, 1), float32, of `shape` = (rows, ...)."""
        ...

    def rows(self, mask: Tensor) -> NoiseSource:
        """The source of the rows that `mask`, boolean of shape (rows,), selects."""
        ...


class GeneratorNoise:
    """One generator for the whole batch: fast, for training.

    Args:
        generator: Its state advances; its device is where the numbers are made.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """See `NoiseSource`."""
        device = self._generator.device
        return torch.rand(*shape, generator=self._generator, device=device).mul_(2).sub_(1)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `NoiseSource`."""
        return torch.randn(*shape, generator=self._generator, device=self._generator.device)

    def rows(self, mask: Tensor) -> GeneratorNoise:
        """The same source: here rows have no random numbers of their own."""
        return self


class RowNoise:
    """One generator a row, so that no row depends on which others share its batch: for evaluation.

    Args:
        generators: One for each row.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._generators = generators

    @classmethod
    def seeded(cls, seed: int, attack: str, episode_seeds: Sequence[int]) -> RowNoise:
        """Noise that the triple (seed, attack, episode seed) determines for each row."""
        key = zlib.crc32(attack.encode())
        return cls([np.random.default_rng([seed, key, episode]) for episode in episode_seeds])

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """See `NoiseSource`."""
        return self._draw(shape, lambda generator, size: generator.random(size, np.float32) * 2 - 1)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `NoiseSource`."""
        return self._draw(
            shape, lambda generator, size: generator.standard_normal(size, np.float32)
        )

    def rows(self, mask: Tensor) -> RowNoise:
        """See `NoiseSource`."""
        return RowNoise([self._generators[row] for row in mask.nonzero().flatten().tolist()])

    def _draw(
        self,
        shape: Sequence[int],
        draw: Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]],
    ) -> Tensor:
        rows, *size = shape
        if rows != len(self._generators):
            raise ValueError(f"noise for {rows} rows asked of {len(self._generators)} generators")
        numbers = np.empty(shape, np.float32)
        for row, generator in enumerate(self._generators):
            numbers[row] = draw(generator, tuple(size))
        return torch.from_numpy(numbers)
