"""`FlowProbabilities`: probabilities of the masks that were kept, from a flow model in place of the method's own.

Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2. Proposals are filtered first (table 5), then the kept masks
take the probabilities that explain what the flow model says about the image:

- ``velocity``: its velocity at t = 0, averaged over draws, as a weighted sum of masks (equation 22);
- ``mean``: the same from one evaluation; at t = 0 the velocity carries the mean mask and nothing else;
- ``posterior``: its posterior means at t > 0, whose weights depend on the noise (equation 19; not in the paper);
- ``samples``: samples drawn from it, each counted for its nearest mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.methods.decomposition import (
    assignment_counts,
    posterior_decomposition,
    velocity_decomposition,
    with_probabilities,
)
from ambiseg.methods.flow_matching import FlowMatching

if TYPE_CHECKING:
    from ambiseg.engine.predict import Run

KINDS = ("velocity", "mean", "posterior", "samples")
DRAWS = 64
"""Draws of noise, or samples, for each image (table 11)."""


class FlowProbabilities:
    """Estimates probabilities of masks with the flow model of a run.

    Args:
        flow: a loaded run of flow-matching, trained on data of the same classes and channels.
        kind: ``velocity``, ``mean``, ``posterior`` or ``samples``.
        draws: draws of noise, or samples; ``mean`` needs one.

    Raises:
        UnknownNameError: no such kind.
        AmbisegError: a run of another method, or fewer than one draw.
    """

    def __init__(self, flow: Run, kind: str = "velocity", draws: int = DRAWS) -> None:
        if kind not in KINDS:
            raise UnknownNameError("kind of probabilities", kind, KINDS)
        if draws < 1:
            raise AmbisegError(f"probabilities need at least one draw, received {draws}")
        if not isinstance(flow.model, FlowMatching):
            raise AmbisegError(
                f"a run of {flow.config.method} has no velocity: give a run of 'ambiseg train flow-matching'"
            )
        self.flow, self.model, self.kind, self.draws = flow, flow.model, kind, 1 if kind == "mean" else draws

    def check(self, run: Run) -> None:
        """Raise `AmbisegError` where a run has other channels or classes than the flow model."""
        ours, theirs = run.config, self.flow.config
        for what, one, other in (
            ("channels", ours.in_channels, theirs.in_channels),
            ("classes", list(ours.labels.names), list(theirs.labels.names)),
        ):
            if one != other:
                raise AmbisegError(
                    f"the flow run was trained on data of other {what} ({other}) than this run ({one}): train one on the"
                    " same data"
                )

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[NDArray[np.generic]],
        masks: MaskSet,
        generator: torch.Generator | None = None,
    ) -> MaskSet:
        """The same masks with estimated probabilities, on the CPU.

        Args:
            images: of one size, ``(C, H, W)`` each, not normalised.
            masks: the masks of these images that were kept.
            generator: source of noise.
        """
        hardware = self.flow.hardware
        batch = hardware.images(torch.stack([self.flow.config.normalization(image) for image in images]))
        with hardware.autocast():
            if self.kind == "samples":
                samples = self.model.predict(batch, self.draws, generator).hard().to("cpu")
                return with_probabilities(masks, assignment_counts(samples, masks))
            estimate: Any = posterior_decomposition if self.kind == "posterior" else velocity_decomposition
            found = estimate(self.model, batch, masks, draws=self.draws, generator=generator)
        return with_probabilities(masks, found.probabilities)
