"""Which hardware settings make the training steps of one model fastest, by measurement.

A candidate is a `Hardware`. It is *right* where loss and gradient of a step agree with those of float32 in the usual
memory order, from the same weights, images and seed:

    |L - L'| <= a |L'| + |L' - L''|,    ||g - g'|| <= b ||g'|| + ||g' - g''||.

L' and g' are those of float32 and L'', g'' the same with another seed, since another memory order draws the noise of
a method in another order; without noise the second terms are 0. `BOUNDS` holds a and b. In float32 channels last
2e-7 and 1e-5 are usual, in bfloat16 0.01. But any rounding may match a proposal with another mask, where two are as
good: in float32 up to 0.0015 and 0.006 were seen, in bfloat16 up to 0.16 and 0.65. So the bounds are wide; they find
kernels that are wrong. A gradient that is 0 differs by 1, an unrelated one by 1.4.

Steps of all right candidates are timed in turns, so that what else the machine does slows all alike. The first
step of each, which sets up kernels and memory, does not count. What is not the default must be faster by `MARGIN`
in the median over the turns.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ambiseg.data.batches import Batch
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.methods.base import Segmenter
from ambiseg.methods.contract import losses_of

BOUNDS = {"32": (0.05, 0.6), "tf32": (0.1, 0.7), "bf16": (0.3, 0.95)}
"""Largest differences of loss and gradient, as shares, by number format."""
MARGIN = 0.05
"""Share of the time of a step by which a candidate must beat the default."""
THREADS_MARGIN = 0.2
"""The same with another number of threads, which depends more on the number of images and on other programs."""
TURNS, FEWEST_TURNS = 9, 3
"""Most turns of timing; with fewer than the least, the default is kept."""
HOPELESS = 1.5
"""What took so many times as long as the fastest, at its best, is not timed again."""
STALLED = 3
"""A number of threads with which the first steps take so many times as long is not tried: other programs use the
cores."""
SIDE = 64
"""On a CPU steps take the middle of larger images, at most so many pixels high and wide: they fit into the time."""
PROBE = 2
"""Images of the first steps, which tell how many images fit into the time."""


@dataclass(frozen=True)
class Timing:
    """One candidate.

    Attributes:
        name: in words.
        step_ms: median time of a step in milliseconds; 0 where it was not timed.
        speed: how many times as fast as the default; the median over turns.
        problem: why it was left out.
    """

    name: str
    step_ms: float = 0.0
    speed: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        best: the choice.
        images: of each step; 0 where a step took too long for a comparison.
        size: height and width of what was taken of each image.
        images_per_second: of the choice, whole images.
        seconds: that it took.
        timings: of all candidates, the default first.
    """

    best: Hardware
    images: int
    size: tuple[int, int]
    images_per_second: float
    seconds: float
    timings: tuple[Timing, ...]


class _Clock:
    """Seconds since it was made, on a device whose work is waited for."""

    def __init__(self, device: str) -> None:
        self.waits, self.began = device == "cuda", time.perf_counter()

    def __call__(self) -> float:
        if self.waits:
            torch.cuda.synchronize()
        return time.perf_counter() - self.began


@dataclass
class _Trial:
    """A candidate with a model and a batch in its memory order, and the seconds of its steps."""

    hardware: Hardware
    model: Segmenter
    batch: Batch
    problem: str = ""
    times: list[float] = field(default_factory=list)
    speed: float = 0.0

    @property
    def timing(self) -> Timing:
        """What is said of it."""
        took = 1000 * statistics.median(self.times) if self.times else 0.0
        return Timing(self.hardware.name, round(took, 2), round(self.speed, 3), self.problem)

    def step(self, clock: _Clock, seed: int = 0) -> tuple[float, Tensor]:
        """Forward and backward pass; its seconds and its loss."""
        torch.manual_seed(seed)
        self.model.zero_grad(set_to_none=True)
        with self.hardware.computing():
            began = clock()
            with self.hardware.autocast():
                loss = losses_of(self.model, self.batch.images, self.batch.annotations)["loss"]
            torch.autograd.backward(loss)
            return clock() - began, loss.detach()

    def gradient(self) -> list[Tensor]:
        """That of the last step."""
        weights = (weight for weight in self.model.parameters() if weight.requires_grad)
        return [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights]

    def margin(self, first: _Trial) -> float:
        """By how much it must be faster than the default."""
        return MARGIN if self.hardware.threads == first.hardware.threads else THREADS_MARGIN

    def on(self, batch: Batch, images: int) -> _Trial:
        """The same with the first images of a batch."""
        few = Batch(batch.images[:images], batch.annotations[:images], batch.ids[:images])
        moved = few.to(self.hardware.device)
        return replace(self, batch=replace(moved, images=self.hardware.images(moved.images)), times=[])


def calibrate(
    model: Segmenter, batch: Batch, candidates: Sequence[Hardware], seconds: float = 3.0
) -> Calibration:
    """Time training steps of a batch, or of as many of its images as fit into the time.

    Copies of the model are trained; random numbers and the threads of the process stay as they are.

    Args:
        model: what is trained.
        batch: images and annotations.
        candidates: the default first, then the likeliest ones.
        seconds: for all of it; a step that has begun is ended.

    Raises:
        Exception: what the model raises in float32.
    """
    cpu, pixels = candidates[0].device == "cpu", batch.images[0, 0].numel()
    batch = _cropped(batch) if cpu else batch
    size = (batch.images.shape[2], batch.images.shape[3])
    plain = replace(candidates[0], bf16=False, tf32=False, channels_last=False)
    clock = _Clock(plain.device)
    with torch.random.fork_rng(devices=[] if cpu else [torch.cuda.current_device()]):
        model = plain.place(copy.deepcopy(model).train())
        reference = _Trial(plain, model, batch).on(batch, PROBE)
        probes = _probe(reference, [candidate.threads for candidate in candidates], clock, seconds / 3)
        each = min(probes.values()) / len(reference.batch.ids)
        tried, stalled = _split(candidates, probes)
        left = seconds - clock()
        count = min(len(batch.ids), max(PROBE, int(left / (_steps(len(tried)) * each))))
        trials, best = [], tried[0]
        took = count * each
        if len(tried) == 1 or _steps(2) * took <= left:
            reference = replace(reference, hardware=replace(plain, threads=best.threads)).on(batch, count)
            trials = _trials(tried, reference, batch)
            _check(trials, reference, clock, (clock() + seconds) / 2)
            fastest = _fastest(trials, clock, seconds)
            best, took = fastest.hardware, statistics.median(fastest.times)
    rate = count / took * size[0] * size[1] / pixels
    timings = [trial.timing for trial in trials]
    timings += [
        Timing(one.name, problem=f"over {STALLED} times slower than another number of threads")
        for one in stalled
    ]
    return Calibration(best, count * bool(trials), size, round(rate, 2), round(clock(), 2), tuple(timings))


def _probe(
    reference: _Trial, numbers: Sequence[int | None], clock: _Clock, until: float
) -> dict[int | None, float]:
    """Seconds of a step with each number of threads, the last one first; a slow step is repeated if there is time."""
    found: dict[int | None, float] = {}
    for number in reversed(dict.fromkeys(numbers)):
        trial = replace(reference, hardware=replace(reference.hardware, threads=number))
        if not found:
            trial.step(clock)
        found[number], _ = trial.step(clock)
        if found[number] > STALLED * min(found.values()) and clock() < until:
            found[number] = min(found[number], trial.step(clock)[0])
    return found


def _split(
    candidates: Sequence[Hardware], probes: Mapping[int | None, float]
) -> tuple[list[Hardware], list[Hardware]]:
    """Those to try, and those whose number of threads makes a step take far longer than another number."""
    least = min(probes.values())
    slow = {number for number, took in probes.items() if took > STALLED * least}
    return [c for c in candidates if c.threads not in slow], [c for c in candidates if c.threads in slow]


def _cropped(batch: Batch) -> Batch:
    """The middle of the images."""
    tops = [max(0, (length - SIDE) // 2) for length in batch.images.shape[2:]]
    rows, columns = (slice(top, top + SIDE) for top in tops)
    masks = batch.annotations.masks[..., rows, columns]
    return replace(
        batch,
        images=batch.images[..., rows, columns].contiguous(),
        annotations=replace(batch.annotations, masks=masks.contiguous()),
    )


def _steps(candidates: int) -> int:
    """Steps that so many candidates take: two of the reference, the first one of each, and its turns."""
    return 2 + (1 + FEWEST_TURNS) * candidates


def _trials(candidates: Sequence[Hardware], plain: _Trial, batch: Batch) -> list[_Trial]:
    """One for each candidate; those of one memory order share their model."""
    count, found = len(plain.batch.ids), {False: plain}
    for order in {candidate.channels_last for candidate in candidates} - {False}:
        model = copy.deepcopy(plain.model)
        model.zero_grad(set_to_none=True)
        placed = replace(plain.hardware, channels_last=order)
        found[order] = _Trial(placed, placed.place(model), batch).on(batch, count)
    return [replace(found[one.channels_last], hardware=one, times=[]) for one in candidates]


def _check(trials: Sequence[_Trial], plain: _Trial, clock: _Clock, until: float) -> None:
    """Leave out what is wrong, what fails, and what there is no time for."""
    expected = (plain.step(clock)[1], plain.gradient())
    noise = _differences((plain.step(clock, seed=1)[1], plain.gradient()), expected)
    for index, trial in enumerate(trials):
        if index and clock() > until:
            trial.problem = "no time"
            continue
        try:
            found = (trial.step(clock)[1], trial.gradient())
        except Exception as error:  # of a model of somebody else, or a format that an operation lacks
            trial.problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        pairs = zip(_differences(found, expected), BOUNDS[trial.hardware.precision], noise, strict=True)
        for what, (off, bound, spread) in zip(("loss", "gradient"), pairs, strict=True):
            if not off <= bound + spread:
                trial.problem = f"{what} differs by {100 * off:.2g} % from that in float32"
                break


def _differences(found: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]]) -> list[float]:
    """Of loss and gradient, as shares of the expected ones."""
    (loss, gradient), (loss0, gradient0) = found, expected
    off = sum(float((a - b).double().square().sum()) for a, b in zip(gradient, gradient0, strict=True))
    length = sum(float(b.double().square().sum()) for b in gradient0)
    least = 1e-12
    return [
        float((loss - loss0).abs() / loss0.abs().clamp(min=least)),
        math.sqrt(off / max(length, least**2)),
    ]


def _fastest(trials: Sequence[_Trial], clock: _Clock, until: float) -> _Trial:
    """Time the right ones in turns; the first of them, or what is clearly faster."""
    right = [trial for trial in trials if not trial.problem] or list(trials[:1])
    first, turn = right[0], 0.0
    while len(first.times) < TURNS and not (first.times and clock() + turn > until):
        began = clock()
        for trial in right:
            trial.times.append(trial.step(clock)[0])
        turn = clock() - began
        least = min(min(trial.times) for trial in right)
        right = [trial for trial in right if trial is first or min(trial.times) < HOPELESS * least]
    for trial in trials:
        if trial.times:
            pairs = zip(first.times, trial.times, strict=False)
            trial.speed = statistics.median(before / now for before, now in pairs)
    enough = len(first.times) >= FEWEST_TURNS
    clear = [trial for trial in right if enough and trial.speed >= 1 + trial.margin(first)]
    return max(clear, key=lambda trial: trial.speed, default=first)
