"""``ambiseg export``: a run as one file, for other programs (ONNX, PyTorch) or to hand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import command, next_commands, say, show, show_json
from ambiseg.cli.parsing import Filtering, parse
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.run import Run

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "package": ".ambiseg"}
"""Formats, and what the names of their files end in."""
TRIALS = ((1, 64, 64), (2, 49, 70))
"""Batch, height and width of the random images on which an exported file is compared with the run."""


@dataclass(frozen=True)
class ExportArguments:
    """Write a run as one file: a graph that other programs run (onnx, torch), or a package for ambiseg.load.

    A graph takes images (batch, channels, height, width) with the values of training and gives masks, weights and
    scores; normalisation and filters are inside. Methods that sample take their noise as further inputs."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote."""
    format: Literal["onnx", "torch", "package"] | None = None
    """The format; by the name of --out if left out, else onnx."""
    out: Path | None = None
    """The file; model.onnx, model.pt2 or model.ambiseg in the run folder if left out."""
    license: str = ""
    """Licence of the weights, written into the file, such as 'CC BY 4.0'."""
    check: bool = True
    """Compare the graph with the run on random images."""
    overwrite: bool = False
    """Replace an earlier export."""
    json: bool = False
    """Print the outcome as JSON."""
    filtering: OmitArgPrefixes[Filtering] = field(default_factory=Filtering)


def run(args: list[str]) -> int:
    """Export, compare and print."""
    arguments = parse(ExportArguments, args, "ambiseg export")
    arguments.filtering.check()
    kind = _format(arguments)
    out = arguments.out or _default(arguments.run, SUFFIXES[kind])
    if kind == "package" and arguments.filtering != Filtering():
        raise AmbisegError(
            "a package keeps the filter of its run: leave the options of filters and samples out"
        )
    if out.exists() and not arguments.overwrite:
        raise AmbisegError(f"{out} exists: give another --out, or --overwrite to replace it")
    from ambiseg.engine.run import load

    model = load(arguments.run, precision="32", device="cpu")
    if kind == "package":
        from ambiseg.engine.package import write_package

        write_package(model, out, arguments.license, arguments.overwrite)
        outcome: dict[str, Any] = {}
        lines: list[str] = []
    else:
        outcome, lines = _graph(arguments, model, kind, out)
    if arguments.json:
        show_json({"run": arguments.run, "out": out, "format": kind, "bytes": out.stat().st_size, **outcome})
        return 0
    show(f"written: {out} ({out.stat().st_size / 2**20:.1f} MiB)")
    for line in lines:
        show(line)
    if kind == "package":
        next_commands(
            (f"{command('ambiseg', 'predict', out)} IMAGE... --out DIR", "the file in place of the run")
        )
    return 0


def _default(run: Path, suffix: str) -> Path:
    """Where an export lies that no --out names: in the run folder, or beside the package that is exported."""
    return run.with_suffix(suffix) if run.is_file() else run / f"model{suffix}"


def _format(arguments: ExportArguments) -> Literal["onnx", "torch", "package"]:
    """The format that is asked for, by its name or by that of the file.

    Raises:
        AmbisegError: neither says it.
    """
    if arguments.format is not None:
        return arguments.format
    if arguments.out is None:
        return "onnx"
    for name, suffix in SUFFIXES.items():
        if arguments.out.suffix == suffix:
            return name  # type: ignore[return-value]
    raise AmbisegError(
        f"--out {arguments.out} does not end in {', '.join(SUFFIXES.values())}: name the file so, or give --format"
    )


def _graph(
    arguments: ExportArguments, model: Run, kind: Literal["onnx", "torch"], out: Path
) -> tuple[dict[str, Any], list[str]]:
    """Write the graph and compare it with the run; what it takes and gives, as values and in words."""
    import torch

    from ambiseg.exporting.files import described, differences, export, inference

    if not arguments.json:
        say("tracing the model, which takes up to some minutes")
    deployed = export(
        model, out, kind, arguments.filtering.settings(), arguments.license, arguments.overwrite
    )
    facts = described(deployed, model, arguments.license)
    axes = [f"{name} ({', '.join(map(str, shape))})" for name, shape in facts["inputs"].items()]
    lines = [
        f"takes: {', '.join(axes)}",
        f"gives: {', '.join(deployed.outputs)} of {deployed.masks} masks; {facts['kept']}",
    ]
    outcome = dict(facts)
    if arguments.check:
        exported, generator = inference(out, kind), torch.Generator().manual_seed(0)
        found = [differences(deployed, exported, *deployed.example(*size, generator)) for size in TRIALS]
        outcome |= {"pixels": max(share for share, _ in found), "weights": max(weight for _, weight in found)}
        lines.append(
            f"compared with the run on random images: {outcome['pixels']:.4%} of the pixels differ,"
            f" weights by {outcome['weights']:.1g} at most"
        )
    return outcome, lines
