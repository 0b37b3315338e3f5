"""U-Net ensemble: members know nothing of each other, and each gives one mask."""

from __future__ import annotations

import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.unet_ensemble import UNetEnsembleSettings
from ambiseg.methods.unet_ensemble.model import UNetEnsemble
from ambiseg.networks.settings import UNetSettings

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)


def make(labels=BINARY, members=3, kind="unet"):
    torch.manual_seed(0)
    backbone = UNetSettings(width=8, depth=2, kind=kind)
    return UNetEnsemble(3, labels, backbone, UNetEnsembleSettings(members=members))


def masks_of(labels, count=2, sets=1):
    values = torch.randint(0, labels.classes, (count, sets, 8, 8), generator=torch.Generator().manual_seed(1))
    return MaskSet.uniform(values.to(torch.uint8), labels)


def gradients(model, member):
    return [p.grad.clone() for p in model.members[member].parameters() if p.grad is not None]


def test_members_start_differently():
    first, *others = (dict(m.named_parameters()) for m in make().members)
    for other in others:
        assert not torch.equal(first["g.stem.weight"], other["g.stem.weight"])
        assert not torch.equal(first["h.weight"], other["h.weight"])


def test_a_members_gradient_does_not_depend_on_the_others():
    model, images, annotations = make(), torch.randn(2, 3, 8, 8), masks_of(BINARY)
    model.loss(images, annotations)["loss"].backward()
    before = gradients(model, 0)
    model.zero_grad()
    for member in list(model.members)[1:]:
        for parameter in member.parameters():
            torch.nn.init.normal_(parameter)
    model.loss(images, annotations)["loss"].backward()
    after = gradients(model, 0)
    assert before and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_the_loss_of_one_annotation_is_the_mean_over_members(labels):
    model, images, annotations = make(labels), torch.randn(2, 3, 8, 8), masks_of(labels)
    y = annotations.masks[:, 0]
    each = [cross_entropy(member(images), y, labels).mean() / 64 for member in model.members]
    torch.testing.assert_close(model.loss(images, annotations)["loss"], torch.stack(each).mean())


def test_every_member_draws_an_annotation_of_its_own():
    """Of an empty and a full mask, 40 members with the same weights see about half each: their losses
    differ."""
    model = make(members=40)
    for member in model.members:
        member.load_state_dict(model.members[0].state_dict())
        member.h.bias.data.fill_(2.0)
    pair = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)], 1).to(torch.uint8)
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        empty, full = (
            float(model.members[0].loss(images, MaskSet.uniform(pair[:, k : k + 1], BINARY))["loss"])
            for k in (0, 1)
        )
        share = (float(model.loss(images, MaskSet.uniform(pair, BINARY))["loss"]) - full) / (empty - full)
    assert share * 40 == pytest.approx(round(share * 40), abs=1e-3) and 0.25 < share < 0.75


@pytest.mark.parametrize("asked, given", [(None, 3), (1, 1), (2, 2), (40, 3)])
def test_masks_are_those_of_the_first_members(asked, given):
    model, images = make().eval(), torch.randn(2, 3, 9, 7)
    found = model.predict(images, asked)
    assert found.masks.shape == (2, given, 9, 7) and found.weights.allclose(torch.tensor(1 / given))
    for k, member in enumerate(list(model.members)[:given]):
        assert torch.equal(found.probabilities[:, k], member(images).sigmoid())


def test_images_of_a_batch_do_not_see_each_other():
    model, images = make().eval(), torch.randn(3, 3, 8, 8)
    alone = torch.cat([model.predict(image[None]).probabilities for image in images])
    torch.testing.assert_close(alone, model.predict(images).probabilities)


def test_one_member_is_the_plain_unet():
    model, images = make(members=1).eval(), torch.randn(1, 3, 8, 8)
    torch.manual_seed(0)
    other = make(members=1).eval()
    assert torch.equal(model.predict(images).probabilities, other.predict(images).probabilities)
    assert model.predict(images, 16).weights.tolist() == [[1.0]]


@pytest.mark.parametrize("kind", ["unet", "ncsnpp"])
def test_freezing_reaches_every_member(kind):
    model = make(kind=kind)
    model.freeze("nothing")
    assert all(p.requires_grad for p in model.parameters())
    model.freeze("encoder")
    for member in model.members:
        assert not any(p.requires_grad for part in member.g.encoder_parts() for p in part.parameters())
        assert all(p.requires_grad for p in member.g.decoder.parameters())
    model.freeze("all-but-last")
    assert all(p.requires_grad == (".h." in name) for name, p in model.named_parameters())


def test_no_member_is_refused():
    with pytest.raises(AmbisegError, match="received 0"):
        make(members=0)
