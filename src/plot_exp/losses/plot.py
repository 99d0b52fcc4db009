"""PLOT: optimal transport of the model's token distribution to the preference distribution."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from plot_exp.config.losses import PLOTConfig
from plot_exp.losses.context import Context
from plot_exp.losses.distribution import DistributionTerm
from plot_exp.losses.transports import Transport, transport_for


class PLOT(DistributionTerm):
    """Wasserstein-1 between the model's token distribution p and the target q.

    The cost between tokens is a distance of their embeddings, reduced to one dimension or in full
    (arXiv 2604.01837; a reconstruction: the paper leaves the projection and the scale open).
    """

    measure: ClassVar[str] = "distance"

    def __init__(self, config: PLOTConfig, context: Context) -> None:
        super().__init__(config, context, config.alpha)
        self.config = config
        self.transport: Transport = transport_for(
            config,
            embedding(config, context),
            self.allowed,
            context.token_counts().mass(self.allowed),
            self.target,
        )
        self._device = self.target.device

    def divergence(self, p: Tensor) -> Tensor:
        return self.distance(p)

    def distance(self, p: Tensor) -> Tensor:
        """Transport [...] from distributions p [..., V] to the target."""
        if self._device != p.device:
            self.transport, self._device = self.transport.to(p.device), p.device
        return self.transport.distance(p, self.target_beside(p))

    def details(self) -> dict[str, Tensor]:
        """What the transport says of its last value, for the log."""
        said = getattr(self.transport, "details", None)
        return said() if said is not None else {}


def embedding(config: PLOTConfig, context: Context) -> Tensor:
    """The frozen embeddings [V, D] whose distances are the cost."""
    if config.embedding == "output":
        return context.output_embedding()
    if config.embedding == "contextual":
        return context.contextual_embedding()
    return context.input_embedding()


TERM = PLOT
