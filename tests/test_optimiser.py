"""The optimiser: the steps of PyTorch's Adam, without loading its compiler."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from rqe_mappo.algorithms.optimiser import MOMENTS, Adam, Optimiser


def fitted(kind: type[torch.optim.Adam]) -> tuple[list[torch.Tensor], dict]:
    """Weights after some steps, a change of step size and a way through the state, and the state."""
    draws = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        for weights in net.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draws))
    adam = kind(net.parameters(), lr=1e-2, fused=True, eps=1e-5)
    for step in range(40):
        if step == 20:
            known = adam.state_dict()
            adam = kind(net.parameters(), lr=1e-2, fused=True, eps=1e-5)
            adam.load_state_dict(known)
            adam.param_groups[0]["lr"] = 3e-3
        adam.zero_grad()
        (net(torch.randn(16, 3, generator=draws)) ** 2).mean().backward()
        adam.step()
    return [weights.detach() for weights in net.parameters()], adam.state_dict()


def test_steps_are_those_of_pytorch():
    (ours, state), (theirs, known) = fitted(Adam), fitted(torch.optim.Adam)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert state["param_groups"] == known["param_groups"]
    for number, moments in known["state"].items():
        assert all(torch.equal(moments[name], state["state"][number][name]) for name in moments)


@pytest.mark.parametrize(
    "flags",
    [
        "--env cartpole --total-timesteps 20000 --num-envs 32",  # lays its atoms anew, which descends too
        "--env cartpole --total-timesteps 2048 --recurrent",
        "--env macf --algo riskq --total-timesteps 4000",
        "--env gymnasium:CartPole-v1 --algo c51 --total-timesteps 4000",
        "--env macf --algo rmix --total-timesteps 4000 --recurrent",
    ],
)
def test_no_run_loads_the_compiler(flags, tmp_path):
    """It takes a third of the time to begin a run."""
    code = (
        f"import sys; from rqe_mappo.cli import train; train({[*flags.split(), '--out', str(tmp_path / 'run')]!r} + "
        "['--eval-episodes', '4']); sys.exit('torch._dynamo' in sys.modules or 'sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def descended(long: bool) -> list[torch.Tensor]:
    """Weights after steps with clipped gradients, by the optimiser or as PyTorch would; another one comes between."""
    draws = torch.Generator().manual_seed(2)
    net = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2), nn.Linear(2, 1))
    with torch.no_grad():
        for weights in net.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draws))
    ours, theirs = Optimiser(net, 1e-2, 0.5), torch.optim.Adam(net.parameters(), lr=1e-2, eps=1e-5)
    for step in range(30):
        if step == 15:
            between = torch.optim.SGD(net.parameters(), lr=0.1)
            between.zero_grad()
            net(torch.ones(1, 3)).sum().backward()
            between.step()
            between.zero_grad()
            known = ours.state_dict()
            ours = Optimiser(net, 1e-2, 0.5)
            if long:
                ours.load_state_dict(known)
        loss = (net(torch.randn(16, 3, generator=draws)) ** 2).mean() * (10 if step % 2 else 1e-3)  # clipped or not
        if long:
            ours.descend(loss)
            continue
        theirs.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        theirs.step()
    return [weights.detach() for weights in net.parameters()]


def test_gradients_are_clipped_as_by_pytorch_whatever_else_descends_in_between():
    for ours, theirs in zip(descended(long=True), descended(long=False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["lent to another optimiser", "copied", "given other arrays"])
def test_weights_that_were_untied_are_tied_again(change):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    with torch.no_grad():
        for weights in net.parameters():
            weights.fill_(0.5)  # no gradient is small beside Adam's epsilon, so each weight moves by the step size
    optimiser = Optimiser(net, 1e-2, 0.5)
    if change == "lent to another optimiser":
        Optimiser(net[0], 1e-2, 0.5).descend(net(torch.ones(2, 3)).mean())
    elif change == "copied":
        net, optimiser = copy.deepcopy((net, optimiser))
    else:
        for weights in net.parameters():
            weights.data = weights.data.clone()
    before = [weights.detach().clone() for weights in net.parameters()]
    optimiser.descend(net(torch.ones(2, 3)).mean())
    for was, now in zip(before, net.parameters(), strict=True):
        torch.testing.assert_close((was - now).abs(), torch.full_like(was, 1e-2), rtol=0.01, atol=0)


def test_the_state_is_that_of_adam_array_by_array():
    """Older files hold it so, and newer ones too."""
    net = nn.Linear(3, 2)
    optimiser = Optimiser(net, 1e-2, 0.5)
    assert optimiser.state_dict()["state"] == {}
    optimiser.descend(net(torch.ones(4, 3)).square().mean())
    state = optimiser.state_dict()["state"]
    assert [known["exp_avg"].shape for known in state.values()] == [weights.shape for weights in net.parameters()]
    assert all(set(known) == {"step", *MOMENTS} and float(known["step"]) == 1 for known in state.values())
    twin = Optimiser(net, 1e-2, 0.5)
    twin.load_state_dict({"state": state, "param_groups": []})
    assert all(torch.equal(known["exp_avg"], twin.state_dict()["state"][at]["exp_avg"]) for at, known in state.items())
    with pytest.raises(ValueError, match="array 0 are those of another network"):
        Optimiser(nn.Linear(4, 2), 1e-2, 0.5).load_state_dict({"state": state, "param_groups": []})


def test_adam_of_pytorch_goes_on_from_the_state():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimiser = Optimiser(net, 1e-2, 1e9)
    for _ in range(2):
        optimiser.descend(net(torch.ones(4, 3)).square().mean())
    twin = copy.deepcopy(net)
    theirs = torch.optim.Adam(twin.parameters(), fused=True)
    theirs.load_state_dict(copy.deepcopy(optimiser.state_dict()))  # else both have the same moments
    for _ in range(3):
        optimiser.descend(net(torch.ones(4, 3)).square().mean())
        theirs.zero_grad()
        twin(torch.ones(4, 3)).square().mean().backward()
        theirs.step()
    assert {float(known["step"]) for known in theirs.state.values()} == {5}
    for ours, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, other)
