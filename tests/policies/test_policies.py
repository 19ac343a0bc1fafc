"""Policies: densities against PyTorch's own, bounds, and a file that is trusted with nothing."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import distributions as dist

from safer_offline import load_policy
from safer_offline.context import BoxSpace, EnvironmentContext
from safer_offline.errors import CheckpointError, UsageError
from safer_offline.policies.behavior import BehaviorModel
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import ActionBox, GaussianPolicy, gaussian_nll
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.trained import FORMAT, POLICY_FILE, PolicyInfo, TrainedPolicy, _digest

DS, DA = 3, 2
BOX = ActionBox(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]))
LOW, HIGH = np.float32([-1, 0]), np.float32([1, 4])


@pytest.fixture
def observations():
    return 3 * torch.randn(200, DS, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def policy(observations):
    torch.manual_seed(0)
    policy = GaussianPolicy(DS, BOX, hidden_sizes=(16,))
    policy.observations.fit(observations)
    return policy


@pytest.fixture
def behavior(observations):
    torch.manual_seed(0)
    behavior = BehaviorModel(DS, BOX, components=3, hidden_sizes=(16,))
    behavior.observations.fit(observations)
    return behavior


@pytest.fixture
def trained(policy):
    torch.manual_seed(2)
    info = PolicyInfo(
        algorithm="safer",
        observation_size=DS,
        action_size=DA,
        hidden_sizes=(16,),
        critic_hidden_sizes=(8, 8),
        critic_members=2,
        context=EnvironmentContext(
            env_id="SafetyCarCircle-v0",
            kwargs={"colour": [1, 0]},
            cost_key="cost",
            max_episode_steps=300,
            observation_space=BoxSpace(low=(-math.inf,) * DS, high=(1.5,) * DS),
            versions={"numpy": "1.26.4"},
        ),
        cost_limit=10.0,
        reward_range=(-1.5, 300.0),
        dataset_sha256="ab" * 32,
        training={"config": {"epsilon": 0.05, "hidden_sizes": [16]}, "steps": 7, "seed": 0},
    )
    critics = [CriticEnsemble(DS, DA, members=2, hidden_sizes=(8, 8)) for _ in range(2)]
    return TrainedPolicy(info, actor=policy, reward_critic=critics[0], cost_critic=critics[1])


# Densities


@given(
    rows=st.lists(
        st.tuples(*[st.floats(-5, 5, width=32)] * 4, *[st.floats(0.125, 10, width=32)] * 2),
        min_size=1,
        max_size=10,
    )
)
@settings(deadline=None)
def test_gaussian_nll_is_that_of_torch(rows):
    actions, mean, std = torch.tensor(rows).split(2, dim=1)
    expected = -dist.Independent(dist.Normal(mean, std), 1).log_prob(actions)
    torch.testing.assert_close(gaussian_nll(actions, mean, std), expected, rtol=1e-4, atol=1e-4)


def test_behavior_nll_is_that_of_a_mixture_of_torch(behavior, observations):
    actions = torch.randn(len(observations), DA)
    log_weights, means, stds = behavior(observations)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(logits=log_weights), dist.Independent(dist.Normal(means, stds), 1)
    )
    torch.testing.assert_close(
        behavior.nll(observations, actions), -mixture.log_prob(actions), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(log_weights.exp().sum(-1), torch.ones(len(observations)))
    assert (stds > 0).all()


def test_behavior_model_learns_two_ways_to_act_and_samples_both(behavior, observations):
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(2, (len(observations),), generator=generator) * 2 - 1
    actions = torch.stack([0.8 * side, torch.full((len(observations),), 2.0)], 1)
    optimizer = torch.optim.Adam(behavior.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        behavior.nll(observations, actions).mean().backward()
        optimizer.step()
    samples = behavior.sample(observations[:50], 100, generator=generator)[..., 0]
    assert (samples.abs() - 0.8).abs().mean() < 0.15  # and not 0, between the two
    assert 0.3 < (samples > 0).float().mean() < 0.7


def test_behavior_samples_follow_the_mixture(behavior, observations):
    with torch.no_grad():
        # Components apart from one another and far inside the bounds: nothing is clipped.
        behavior.network[-1].weight *= 0.3
        places = torch.tensor([[-0.5, 0.3, -3, -2], [0.4, 0.4, -2, -3], [0.0, -0.5, -2, -2]])
        behavior.network[-1].bias.copy_(torch.cat([torch.tensor([0.0, 1, -1]), places.flatten()]))
        log_weights, means, stds = behavior(observations[:4])
    samples = behavior.sample(observations[:4], 40_000, generator=torch.Generator().manual_seed(3))
    assert samples.shape == (40_000, 4, DA)
    weights = log_weights.exp()[..., None]
    mean = (weights * means).sum(1)
    variance = (weights * (stds**2 + means**2)).sum(1) - mean**2
    torch.testing.assert_close(samples.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(samples.var(0), variance, atol=0, rtol=0.05)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(logits=log_weights), dist.Independent(dist.Normal(means, stds), 1)
    )
    # The mean log density of samples from the mixture itself is its negative entropy.
    torch.manual_seed(0)
    expected = mixture.log_prob(mixture.sample((40_000,))).mean(0)
    torch.testing.assert_close(mixture.log_prob(samples).mean(0), expected, atol=0.05, rtol=0)


def test_behavior_samples_keep_the_bounds_and_their_seed(behavior, observations):
    def sample(seed):
        return behavior.sample(observations, 20, generator=torch.Generator().manual_seed(seed))

    samples = sample(0)
    assert samples.shape == (20, len(observations), DA)
    assert (samples >= torch.from_numpy(LOW)).all()
    assert (samples <= torch.from_numpy(HIGH)).all()
    assert torch.equal(samples, sample(0))
    assert not torch.equal(samples, sample(1))
    assert not samples.requires_grad


@given(
    rows=st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=DS, max_size=DS), min_size=1, max_size=5
    )
)
@settings(deadline=None)
def test_the_mean_keeps_the_bounds_and_the_deviation_is_positive(rows):
    torch.manual_seed(0)
    mean, std = GaussianPolicy(DS, BOX, hidden_sizes=(16,))(torch.tensor(rows))
    assert (mean >= torch.from_numpy(LOW)).all()
    assert (mean <= torch.from_numpy(HIGH)).all()
    assert (std >= 0.05 * BOX.half_range).all()
    assert torch.isfinite(std).all()


# Predicting


def test_one_observation_and_a_batch_give_the_same_actions(trained, observations):
    batch = trained.predict(observations.numpy())
    assert batch.shape == (len(observations), DA)
    assert batch.dtype == np.float32
    mean, std = trained.action_distribution(observations)
    assert np.array_equal(batch, mean.detach().numpy())
    assert std.shape == mean.shape
    for row in (0, 7):
        alone = trained.predict(observations[row].numpy().astype(np.float64))
        assert alone.shape == (DA,)
        assert alone == pytest.approx(batch[row], abs=1e-6)
    assert trained.predict(observations[0].tolist()) == pytest.approx(batch[0], abs=1e-6)
    assert trained.predict(np.zeros((0, DS))).shape == (0, DA)


def test_sampled_actions_keep_the_bounds_and_scatter_around_the_mean(trained, observations):
    torch.manual_seed(0)
    one = np.repeat(observations[:1].numpy(), 4_000, axis=0)
    samples = trained.predict(one, deterministic=False)
    assert (samples >= LOW).all()
    assert (samples <= HIGH).all()
    assert (samples.std(0) > 0.05).all()
    mean, std = (part[0].detach().numpy() for part in trained.action_distribution(observations[:1]))
    expected = np.clip(
        mean + std * np.random.default_rng(0).standard_normal((4_000, DA)), LOW, HIGH
    )
    assert samples.mean(0) == pytest.approx(expected.mean(0), abs=0.08)
    assert samples.std(0) == pytest.approx(expected.std(0), rel=0.08)


@pytest.mark.parametrize("shape", [(DS + 1,), (5, DS - 1), (2, 2, DS), ()])
def test_observations_of_another_size_are_refused(trained, shape):
    with pytest.raises(UsageError, match=r"the policy takes \(3,\) or \(batch, 3\)"):
        trained.predict(np.zeros(shape))


def test_critics_answer_in_one_number_a_row(trained, observations):
    actions = torch.zeros(len(observations), DA)
    torch.testing.assert_close(
        trained.q_reward(observations, actions),
        trained.reward_critic(observations, actions).mean(0),
    )
    torch.testing.assert_close(
        trained.q_cost(observations, actions), trained.cost_critic(observations, actions).mean(0)
    )
    assert not torch.equal(
        trained.q_cost(observations, actions), trained.q_reward(observations, actions)
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5, 1e-12])
def test_constants_map_to_zero_and_what_hardly_varies_does_not(value):
    values = torch.full((1000, 2), value)
    values[:, 1] = torch.linspace(0, 1e-5, 1000)
    scale = Standardizer(2).fit(values, leave_out_constants=True)
    assert scale.std[0] == torch.inf
    assert scale.std[1] == pytest.approx(1e-3)
    assert (scale(torch.randn(50, 2))[:, 0] == 0).all()
    values[:, 0] += 1e-13 * torch.randn(1000)  # what a simulator leaves in place of zero
    assert Standardizer(2).fit(values, leave_out_constants=True).std[0] == torch.inf
    everything = Standardizer(2).fit(values)
    assert torch.isfinite(everything.inverse(everything(values))).all()


# The file


def test_what_is_loaded_is_what_was_saved_bit_for_bit(trained, observations, tmp_path):
    path = tmp_path / "new" / "folder" / POLICY_FILE
    trained.save(path)
    for loaded in (load_policy(path), load_policy(str(path)), load_policy(path.parent)):
        assert loaded.info == dataclasses.replace(trained.info)
        assert loaded.env_id == "SafetyCarCircle-v0"
        assert (loaded.cost_limit, loaded.reward_range) == (10.0, (-1.5, 300.0))
        state = trained.state_dict()
        assert loaded.state_dict().keys() == state.keys()
        assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
        assert np.array_equal(
            loaded.predict(observations.numpy()), trained.predict(observations.numpy())
        )
        actions = torch.zeros(len(observations), DA)
        assert torch.equal(
            loaded.q_cost(observations, actions), trained.q_cost(observations, actions)
        )
        assert torch.equal(loaded.observation_std, trained.actor.observations.std)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [entry.name for entry in path.parent.iterdir()] == [POLICY_FILE]


def test_saving_replaces_and_the_file_is_always_the_same(trained, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    second.write_text("old")
    trained.save(first)
    trained.save(second)
    assert first.read_bytes() == second.read_bytes()


def test_untold_things_stay_untold(trained, tmp_path):
    trained.info = dataclasses.replace(
        trained.info, context=EnvironmentContext(), cost_limit=None, reward_range=None, training={}
    )
    trained.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert (loaded.env_id, loaded.cost_limit, loaded.reward_range) == (None, None, None)


def test_files_from_before_the_context_tell_the_environment_alone(trained, tmp_path):
    path = tmp_path / "p.safetensors"
    trained.save(path)
    with safe_open(path, framework="pt") as file:
        info = json.loads(file.metadata()["info"])
    del info["context"]
    text = json.dumps(info | {"env_id": "SafetyCarCircle-v0"})
    state = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    save_file(state, path, {"format": FORMAT, "info": text, "sha256": _digest(text, state)})
    loaded = load_policy(path)
    assert loaded.context == EnvironmentContext(env_id="SafetyCarCircle-v0")
    assert loaded.context.kwargs is None


def test_the_fingerprint_is_that_of_the_file(trained, tmp_path):
    trained.save(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        assert file.metadata()["sha256"] == trained.fingerprint
    assert load_policy(tmp_path / "p.safetensors").fingerprint == trained.fingerprint
    other = dataclasses.replace(trained.info, cost_limit=1.0)
    trained.info = other
    with safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        assert file.metadata()["sha256"] != trained.fingerprint


def refuses(path, text):
    with pytest.raises(CheckpointError, match=text) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    assert "Remedy: " in str(caught.value)


@pytest.fixture
def file(trained, tmp_path):
    path = tmp_path / POLICY_FILE
    trained.save(path)
    return path


@pytest.fixture
def rewrite(file):
    """Write the file again with other metadata or tensors."""

    def write(*, info=None, drop=(), seal=True, **tensors):
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if callable(info):
            metadata["info"] = json.dumps(info(json.loads(metadata["info"])))
        elif info is not None:
            metadata["info"] = info
        state = {name: value for name, value in state.items() if name not in drop} | tensors
        if seal:
            metadata["sha256"] = _digest(metadata["info"], state)
        save_file(state, file, metadata=metadata)

    return write


def test_there_must_be_a_file(tmp_path):
    refuses(tmp_path / "none.safetensors", "there is no such policy")
    refuses(tmp_path, "there is no such policy")  # a folder without one


@pytest.mark.parametrize("length", [0, 4, 100, 2_000, -1])
def test_truncated_files_are_refused(file, length):
    file.write_bytes(file.read_bytes()[:length])
    refuses(file, "cannot be read")


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip", b"\x80\x04K\x01.", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(file, content):
    file.write_bytes(content)
    refuses(file, "cannot be read")


def test_safetensors_of_others_are_refused(file, rewrite):
    save_file({"weight": torch.zeros(3)}, file)
    refuses(file, "has format 'None'")
    save_file({"weight": torch.zeros(3)}, file, metadata={"format": "pt"})
    refuses(file, "has format 'pt'")
    save_file({"weight": torch.zeros(3)}, file, metadata={"format": FORMAT})
    refuses(file, "do not fit")


@pytest.mark.parametrize(
    "info",
    [
        lambda info: info | {"hidden_sizes": [17]},
        lambda info: info | {"observation_size": DS + 1},
        lambda info: info | {"action_size": 0},
        lambda info: info | {"critic_members": 3},
        lambda info: info | {"hidden_sizes": [-4]},
        lambda info: info | {"hidden_sizes": "wide"},
        lambda info: info | {"surprise": 1},
        lambda info: {name: value for name, value in info.items() if name != "algorithm"},
        lambda info: [1, 2],
        "no json",
        "null",
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_metadata_that_do_not_fit_the_weights_are_refused(file, rewrite, info):
    rewrite(info=info)
    refuses(file, "do not fit")


def test_an_absurd_size_is_refused_without_its_memory(file, rewrite):
    rewrite(info=lambda info: info | {"hidden_sizes": [10**6, 10**6]})
    refuses(file, "do not fit")


def test_missing_and_additional_weights_are_refused(file, rewrite):
    rewrite(drop=("actor.network.0.weight",))
    refuses(file, "actor.network.0.weight")
    rewrite(**{"actor.network.0.weight": torch.zeros(16, DS), "stranger": torch.zeros(1)})
    refuses(file, "stranger")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_never_changes_a_policy_unnoticed(trained, tmp_path, place, bit):
    path = tmp_path / "flipped.safetensors"
    trained.save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        loaded = load_policy(path)
    except CheckpointError:
        return
    assert loaded.info == trained.info
    state = trained.state_dict()
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)


def test_weights_that_do_not_match_the_digest_are_refused(file, rewrite):
    rewrite(**{"actor.network.0.weight": torch.zeros(16, DS)}, seal=False)
    refuses(file, "damaged")
