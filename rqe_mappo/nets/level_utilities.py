"""Utilities that are the CVaR of quantiles at a level that the network may choose itself: RMIX's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rqe_mappo.functional.risk import CVaR, quantile_weights
from rqe_mappo.nets.distributional_utilities import DistributionalSpec, QuantileUtilities
from rqe_mappo.nets.mlp import AgentNets

CHOICES = 10  # levels to choose from: 0.1, 0.2, .., 1


@dataclass(frozen=True, kw_only=True)
class LevelSpec(DistributionalSpec):
    """level: of the CVaR; None: chosen at each step, by a network's own outputs."""

    level: float | None


class LevelUtilities(QuantileUtilities):
    """Acts by the greatest CVaR, at a level that is fixed, or the likeliest of ten by logits beside the quantiles."""

    kind = "level utilities"
    known_levels: Tensor
    table: Tensor

    def __init__(self, spec: LevelSpec):
        super().__init__(spec)
        levels = [(i + 1) / CHOICES for i in range(CHOICES)] if spec.level is None else [spec.level]
        self.register_buffer("known_levels", torch.tensor(levels), persistent=False)  # known from the spec
        table = torch.empty(len(levels), spec.size)
        for row, level in zip(table, levels, strict=True):
            row.copy_(quantile_weights(CVaR(level), spec.size))
        self.register_buffer("table", table, persistent=False)

    @property
    def logits(self) -> int:
        """Outputs that choose a level."""
        return CHOICES if isinstance(self.spec, LevelSpec) and self.spec.level is None else 0

    def network(self, inputs: int, count: int) -> AgentNets:
        outputs = self.spec.actions.outputs * self.spec.size + self.logits
        return AgentNets.build((inputs, *self.spec.hidden, outputs), count, nn.ReLU, 0.1, self.spec.memory)

    def of_actions(self, outputs: Float[Tensor, "*rows O"]) -> Float[Tensor, "*rows actions N"]:
        return super().of_actions(outputs[..., : self.spec.actions.outputs * self.spec.size])

    def read(
        self, outputs: Float[Tensor, "*rows O"]
    ) -> tuple[Float[Tensor, "*rows actions N"], Float[Tensor, "*rows choices"]]:
        """Quantiles yet to be `shaped`, and which level is chosen, one-hot; its gradient is that of the softmax."""
        raw, ends = self.of_actions(outputs), self.spec.actions.outputs * self.spec.size
        if not self.logits:
            return raw, outputs.new_ones(*outputs.shape[:-1], 1)
        likely = outputs[..., ends:].softmax(-1)
        chosen = nn.functional.one_hot(likely.argmax(-1), CHOICES).to(likely.dtype)
        return raw, chosen + likely - likely.detach()

    def cvar(
        self, quantiles: Float[Tensor, "*rows actions N"], choice: Float[Tensor, "*rows choices"]
    ) -> Float[Tensor, "*rows actions"]:
        """The CVaR of each action at the level that is chosen, of ascending quantiles."""
        return (quantiles * (choice @ self.table)[..., None, :]).sum(-1)

    def level(self, choice: Float[Tensor, "*rows choices"]) -> Float[Tensor, "*rows"]:
        """The level that is chosen."""
        return self.known_levels[choice.argmax(-1)]

    def decoded(self, outputs: Float[Tensor, "*rows O"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """The CVaR of each action."""
        raw, choice = self.read(outputs)
        return self.cvar(self.shaped(raw), choice)
