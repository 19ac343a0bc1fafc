"""Totals and what is still to come, against sums episode by episode."""

import numpy as np
import torch

from safer_offline.datasets.dataset.sequences import episode_totals, still_to_come


def test_sums_are_those_of_each_episode_alone():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 50)
    parts = [rng.normal(0, 100, length).astype(np.float32) for length in lengths]
    ends = torch.zeros(lengths.sum(), dtype=torch.bool)
    ends[np.cumsum(lengths) - 1] = True
    values = torch.from_numpy(np.concatenate(parts))
    totals = np.concatenate([np.full(len(part), part.sum(dtype=float)) for part in parts])
    rest = np.concatenate([part[::-1].cumsum(dtype=float)[::-1] for part in parts])
    torch.testing.assert_close(episode_totals(values, ends), torch.tensor(totals).float())
    torch.testing.assert_close(still_to_come(values, ends), torch.tensor(rest).float())
