"""The Constrained Decision Transformer against OSRL's update and roll-out, and its targets."""

import copy
import types

import numpy as np
import pytest
import torch
from beside_osrl import copy_layers, osrl

from safer_offline import load_policy, train
from safer_offline.attacks import MAD, GeneratorNoise, Natural, Uniform
from safer_offline.attacks.base import rows_of
from safer_offline.datasets import save_dataset
from safer_offline.datasets.larger_than_memory.cache import open_cached
from safer_offline.errors import DataError, UsageError
from safer_offline.learners import cdt as module
from safer_offline.learners.cdt import CDT, CDTConfig, Sequences

SMALL = {
    "embedding_size": 16, "layers": 2, "heads": 2, "sequence_length": 6, "batch_size": 70,
    "learning_rate": 1e-3, "warmup_steps": 5, "cost_limit": 2.0, "reward_scale": 0.5,
}  # fmt: skip
AS_OSRL = {"dropout": 0.0, "standardize": False}


def learner(points, *, steps=20, seed=0, **settings):
    return CDT(CDTConfig(**SMALL | settings), points, steps=steps, seed=seed)


@torch.no_grad()
def copy_all(theirs, ours):
    """Our weights into OSRL's model."""
    actor = ours.actor
    copy_layers(
        (theirs.return_emb, theirs.cost_emb, theirs.state_emb, theirs.action_emb),
        (actor.of_return, actor.of_cost, actor.of_observation, actor.of_action),
    )
    copy_layers([theirs.cost_pred_head], [ours.next_cost])
    theirs.timestep_emb.weight[: len(actor.of_time.weight)] = actor.of_time.weight
    copy_layers((theirs.emb_norm, theirs.out_norm), (actor.first_norm, actor.last_norm))
    for to, source in zip(theirs.blocks, actor.blocks, strict=True):
        to.attention.in_proj_weight.copy_(source.query_key_value.weight)
        to.attention.in_proj_bias.copy_(source.query_key_value.bias)
        copy_layers(
            (to.norm1, to.norm2, to.attention.out_proj, to.mlp[0], to.mlp[2]),
            (source.attention_norm, source.hidden_norm, source.attended, source.widen,
             source.narrow),
        )  # fmt: skip
    if theirs.stochastic:
        heads = actor.head.weight.chunk(2), actor.head.bias.chunk(2)
        for to, weight, bias in zip(
            (theirs.action_head.mu, theirs.action_head.log_std), *heads, strict=True
        ):
            to.weight.copy_(weight)
            to.bias.copy_(bias)
    else:
        copy_layers([theirs.action_head[0]], [actor.head])


def osrl_trainer(ours, monkeypatch, *, env=None):
    cdt, config = osrl("cdt", monkeypatch), ours.config
    theirs = cdt.CDT(
        2, 2, 1.0, seq_len=config.sequence_length, episode_len=20, embedding_dim=16, num_layers=2,
        num_heads=2, use_rew=True, use_cost=True, cost_transform=True, target_entropy=-2,
        stochastic=config.stochastic, init_temperature=config.initial_temperature,
    )  # fmt: skip
    copy_all(theirs, ours)
    log = {}
    trainer = cdt.CDTTrainer(
        theirs, env, types.SimpleNamespace(store=lambda tab, **values: log.update(values)),
        learning_rate=config.learning_rate, weight_decay=config.weight_decay,
        clip_grad=config.max_norm, lr_warmup_steps=config.warmup_steps,
        reward_scale=config.reward_scale, loss_cost_weight=config.cost_loss_weight,
    )  # fmt: skip
    return trainer, log


@pytest.mark.parametrize("stochastic", [True, False])
def test_it_is_osrl_s_update(points, monkeypatch, stochastic):
    ours = learner(points, stochastic=stochastic, cost_loss_weight=0.3, **AS_OSRL)
    trainer, log = osrl_trainer(ours, monkeypatch)
    batches = copy.deepcopy(ours.batches)
    for _ in range(20):
        batch = batches.sample()
        steps = batch["steps"].long()
        mask = (steps == steps[:, :1] + torch.arange(6)).float()
        assert 0.7 < mask.mean() < 1
        trainer.train_one_step(
            batch["observations"], batch["actions"], 0.5 * batch["returns_to_come"],
            batch["costs_to_come"], steps, mask, None, batch["costs"],
        )  # fmt: skip
        losses = ours.update()
        names = {"policy": "act_loss", "cost": "cost_loss"}
        names |= {"nll": "nll", "entropy": "ent"} if stochastic else {}
        expected = {name: log[other] for name, other in names.items()}
        expected["policy"] += 0.3 * expected["cost"]
        for name, value in expected.items():
            assert float(losses[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name
    if stochastic:
        torch.testing.assert_close(ours.log_temperature, trainer.model.log_temperature.data.float())
    before = copy.deepcopy(trainer.model)
    copy_all(trainer.model, ours)
    for (name, one), other in zip(
        before.named_parameters(), trainer.model.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5, msg=name)


class Line:
    """A point that is pushed about; what it earns and costs follows from where it is."""

    def __init__(self, scale=1.0, length=20):
        self.scale, self.length, self.actions = scale, length, []

    def reset(self):
        self.place, self.steps, self.actions = np.array([0.3, -0.2], np.float32), 0, []
        return self.place, {}

    def step(self, action):
        self.actions.append(action)
        self.place = (0.9 * self.place + 0.3 * action).astype(np.float32)
        self.steps += 1
        reward, cost = float(self.place.sum()), float(self.place[0] > 0.2)
        return self.place, self.scale * reward, False, self.steps == self.length, {"cost": cost}


def ride(episode, env):
    observation, _ = env.reset()
    over = False
    while not over:
        observation, reward, _, over, info = env.step(episode.predict(observation))
        episode.earn(reward, info["cost"])
    return np.array(env.actions)


def lively(ours):
    """Weights that make much of everything that is remembered."""
    with torch.no_grad():
        for parameter in ours.actor.parameters():
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return ours


def test_it_acts_as_osrl_s_roll_out_does(points, monkeypatch):
    ours = lively(learner(points, **AS_OSRL))
    trainer, _ = osrl_trainer(ours, monkeypatch, env=Line(scale=0.5))
    trainer.model.eval()
    trainer.rollout(trainer.model, trainer.env, 0.5 * 7.0, 3.0)
    policy = ours.policy().aimed_at(target_return=7.0, target_cost=3.0)
    actions = ride(policy.begin(), Line())
    np.testing.assert_allclose(actions, trainer.env.actions, atol=1e-5)
    assert np.ptp(actions, axis=0).min() > 0.1
    for targets in ({"target_return": 1.0}, {"target_cost": 60.0}):
        assert np.abs(ride(policy.aimed_at(**targets).begin(), Line()) - actions).max() > 0.01


# Data


def test_sequences_stay_within_their_episode(make_points):
    """The last sequence of the data, and one that runs into another episode."""
    data = make_points(episodes=3, length=8)
    ours = learner(data, sequence_length=4)
    batch = next(
        batch for batch in iter(ours.batches.sample, None) if (batch["steps"][:, 0] == 6).any()
    )
    row = int((batch["steps"][:, 0] == 6).nonzero()[0])
    episodes = data.observations.view(3, 8, 2)
    episode = int((episodes[:, 6] == batch["observations"][row, 0]).all(1).nonzero())
    for name, column in (("returns_to_come", data.rewards), ("costs_to_come", data.costs)):
        left = column.view(3, 8)[episode, 6:]
        expected = torch.stack([left.sum(), left[1]])
        torch.testing.assert_close(batch[name][row, :2], expected)
    ours.batches.sample = lambda: copy.deepcopy(batch)
    steps = batch["steps"]
    beyond = steps != steps[:, :1] + torch.arange(4)
    assert beyond[row].tolist() == [False, False, True, True]
    weights = []
    for junk in (0.0, 1.0):
        ours = learner(data, sequence_length=4, adversarial_weight=1.0, ramp_share=0.0)
        for name, column in batch.items():
            column[beyond] = 3.0 if name == "steps" and junk else junk
        ours.batches.sample = lambda: copy.deepcopy(batch)
        ours.update()
        weights.append(ours.actor.state_dict())
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name])


def test_data_on_disk_give_the_policy_of_memory(points, tmp_path):
    file = tmp_path / "points.h5"
    save_dataset(file, points)
    states = []
    for data in (points, open_cached(file)):
        ours = learner(data, steps=4)
        for _ in range(4):
            ours.update()
        states.append(ours.policy().state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pieces_of_a_batch_make_the_whole(points, monkeypatch):
    states = []
    for size in (1000, 9):
        monkeypatch.setattr(module, "PIECE_SEQUENCES", size)
        ours = learner(points, dropout=0.0)
        losses = ours.update()
        states.append((losses["policy"], losses["nll"], ours.actor.of_cost.weight))
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_resumed_training_drops_and_attacks_as_the_whole_one(points):
    def new():
        return learner(points, steps=8, adversarial_weight=0.5, robustness="noise")

    whole, resumed = new(), new()
    for _ in range(4):
        whole.update()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for _ in range(4):
        assert whole.update() == resumed.update()
    assert torch.equal(whole.actor.head.weight, resumed.actor.head.weight)
    assert torch.equal(whole.log_temperature, resumed.log_temperature)


# Targets


def test_it_aims_at_the_best_return_within_the_limit(points):
    episodes = points.episodes
    actor = learner(points).actor
    assert actor.target_cost == 2
    best = episodes["return"][episodes["cost"] <= 2].max()
    assert float(actor.target_return) == pytest.approx(best)
    assert best < episodes["return"].max()
    generous = learner(points, cost_limit=1000.0).actor
    assert float(generous.target_cost) == episodes["cost"].max()
    told = learner(points, target_return=3.0, target_cost=5.0).actor
    assert (float(told.target_return), float(told.target_cost)) == (3.0, 5.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_cost": 50.0}, r"cost of 50: they cost 0 to 20[\s\S]*--set target_cost=20"),
        ({"target_return": 99.0}, r"return of 99[\s\S]*leave target_return out, for .*at most 2"),
        ({"sequence_length": 21}, r"21 steps are longer[\s\S]*--set sequence_length=20"),
        ({"weighting": "cost", "cost_cap": -1.0}, "cost_cap must be > 0"),
        ({"heads": 3}, "must be a multiple of heads"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_what_cannot_be_aimed_at_is_said_before_the_training(points, settings, words):
    with pytest.raises((DataError, UsageError), match=words):
        learner(points, **settings)


def test_a_limit_that_no_episode_keeps_is_named(make_points):
    costly = make_points(lanes=(0.6,))
    least = costly.episodes["cost"].min()
    with pytest.raises(DataError, match=rf"a cost of 2: [\s\S]*--cost-limit {least:g}"):
        learner(costly)


def test_it_learns_what_was_done_and_what_it_is_told_matters(points):
    ours = learner(
        points, steps=250, cost_origin=5.0, dropout=0.0, sequence_length=2, max_norm=10.0,
        learning_rate=3e-3,
    )  # fmt: skip
    losses = [ours.update() for _ in range(250)]
    assert losses[-1]["nll"] < losses[0]["nll"] - 0.5
    policy = ours.policy()
    # At the start in the middle, and told of much or of little cost: it goes where it is had.
    start = np.zeros((1, 2), np.float32)
    pulls = [
        policy.aimed_at(target_return=12.0, target_cost=cost).begin().predict(start)[0, 0]
        for cost in (0.0, 20.0)
    ]
    assert pulls[1] > pulls[0]


# Robust


def test_an_attack_moves_the_observations_of_a_sequence_together(points):
    ours = lively(learner(points))
    batch = ours.batches.sample()
    batch["steps"] = batch["steps"].long()
    batch["held"] = batch["steps"] == batch["steps"][:, :1] + torch.arange(6)
    victim, seen = Sequences(ours.actor, batch), batch["observations"].flatten(1)
    with torch.no_grad():
        mean, std = victim.action_distribution(seen.repeat(3, 1))
        alone, _ = rows_of(victim, slice(1, None, 2)).action_distribution(seen[1::2])
        expected, _ = ours.actor.heads_of(ours.actor.features(batch)[:, :, 0])
    held = batch["held"].repeat(3, 1)
    torch.testing.assert_close(mean.view(210, 6, 2)[held], expected.repeat(3, 1, 1)[held])
    torch.testing.assert_close(alone, mean[1:70:2])
    assert (std.view(210, 6, 2)[~held] == 1).all()
    epsilon = torch.tensor([0.1, 0.0]).repeat(6)

    def harm(attack):
        noise = GeneratorNoise(torch.Generator().manual_seed(0))
        shown = attack.perturb(victim, seen, epsilon=epsilon, noise=noise)
        assert ((shown - seen).abs() <= epsilon).all()
        with torch.no_grad():
            return float(MAD().objective(victim, seen)(shown).mean())

    assert harm(MAD(steps=4, restarts=1)) > 1.5 * harm(Uniform()) > harm(Natural())


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("robustness", ["attack", "noise", "kl"])
def test_the_robust_term_is_in_the_loss(points, robustness, stochastic):
    settings = {"robustness": robustness, "stochastic": stochastic, "dropout": 0.0}
    plain = learner(points, **settings).update()
    robust = learner(points, adversarial_weight=2.0, ramp_share=0.0, epsilon=0.3, **settings)
    losses = robust.update()
    name = "nll" if stochastic else "mse"
    assert losses[name] == pytest.approx(float(plain[name]))
    assert losses["epsilon_ramp"] == 1
    term = float(losses[f"{name}_attacked"])
    assert losses["policy"] == pytest.approx(float(plain["policy"]) + 2 * term, rel=1e-4)
    assert term > 0 if robustness == "kl" else term != float(losses[name])


def test_its_file_acts_as_it_does(points, tmp_path):
    config = CDTConfig(**SMALL, adversarial_weight=1.0)
    run = train(config, points, out=tmp_path, steps=12, progress=False)
    policy = load_policy(tmp_path)
    assert policy.fingerprint == run.policy.fingerprint
    assert policy.remembers
    assert policy.critics == ()
    actions = ride(policy.begin(), Line())
    np.testing.assert_array_equal(actions, ride(run.policy.begin(), Line()))
    assert (np.abs(actions) <= 1).all()
    # Dropout is for training.
    np.testing.assert_array_equal(actions, ride(policy.begin(), Line()))
