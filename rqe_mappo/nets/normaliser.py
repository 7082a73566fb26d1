"""Running statistics of what networks see, so that features of any scale can be learned from."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LARGEST = 10.0  # stds; what lies further out is clipped, as in Gymnasium's and VecNormalize's wrappers


class Normaliser(nn.Module):
    """Features less their mean, over their std, clipped at ten; unchanged until the first `update`."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "R features"]) -> None:
        """Take in rows: mean and variance of all that were ever seen (Chan et al., 1979)."""
        if not len(rows):
            return
        rows = rows.double()
        n, mean, own = len(rows), rows.mean(0), rows.var(0, correction=0)
        total = self.count + n
        gap = mean - self.mean
        squares = self.variance * self.count + own * n + gap**2 * self.count * n / total
        self.mean.add_(gap * n / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)

    @property
    def moments(self) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
        """Mean and std by which features are changed, in single precision."""
        return self.mean.float(), (self.variance + 1e-8).sqrt().float()

    def forward(self, rows: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows features"]:
        mean, std = self.moments
        return ((rows - mean) / std).clamp(-LARGEST, LARGEST)
