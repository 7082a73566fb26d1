"""Value normalisation, as MAPPO has it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ValueNorm(nn.Module):
    """Running mean and std of what a critic predicts; 0 and 1 until the first `update`.

    Moments are exponential averages over rollouts, corrected for their start; with so long a memory nearly plain ones.
    Yu et al., 'The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games' (2022), and its code.
    """

    MEMORY = 0.99999
    ROUNDING = 1e-12  # of the second moment: a smaller variance is what rounding left of none
    first: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self, values: int):
        super().__init__()
        for name, shape in (("first", (values,)), ("second", (values,)), ("weight", ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))  # second - first^2 cancels digits

    def update(self, returns: Float[Tensor, "rows values"]) -> None:
        """Take in the returns of one rollout."""
        returns = returns.double()
        for total, moment in ((self.first, returns.mean(0)), (self.second, (returns**2).mean(0))):
            total.mul_(self.MEMORY).add_((1 - self.MEMORY) * moment)
        self.weight.mul_(self.MEMORY).add_(1 - self.MEMORY)

    def _mean_and_std(self) -> tuple[Float[Tensor, " values"], Float[Tensor, " values"]]:
        begun = self.weight > 0
        mean, square = torch.where(begun, self.first / self.weight, 0.0), self.second / self.weight
        variance = (square - mean**2).clamp(min=self.ROUNDING * square)
        std = torch.where(begun & (variance > 0), variance.sqrt(), 1.0)
        return mean.float(), std.float()

    def normalise(self, returns: Float[Tensor, "*rows values"]) -> Float[Tensor, "*rows values"]:
        """Returns less their mean, over their std."""
        mean, std = self._mean_and_std()
        return (returns - mean) / std

    def restore(self, normalised: Float[Tensor, "*rows values"]) -> Float[Tensor, "*rows values"]:
        """The reverse of `normalise`."""
        mean, std = self._mean_and_std()
        return normalised * std + mean
