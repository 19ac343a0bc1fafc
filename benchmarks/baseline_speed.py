"""Updates per CPU-second of the baselines: OSRL's code and ours in one run.

    OMP_NUM_THREADS=1 python benchmarks/baseline_speed.py [NAME ...]
    (some minutes; needs requirements-peers.txt; writes benchmarks/results/baseline_speed.csv, of
    which names replace their own rows alone)

Batch 512, 8 numbers in an observation and 2 in an action, networks and settings of OSRL's examples,
one thread. Ours in two ways: told to compute exactly what OSRL does, as its tests hold it to
(`osrl_ways`), and as it comes (`defaults`). CDT is OSRL's network of 3 layers, 128 numbers and 8
heads in the first way, with dropout like OSRL's; in the second, both have the size of our default,
network and batch. OSRL gets its batches ready-made; ours draws them. Both
run in turns, some updates each; a rate is the median over the turns, by CPU time.

osrl, ours       updates per CPU-second
ratio            ours / osrl
osrl_gflop, our_gflop   arithmetic of one update's matrix products
floor            updates per CPU-second if ours were nothing but these products, at the speed that
                 this core, in the same turns, multiplies 4 x (5120, 256) by 4 x (256, 256)
largest_ratio    floor / osrl: what no code with float32 and this arithmetic can exceed
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from safer_offline.datasets import BoxSpace, Metadata, OfflineDataset
from safer_offline.learners import ALGORITHMS
from safer_offline.learners.cdt import CDT

RESULTS = Path(__file__).parent / "results" / "baseline_speed.csv"
OBSERVATION, ACTION, BATCH = 8, 2, 512
EPISODES, LENGTH = 100, 300
TURNS, SECONDS = 5, 2.0
HIDDEN = [256, 256]
OSRL_WAYS = {"timeouts_end": True, "standardize": False}
WAYS = {
    "cpq": OSRL_WAYS | {"cost_ends": False, "push": "none", "unlikely_actions": "unsquashed"},
    "bcq-lag": OSRL_WAYS | {"cost_ends": False},
    "bear-lag": OSRL_WAYS | {"cost_ends": False},
    "coptidice": OSRL_WAYS
    | {"limit_of": "sum", "likelihood": "unsquashed", "attack_critics": False},
    "cdt": {
        "standardize": False,
        "embedding_size": 128,
        "layers": 3,
        "heads": 8,
        "batch_size": BATCH,
    },
}


def main() -> None:
    torch.set_num_threads(1)
    dataset = random_data()
    rows = []
    names = sys.argv[1:] or list(WAYS)
    for name in names:
        for settings, given in (("osrl_ways", WAYS[name]), ("defaults", {})):
            rows.append({"algorithm": name, "ours_as": settings, **measure(name, dataset, given)})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    if set(names) != set(WAYS):
        before = pd.read_csv(RESULTS)
        table = pd.concat([before[~before["algorithm"].isin(names)], table])
    table.to_csv(RESULTS, index=False, float_format="%.3g")
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


def random_data() -> OfflineDataset:
    """Numbers of the right sizes; what they mean does not matter to speed."""
    rng = np.random.default_rng(0)
    rows = EPISODES * LENGTH
    ends = np.arange(1, rows + 1) % LENGTH == 0
    states = rng.standard_normal((EPISODES, LENGTH + 1, OBSERVATION), np.float32)
    arrays = {
        "observations": states[:, :-1].reshape(rows, OBSERVATION),
        "next_observations": states[:, 1:].reshape(rows, OBSERVATION),
        "actions": rng.uniform(-1, 1, (rows, ACTION)).astype(np.float32),
        "rewards": rng.random(rows, np.float32),
        "costs": (rng.random(rows) < 0.05).astype(np.float32),
        "terminals": np.zeros(rows, np.bool_),
        "timeouts": ends,
    }
    metadata = Metadata(
        observation_space=BoxSpace(low=(-9.0,) * OBSERVATION, high=(9.0,) * OBSERVATION),
        action_space=BoxSpace(low=(-1.0,) * ACTION, high=(1.0,) * ACTION),
    )
    return OfflineDataset.from_arrays(arrays, metadata=metadata)


def measure(name: str, dataset: OfflineDataset, settings: dict[str, object]) -> dict[str, float]:
    kind = ALGORITHMS.get(name)
    learner: Any = kind(kind.Config(**settings), dataset, steps=10**6, seed=0)
    updates = {
        "osrl": osrl_update(name, learner),
        "ours": learner.update,
        "product": product(),
    }
    work = {who: gflop(update) for who, update in updates.items()}
    rates: dict[str, list[float]] = {who: [] for who in updates}
    for _ in range(TURNS):
        for who, update in updates.items():
            rates[who].append(rate(update))
    osrl, ours, products = (statistics.median(rates[who]) for who in updates)
    floor = products * work["product"] / work["ours"]
    return {
        "osrl": osrl,
        "ours": ours,
        "ratio": ours / osrl,
        "osrl_gflop": work["osrl"],
        "our_gflop": work["ours"],
        "floor": floor,
        "largest_ratio": floor / osrl,
    }


def product() -> Callable[[], object]:
    inputs, weights = torch.randn(4, 5120, 256), torch.randn(4, 256, 256)
    out = torch.empty(4, 5120, 256)
    return lambda: torch.bmm(inputs, weights, out=out)


def gflop(update: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        update()
    return counter.get_total_flops() / 1e9


def rate(update: Callable[[], object]) -> float:
    """Updates per second of CPU time."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < SECONDS:
        update()
        count += 1
    return count / spent


def osrl_update(name: str, learner: Any) -> Callable[[], object]:  # noqa: ANN401 - any of ours
    """One step of OSRL's trainer, on a batch of ours that is made ready."""
    # What OSRL imports for its logs, and does not need.
    for module in ("fsrl", "fsrl.utils", "wandb"):
        sys.modules.setdefault(module, types.ModuleType(module))
    logger = types.SimpleNamespace(store=lambda **_: None)
    sys.modules["fsrl.utils"].DummyLogger = sys.modules["fsrl.utils"].WandbLogger = lambda: logger
    batch = {column: value.contiguous() for column, value in learner.batches.sample().items()}
    if name == "cdt":
        return osrl_cdt(learner, batch, logger)
    arrays = [batch[column] for column in ("observations", "next_observations", "actions")]
    arrays += [batch["rewards"], batch["costs"], 1 - batch["going_on"]]
    sizes = (OBSERVATION, ACTION, 1.0)
    nets = {"a_hidden_sizes": HIDDEN, "c_hidden_sizes": HIDDEN}
    if name == "coptidice":
        module = importlib.import_module("osrl.algorithms.coptidice")
        spread = np.ones((1, OBSERVATION), np.float32), np.ones((1, ACTION), np.float32)
        model = module.COptiDICE(
            *sizes, "softchi", learner.initial_share, *spread, **nets, num_nu=2, num_chi=2
        )
        trainer = module.COptiDICETrainer(model, None, logger, 1e-4, 1e-4, 1e-4)
        arrays.append(batch["initial"])
        return lambda: trainer.train_one_step(arrays)
    module_name, class_name = {
        "cpq": ("cpq", "CPQ"),
        "bcq-lag": ("bcql", "BCQL"),
        "bear-lag": ("bearl", "BEARL"),
    }[name]
    module = importlib.import_module(f"osrl.algorithms.{module_name}")
    further = {"start_update_policy_step": 0} if name == "bear-lag" else {}
    model = getattr(module, class_name)(
        *sizes, **nets, vae_hidden_sizes=400, num_q=2, num_qc=2, beta=0.5, **further
    )
    trainer = getattr(module, f"{class_name}Trainer")(model, None, logger)
    return lambda: trainer.train_one_step(*arrays)


def osrl_cdt(
    learner: CDT, batch: dict[str, torch.Tensor], logger: types.SimpleNamespace
) -> Callable[[], object]:
    module = importlib.import_module("osrl.algorithms.cdt")
    config = learner.config
    model = module.CDT(
        OBSERVATION,
        ACTION,
        1.0,
        seq_len=config.sequence_length,
        episode_len=LENGTH,
        embedding_dim=config.embedding_size,
        num_layers=config.layers,
        num_heads=config.heads,
        **dict.fromkeys(
            ("attention_dropout", "residual_dropout", "embedding_dropout"), config.dropout
        ),
        **dict.fromkeys(("use_rew", "use_cost", "cost_transform", "stochastic"), True),
        target_entropy=-ACTION,
    )
    trainer = module.CDTTrainer(model, None, logger, loss_cost_weight=config.cost_loss_weight)
    steps = batch["steps"].long()
    mask = (steps == steps[:, :1] + torch.arange(config.sequence_length)).float()
    arrays = [
        batch["observations"],
        batch["actions"],
        config.reward_scale * batch["returns_to_come"],
    ]
    arrays += [batch["costs_to_come"], steps, mask, batch["costs_to_come"][:, 0], batch["costs"]]
    return lambda: trainer.train_one_step(*arrays)


if __name__ == "__main__":
    main()
