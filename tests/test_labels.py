"""Label spaces: logits, probabilities, one-hot form and label map against torch; what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

SPACES = [LabelSpace.binary(), LabelSpace.of_classes(3), LabelSpace.of_classes(5, ignore_value=200)]


def logits(labels: LabelSpace, *space: int) -> torch.Tensor:
    return torch.randn(2, labels.channels, *space, generator=torch.Generator().manual_seed(0))


def masks(labels: LabelSpace, *space: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    value = torch.randint(0, labels.classes, (2, *space), generator=generator).to(torch.uint8)
    return value.masked_fill(torch.rand(2, *space, generator=generator) < 0.2, labels.void)


@pytest.mark.parametrize("labels", SPACES)
@pytest.mark.parametrize("space", [(6,), (3, 4), (2, 3, 4)])
def test_cross_entropy_agrees_with_the_softmax_of_all_classes(
    labels: LabelSpace, space: tuple[int, ...]
) -> None:
    value, target = logits(labels, *space), masks(labels, *space)
    whole = torch.cat([torch.zeros_like(value), value], 1) if labels.is_binary else value
    chosen = whole.log_softmax(1).gather(1, target.long().clamp(max=labels.classes - 1)[:, None])[:, 0]
    wanted = torch.where(target == labels.void, 0.0, -chosen)
    torch.testing.assert_close(labels.cross_entropy(value, target), wanted)


@pytest.mark.parametrize("labels", SPACES)
def test_void_pixels_pass_no_gradient(labels: LabelSpace) -> None:
    value, target = logits(labels, 3, 4).requires_grad_(), masks(labels, 3, 4)
    labels.cross_entropy(value, target).sum().backward()
    assert value.grad is not None
    silent = (value.grad == 0).all(1)
    assert torch.equal(silent, ~labels.valid(target))


@pytest.mark.parametrize("labels", SPACES)
def test_one_hot_agrees_with_torch(labels: LabelSpace) -> None:
    target = masks(labels, 3, 4)
    valid = labels.valid(target)
    wanted = functional.one_hot(target.long().masked_fill(~valid, 0), labels.classes) * valid[..., None]
    wanted = wanted[..., 1:] if labels.is_binary else wanted
    assert torch.equal(labels.one_hot(target, dim=1), wanted.movedim(-1, 1).float())
    nested = labels.one_hot(target[:, None], dim=2, dtype=torch.float64)
    assert nested.dtype == torch.float64 and torch.equal(nested[:, 0].float(), labels.one_hot(target, dim=1))


@pytest.mark.parametrize("labels", SPACES)
def test_decide_is_the_most_probable_class_and_undoes_one_hot(labels: LabelSpace) -> None:
    probabilities = labels.probabilities(logits(labels, 3, 4))
    everything = labels.all_classes(probabilities, dim=1)
    torch.testing.assert_close(everything.sum(1), torch.ones(2, 3, 4))
    decided = labels.decide(probabilities)
    assert decided.dtype == torch.uint8 and torch.equal(decided.long(), everything.argmax(1))
    assert torch.equal(labels.decide(labels.one_hot(decided, dim=1)), decided)
    assert torch.equal(labels.decide(probabilities[:, None], dim=2)[:, 0], decided)


def test_half_is_background() -> None:
    assert LabelSpace.binary().decide(torch.full((1, 1, 1), 0.5)).item() == 0


def test_probabilities_are_of_single_precision() -> None:
    half = logits(LabelSpace.binary(), 3).bfloat16()
    assert LabelSpace.binary().probabilities(half).dtype == torch.float32


@pytest.mark.parametrize("labels", [*SPACES, LabelSpace(("a", "b", "c"), ignore_value=9, background=None)])
def test_dictionary_there_and_back(labels: LabelSpace) -> None:
    assert LabelSpace.from_dict(labels.to_dict()) == labels


def test_properties() -> None:
    five = LabelSpace(("sky", "road", "car"), background=1)
    assert (five.classes, five.channels, five.evaluated, five.void) == (3, 3, (0, 2), 255)
    assert LabelSpace.of_classes(2) == LabelSpace.binary()
    assert LabelSpace.binary(ignore_value=7).void == 7
    assert len(set(LabelSpace.of_classes(24).colors)) == 24


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ("only",)}, "2 to 255"),
        ({"names": tuple(map(str, range(256)))}, "2 to 255"),
        ({"names": ("a", "a")}, "differ"),
        ({"names": ("a", "b"), "ignore_value": 1}, "outside the classes"),
        ({"names": ("a", "b"), "ignore_value": 256}, "outside the classes"),
        ({"names": ("a", "b"), "colors": ((0, 0, 0),)}, "2 colors"),
    ],
)
def test_impossible_spaces_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(AmbisegError, match=message):
        LabelSpace(**settings)  # type: ignore[arg-type]


def test_values_that_are_no_class_are_named() -> None:
    labels = LabelSpace.of_classes(3, ignore_value=255)
    labels.check(torch.tensor([0, 2, 255]), "mask")
    with pytest.raises(AmbisegError, match=r"scan holds the value\(s\) \[-1, 3, 7\]"):
        labels.check(torch.tensor([0, 7, 3, -1, 255]), "scan")


def test_classes_to_evaluate_are_those_that_there_are():
    with pytest.raises(AmbisegError, match="only names classes of 0..1, received .7."):
        LabelSpace(only=(7,))
    space = LabelSpace(("sky", "car", "road"))
    assert space.restricted("car") == space.restricted(["car"])
