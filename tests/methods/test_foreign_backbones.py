"""Every method trains and predicts with an encoder of another package, and its run needs nothing but its folder."""

from __future__ import annotations

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.nested_settings import merged, replaced
from ambiseg.networks.foreign.pyramid import EncoderBackbone
from ambiseg.networks.settings import EncoderSettings, UNetSettings
from ambiseg.testing import prediction_of

pytest.importorskip("transformers")

OWN = [spec for spec in METHODS.values() if str(spec.model).startswith("ambiseg.")]
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
DINO = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56}
ENCODERS = {"transformers:convnext": CONVNEXT, "transformers:dinov2": DINO}


def settings_of(kind):
    return UNetSettings(kind=kind, width=8, max_width=16, encoder=EncoderSettings(options=ENCODERS[kind]))


def images_and_masks(channels=2, size=32):
    g = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, size, size, generator=g)
    masks = (images[:, :1] > torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)).to(torch.uint8)
    return images, MaskSet.uniform(masks, LabelSpace.binary())


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("spec", OWN, ids=[spec.name for spec in OWN])
def test_every_method_learns_and_predicts(spec, kind):
    torch.manual_seed(0)
    case = merged(spec.test.settings, {"samples": 2} if spec.masks == "samples" else {})
    model = build(
        spec.name, 2, LabelSpace.binary(), settings_of(kind), replaced(spec.settings(), case, "settings")
    )
    networks = [part for part in model.modules() if isinstance(part, EncoderBackbone)]
    assert networks and all(network.depth == model.backbone.depth for network in networks)
    images, masks = images_and_masks()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(2):  # the last layers of blocks start at zero
        optimiser.zero_grad()
        model.train().loss(images, masks)["loss"].backward()
        optimiser.step()
    first = [name for name in before if ".encoder.model." in name and "patch_embeddings" in name]
    state = dict(model.named_parameters())
    assert first and any(not torch.equal(state[name], before[name]) for name in first)
    found = prediction_of(model, images).validate()
    assert found.masks.shape[2:] == (32, 32)
    odd = prediction_of(model, images[..., :13, :21]).validate()
    assert odd.masks.shape[2:] == (13, 21)
