"""The wrapper attacks as `evaluate` does, in loops of others."""

import gymnasium
import numpy as np
import pytest
import torch
from toy_environments import make_point
from toy_policies import Pull

from safer_offline import AttackedObservation, evaluate
from safer_offline.attacks import MAD, Bias, make_attack
from safer_offline.context import EnvironmentContext
from safer_offline.datasets.behaviors.learned.stable_baselines import stable_baselines
from safer_offline.errors import UsageError

EPSILON = 0.1


def act(network, observation):
    with torch.no_grad():
        return network(torch.from_numpy(observation)[None])[0].numpy()


def episode(env, network, seed):
    """Return, cost, and how far each perturbation went."""
    observation, info = env.reset(seed=seed)
    moved = [observation - info["true_observation"]]
    reward = cost = 0.0
    over = False
    while not over:
        observation, gain, terminated, truncated, info = env.step(act(network, observation))
        reward, cost = reward + gain, cost + info["cost"]
        moved.append(observation - info["true_observation"])
        over = terminated or truncated
    return reward, cost, np.array(moved)


@pytest.mark.parametrize("attack", ["uniform", "mad", "search", "natural"])
def test_an_episode_is_that_of_evaluate(attack):
    network = Pull()
    report = evaluate(
        network,
        env="toy_environments:make_point",
        attacks=attack,
        epsilon=EPSILON,
        episodes=3,
        max_rows=1,
        workers=0,
        cost_limit=5,
    )
    env = AttackedObservation(make_point(), network, attack, epsilon=EPSILON)
    for row in report.episodes.to_dict("records"):
        reward, cost, moved = episode(env, network, row["seed"])
        assert (reward, cost) == (pytest.approx(row["reward"], abs=1e-5), row["cost"])
        used = np.abs(moved[:-1]).mean() / EPSILON  # of the last observation nothing follows
        assert used == pytest.approx(row["budget_used"], abs=1e-5)
        assert used > 0 or attack == "natural"
        assert np.abs(moved).max() <= EPSILON * (1 + 1e-5)


def test_gymnasium_accepts_it():
    env = AttackedObservation(make_point(), attack="uniform", epsilon=0.0)
    observation, info = env.reset(seed=1)
    assert observation.tolist() == info["true_observation"].tolist()
    other = AttackedObservation(make_point(), attack="uniform", epsilon=EPSILON)
    assert other.reset(seed=1)[1]["true_observation"].tolist() == observation.tolist()
    assert other.observation_space == env.observation_space == make_point().observation_space
    assert np.abs(other.step(np.zeros(2))[0] - observation).max() > 0


def test_same_seed_same_perturbations_and_each_episode_others():
    def first(seed, resets=(None, None)):
        env = AttackedObservation(make_point(), attack="uniform", epsilon=EPSILON, seed=seed)
        moved = []
        for reset in resets:
            observation, info = env.reset(seed=reset)
            moved.append((observation - info["true_observation"]).round(6).tolist())
        return moved

    assert first(0, (5, 5))[0] == first(0, (5, 5))[1] == first(0, (4, 5))[1]
    assert first(0, (5, 5)) != first(1, (5, 5))
    assert first(0)[0] != first(0)[1]


def test_the_policy_may_come_later_and_change():
    env = AttackedObservation(make_point(), attack="mad", epsilon=EPSILON)
    with pytest.raises(UsageError, match=r"there is none yet"):
        env.reset(seed=0)
    env.policy = Pull()
    assert np.abs(episode(env, env.policy, 0)[2]).max() > 0.9 * EPSILON
    env.policy = Pull()
    with pytest.raises(UsageError, match=r"call reset first"):
        env.step(np.zeros(2))


def test_a_model_of_stable_baselines_learns_under_attack_on_itself():
    ppo = stable_baselines("this test").PPO
    env = AttackedObservation(make_point(), attack=MAD(steps=2, restarts=1), epsilon=EPSILON)
    model = ppo("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, device="cpu", seed=0)
    before = [p.detach().clone() for p in model.policy.parameters()]
    env.policy = model
    model.learn(64)
    after = list(model.policy.parameters())
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": "learned", "policy": Pull()}, "must be found first.*learned.*file="),
        ({"attack": "mc", "policy": Pull()}, "has no critic"),
        ({"attack": "mad", "policy": lambda observation: observation}, "passes none on"),
        ({"attack": "made", "policy": Pull()}, "mad"),
        ({"policy": Pull(), "epsilon": [0.1, 0.1, 0.1]}, "3 numbers.*2 coordinates"),
        ({"policy": Pull(), "epsilon_units": "std"}, "knows no deviations"),
        ({"policy": Pull(), "seed": -1}, "seed"),
        ({"policy": 7}, "no policy"),
    ],
)
def test_what_cannot_be_is_said_at_once(settings, message):
    with pytest.raises(UsageError, match=message):
        AttackedObservation(make_point(), **settings)


def test_deviations_that_nobody_knows_are_no_budget():
    env = AttackedObservation(make_point(), attack="uniform", epsilon_units="std")
    with pytest.raises(UsageError, match=r"knows no deviations"):
        env.reset(seed=0)


def test_an_attack_that_must_be_fitted_says_how():
    class Critical(Pull):
        observation_std = torch.ones(2)
        observation_size, action_size = 2, 2
        context = EnvironmentContext()

        def action_distribution(self, observations):
            mean = self(observations)
            return mean, torch.full_like(mean, 0.1)

        def q_cost(self, observations, actions):
            return actions[:, 0]

    with pytest.raises(UsageError, match=r"fitted to its victim"):
        AttackedObservation(make_point(), Critical(), "amad")
    fitted = make_attack("amad").fit(Critical(), torch.randn(50, 2))
    env = AttackedObservation(make_point(), Critical(), fitted, epsilon=EPSILON)
    assert env.reset(seed=0)[0].shape == (2,)


def test_a_bias_is_the_same_for_the_whole_episode():
    env = AttackedObservation(make_point(), Pull(), Bias(offset=(1.0, -0.5)), epsilon=EPSILON)
    moved = episode(env, Pull(), 3)[2]
    assert moved == pytest.approx(np.tile([0.1, -0.05], (len(moved), 1)), abs=1e-6)


def test_spaces_that_are_no_flat_boxes_are_refused():
    for name in ("CartPole-v1", "FrozenLake-v1"):
        with pytest.raises(UsageError, match=r"flat Box.*FlattenObservation"):
            AttackedObservation(gymnasium.make(name), attack="uniform")
