"""One training step of the authors' code against the library's: the same network, loss, batch and optimiser, in turns.

    python benchmarks/official_code.py --flow-ssn DIR --probabilistic-unet DIR --mose DIR [--threads N] > RESULT.json

Each DIR is a clone: https://github.com/biomedia-mira/flow-ssn, https://github.com/stefanknegt/Probabilistic-Unet-Pytorch
and https://github.com/gaozhitong/MoSE-AUSeg. Their code is imported and run: clone them yourself, and look at them first.
One left out is not measured.

Both compute in float32 on the CPU, on batches of 4 images of 128x128 with 4 annotations, of which Flow-SSN and
Prob. U-Net see one. A step is loss, backward pass and Adam, in seconds of the processor. Ours is the preset ``lidc``, where
need be with the sizes of that code. ``ratio`` is the time of the authors' step over ours, in the faster of two orders of
memory, which a training chooses by trying (`ambiseg.engine.machine.calibration`). ``bound`` is the time that all products
of a step would take at the rate of one large matrix product on this machine, over the time of our step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ambiseg.engine.machine.allocator import keep_freed_memory, return_freed_memory
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.module import LOSS, TrainingModule
from ambiseg.engine.presets import resolve
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from gpu_parts import blobs
from step import in_turns, product_rate

Step = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """A batch: images ``(B, 1, S, S)`` and label maps ``(B, 4, S, S)``."""

    images: Tensor
    masks: Tensor


@contextmanager
def imports_from(folder: Path) -> Iterator[None]:
    """Import from a clone, and forget its modules afterwards: clones share names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            del sys.modules[name]


def trained(net: nn.Module, loss: Callable[[], Tensor], **options: Any) -> Step:
    """A step of the authors' optimiser."""
    optimiser = torch.optim.Adam(net.parameters(), 1e-4, **options)

    def step() -> None:
        value = loss()
        optimiser.zero_grad()
        torch.autograd.backward(value)
        optimiser.step()

    return step


def their_flow_ssn(clone: Path, task: Task) -> tuple[nn.Module, Step]:
    """As ``scripts/run_continuous_lidc.sh`` builds it."""
    with imports_from(clone):
        network = importlib.import_module("flowssn.nn.unet").UNetModel
        model = importlib.import_module("flowssn.models.continuous.model").ContinuousFlowSSN
    size, common = task.images.shape[-1], {"num_res_blocks": 1, "attention_resolutions": [0], "dropout": 0.1}
    flow = network((2, size, size), 16, 2, channel_mult=[1, 1, 1], num_head_channels=16, **common)
    base = network((1, size, size), 32, 4, channel_mult=[1, 2, 4, 8], num_head_channels=64, **common)
    net = model(flow, base, 2, cond_base=True, base_std=1.0).train()
    batch = {"x": task.images, "y": nn.functional.one_hot(task.masks[:, 0].long(), 2)}
    return net, trained(net, lambda: net(batch)["loss"])


def their_probabilistic_unet(clone: Path, task: Task) -> tuple[nn.Module, Step]:
    """As ``train_model.py`` builds it."""
    with imports_from(clone):
        module = importlib.import_module("probabilistic_unet")
        regularisation = importlib.import_module("utils").l2_regularisation
    net = module.ProbabilisticUnet(1, 1, [32, 64, 128, 192], 2, 4, beta=10.0).train()
    mask = task.masks[:, :1].float()

    def loss() -> Tensor:
        net(task.images, mask, training=True)
        penalty = sum(regularisation(part) for part in (net.posterior, net.prior, net.fcomb.layers))
        found: Tensor = -net.elbo(mask) + 1e-5 * penalty
        return found

    return net, trained(net, loss)


def their_mose(clone: Path, task: Task) -> tuple[nn.Module, Step]:
    """As ``experiments/lidc_proposed.py`` builds it."""
    with imports_from(clone):
        model = importlib.import_module("models.MoSE").MoSE
        loss_of = importlib.import_module("utils.OTloss").OT_loss
    filters = [32, 64, 128, 192, 192, 192, 192]
    net = model(
        1, 2, filters, gating_input_layer=4, loss_fn=loss_of(cost_fn="iou", beta=1, gamma0=0.5)
    ).train()
    shares = torch.full(task.masks.shape[:2], 1 / task.masks.shape[1])
    return net, trained(net, lambda: net(task.images, task.masks, shares)[0].nanmean(), weight_decay=1e-5)


THEIRS = {
    "flow-ssn": their_flow_ssn,
    "probabilistic-unet": their_probabilistic_unet,
    "mose": their_mose,
}
CHANGES: dict[str, dict[str, Any]] = {
    "probabilistic-unet": {
        "backbone": {"depth": 4},
        "settings": {"latent_size": 2, "combine_layers": 4, "beta": 10.0},
    }
}
"""What their code has in place of values of our preset: that of Prob. U-Net is the network of another code."""


def ours(method: str, task: Task, hardware: Hardware) -> tuple[nn.Module, Step]:
    """The preset ``lidc``, trained by the library's own optimiser without its moving average."""
    train = resolve(METHODS[method], "lidc")[0]
    labels = LabelSpace.binary().with_binary_channels(train.binary_channels)
    model = hardware.place(build(method, 1, labels, **CHANGES.get(method, {}), preset="lidc")).train()
    optimiser: Any = TrainingModule(model, train, hardware, LOSS).configure_optimizers()
    images, annotations = hardware.images(task.images), MaskSet.uniform(task.masks, labels)

    def step() -> None:
        value = model.loss(images, annotations)["loss"]
        optimiser.zero_grad()
        torch.autograd.backward(value)
        optimiser.step()

    return model, step


def compared(method: str, clone: Path, task: Task, repeats: int, rate: float) -> dict[str, Any]:
    """Seconds of their step and of ours."""
    torch.manual_seed(0)
    their_net, their_step = THEIRS[method](clone, task)
    orders = {"ours": Hardware("cpu", False, False), "ours, channels last": Hardware("cpu", False, True)}
    built = {name: ours(method, task, hardware) for name, hardware in orders.items()}
    ways = {name: (keep_freed_memory, step) for name, (_, step) in built.items()}  # as in our trainings
    times = in_turns({"theirs": (return_freed_memory, their_step), **ways}, repeats)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    return_freed_memory()
    with FlopCounterMode(display=False) as counter:
        built["ours"][1]()
    fastest = min(seconds[name] for name in orders)
    return {
        "parameters": {
            "theirs": sum(p.numel() for p in their_net.parameters()),
            "ours": sum(p.numel() for p in built["ours"][0].parameters()),
        },
        "seconds": seconds,
        "ratio": seconds["theirs"] / fastest,
        "bound": counter.get_total_flops() / rate / fastest,
    }


def main() -> None:
    """Print the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in THEIRS:
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    task = Task(torch.randn(chosen.batch, 1, chosen.size, chosen.size), blobs(chosen.batch, 4, chosen.size))
    clones = {name: getattr(chosen, name.replace("-", "_")) for name in THEIRS}
    rate = product_rate(1536)
    found = {
        name: compared(name, clone, task, chosen.repeats, rate)
        for name, clone in clones.items()
        if clone is not None
    }
    print(
        json.dumps(
            {"threads": chosen.threads, "batch": chosen.batch, "size": chosen.size, "steps": found}, indent=2
        )
    )


if __name__ == "__main__":
    main()
