"""Noise in and out of actions, against what is known of the process, and the choice."""

import math

import pytest
import torch

from safer_offline.policies.actors import ActionBox
from safer_offline.policies.diffusion import Denoiser, DiffusionPolicy, noise_schedule


@pytest.fixture
def policy():
    torch.manual_seed(0)
    box = ActionBox(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]))
    policy = DiffusionPolicy(
        3, box, hidden_sizes=(16, 12), candidates=6, steps=4, critic_hidden_sizes=(16,),
        critic_members=3,
    )  # fmt: skip
    policy.latents.normal_()
    return policy.double()


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_the_schedule_leaves_what_the_continuous_process_leaves(steps):
    kept = (1 - noise_schedule(steps)).prod()
    assert float(kept) == pytest.approx(math.exp(-(0.1 + 10.0) / 2), rel=1e-4)


def test_added_noise_has_the_variance_of_all_steps_before(policy):
    denoiser = Denoiser(3, 1, steps=5, hidden_sizes=(8,))
    torch.manual_seed(0)
    x = start = torch.full((200_000, 1), 0.7)
    for t in range(5):
        x = (1 - denoiser.betas[t]).sqrt() * x + denoiser.betas[t].sqrt() * torch.randn_like(x)
        times = torch.full((len(x),), t)
        at_once = denoiser.add_noise(start, torch.randn_like(x), times)
        assert float(at_once.mean()) == pytest.approx(float(x.mean()), abs=0.01)
        assert float(at_once.std()) == pytest.approx(float(x.std()), abs=0.01)


def test_who_knows_the_noise_finds_the_action(policy, monkeypatch):
    """If all actions at a state are one, the noise is known, whatever the latents."""
    denoiser, wanted = policy.denoiser, torch.tensor([0.3, -0.8]).double()
    kept = (1 - denoiser.betas).cumprod(0)

    def known(observations, noisy, t):
        return (noisy - kept[t].sqrt() * wanted) / (1 - kept[t]).sqrt()

    monkeypatch.setattr(denoiser, "forward", known)
    found = denoiser.remove_noise(torch.randn(9, 3).double(), torch.randn(9, 4, 2).double())
    torch.testing.assert_close(found, wanted.expand(9, 2))


def test_noise_goes_as_the_posterior_of_the_process_says(policy):
    """Ho et al. write each step by the action that the noise found leaves, too."""
    denoiser, latents = policy.denoiser, 0.1 * torch.randn(40, 4, 2).double()
    with torch.no_grad():
        denoiser.last.weight.mul_(0.1)
        denoiser.last.bias.zero_()
    observations, betas = torch.randn(40, 3).double(), denoiser.betas
    kept = torch.cat([torch.ones(1).double(), (1 - betas).cumprod(0)])  # before each step
    x = latents[:, 3]
    for t in (3, 2, 1, 0):
        noise = denoiser(observations, x, torch.full((40,), t))
        start = (x - (1 - kept[t + 1]).sqrt() * noise) / kept[t + 1].sqrt()
        x = (
            kept[t].sqrt() * betas[t] / (1 - kept[t + 1]) * start
            + (1 - betas[t]).sqrt() * (1 - kept[t]) / (1 - kept[t + 1]) * x
        )
        if t:
            x = x + betas[t].sqrt() * latents[:, t - 1]
        x = x.clamp(-1, 1)
    found = denoiser.remove_noise(observations, latents)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-6)
    assert (found.abs() < 1).float().mean() > 0.5


def test_it_takes_the_safest_candidate_of_fixed_latents(policy):
    observations = torch.randn(30, 3).double()
    acted, std = policy(observations)
    chosen = set()
    for row, observation in enumerate(observations):
        actions = [policy.draw(observation[None], latent[None])[0] for latent in policy.latents]
        critics = [policy.violation_critic(observation[None], a[None]).max() for a in actions]
        best = min(range(6), key=lambda k: critics[k])
        chosen.add(best)
        torch.testing.assert_close(acted[row], actions[best])
    assert len(chosen) > 1
    assert torch.equal(acted, policy(observations)[0])
    assert (acted >= policy.box.centre - policy.box.half_range).all()
    assert (acted <= policy.box.centre + policy.box.half_range).all()
    assert (std > 0).all()
    torch.manual_seed(0)
    sampled = policy.sample(observations)
    assert not torch.equal(sampled, policy.sample(observations))


def test_gradients_pass_through_the_chosen_candidate(policy):
    """Against differences, where no bound is touched."""
    with torch.no_grad():
        policy.denoiser.last.weight.mul_(0.1)
        policy.latents.mul_(0.05)
    observations = torch.randn(20, 3).double().requires_grad_()
    (gradient,) = torch.autograd.grad(policy(observations)[0].sum(), observations)
    step = 1e-6
    for coordinate in range(3):
        shift = torch.zeros(3).double()
        shift[coordinate] = step
        up, down = (policy(observations.detach() + sign * shift)[0].sum(1) for sign in (1, -1))
        torch.testing.assert_close(
            gradient[:, coordinate], (up - down) / (2 * step), rtol=1e-4, atol=1e-7
        )
    assert gradient.abs().max() > 1e-3
