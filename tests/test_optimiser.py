"""The optimiser: the steps of PyTorch's Adam, without loading its compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from rqe_mappo.algorithms.optimiser import Adam


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
        "--env macf --algo rmix --total-timesteps 4000 --recurrent",
    ],
)
def test_no_run_loads_the_compiler(flags, tmp_path):
    """It takes a third of the time to begin a run."""
    code = (
        f"import sys; from rqe_mappo.cli import train; train({[*flags.split(), '--out', str(tmp_path / 'run')]!r} + "
        "['--eval-episodes', '4']); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
