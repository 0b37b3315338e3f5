"""``ambiseg predict``: images or volumes in, a folder of masks with probabilities and a picture for each of them out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import command, next_commands, progress, say, show, show_json, warn
from ambiseg.cli.engines import Spreading
from ambiseg.cli.parsing import Proposing, Shown, parse
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.postprocess import PredictSettings
    from ambiseg.engine.predict import FileResult
    from ambiseg.engine.run import Run
    from ambiseg.maskset import MaskSet


@dataclass(frozen=True)
class PredictArguments:
    """Predict masks with probabilities of images or volumes."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote."""
    images: Positional[tuple[Path, ...]]
    """Images, or folders of images; or volumes (NIfTI, NRRD, a folder with a DICOM series), or folders of volumes."""
    out: Path
    """Folder to write to, one folder in it per image."""
    axis: Literal["run", "axial", "coronal", "sagittal", "0", "1", "2"] = "run"
    """Axis of the slices of volumes: that of the training, the planes as the affine of a volume says, or an axis of the
    array."""
    annotator: str | None = None
    """Masks in the style of this annotator only, of a run that tells annotators apart (c-ssn, c-probabilistic-unet)."""
    pixel_probabilities: bool = False
    """Also write probabilities of every pixel (probabilities.npz); of volumes their expectation (probability.nii.gz)."""
    picture: Annotated[bool, Shown] = True
    """Do not draw pictures (picture.png)."""
    overlays: bool = False
    """Also draw each mask on its image at full size (overlay-01.jpg ...), for photographs; not of volumes."""
    resume: bool = False
    """Keep the predictions that are there and go on with the rest."""
    overwrite: bool = False
    """Remove earlier predictions from the folder first."""
    json: bool = False
    """Print the outcome as JSON."""
    proposing: OmitArgPrefixes[Proposing] = field(default_factory=Proposing)
    spreading: OmitArgPrefixes[Spreading] = field(default_factory=Spreading)


def run(args: list[str]) -> int:
    """Predict; exit status 2 if an image could not be read."""
    arguments = parse(PredictArguments, args, "ambiseg predict")
    arguments.proposing.check()
    if not arguments.images:
        raise AmbisegError("no image to predict: name images or a folder of them, after the run")
    from ambiseg.engine.postprocess import flow_remark
    from ambiseg.engine.predict import find_images
    from ambiseg.engine.predict_volumes import find_volumes
    from ambiseg.engine.run import load
    from ambiseg.predictions.index import PAGE

    model = load(arguments.run)
    volumes = find_volumes(arguments.images)
    paths = volumes or find_images(arguments.images)
    settings, flow = settings_of(arguments.proposing, model)
    settings = replace(settings, annotator=arguments.annotator)
    warn(flow_remark(model, flow))
    options: dict[str, Any] = {
        "flow": flow,
        "picture": arguments.picture,
        "lines": not arguments.json,
        "pixel_probabilities": arguments.pixel_probabilities,
        "batch_size": arguments.proposing.batch_size,
        "seed": arguments.proposing.seed,
        "overwrite": arguments.overwrite,
        "resume": arguments.resume,
    }
    try:
        results = _predicted(arguments, model, paths, settings, bool(volumes), options)
    except KeyboardInterrupt:
        words = [word for word in args if word not in ("--overwrite", "--resume")]
        again = command("ambiseg", "predict", *words, "--resume")
        raise KeyboardInterrupt(f"'{again}' goes on where this stopped") from None
    kind = "volume" if volumes else "image"
    failed = [result for result in results if result.error]
    if arguments.json:
        show_json(
            {"run": arguments.run, "out": arguments.out, f"{kind}s": [asdict(result) for result in results]}
        )
    else:
        kept = sum(result.kept for result in results)
        before = f", {kept} of them earlier" if kept else ""
        show(f"{len(results) - len(failed)} of {len(results)} {kind}s predicted into {arguments.out}{before}")
        if arguments.picture or arguments.overlays:
            show(f"page: {arguments.out / PAGE}")
    count = sum(not result.determined for result in results)
    warn(undetermined(count, len(results) - len(failed), arguments.proposing, kind))
    for result in failed:
        say(f"ambiseg: error: {result.error}")
    if not arguments.json and not failed:
        first = results[0].folder
        contents = "its masks, prediction.json" + (", picture.png" if arguments.picture else "")
        browse = (command("ambiseg", "view", arguments.out), "all of them in a browser")
        next_commands((command("ls", first), contents), browse)
    return 2 if failed else 0


def _predicted(
    arguments: PredictArguments,
    model: Run,
    paths: Sequence[Path],
    settings: PredictSettings,
    volumes: bool,
    options: dict[str, Any],
) -> list[FileResult]:
    """What became of each image or volume.

    Raises:
        AmbisegError: options of the other kind.
    """
    if volumes:
        if arguments.overlays:
            raise AmbisegError("--overlays draws on images, and these are volumes: leave it out")
        if arguments.spreading.engine != "local":
            raise AmbisegError("--engine ray predicts images, and these are volumes: leave it out")
        return predict_all_volumes(model, paths, arguments.out, settings, arguments.axis, **options)
    if arguments.axis != "run":
        raise AmbisegError(f"--axis {arguments.axis} is for volumes, and these are images: leave it out")
    options["overlays"] = arguments.overlays
    with arguments.spreading.opened() as engine:
        return predict(model, paths, arguments.out, settings, engine=engine, **options)


def settings_of(proposing: Proposing, model: Run) -> tuple[PredictSettings, Run | None]:
    """The library's settings for these options, for a run, and the flow run that they name.

    Raises:
        AmbisegError: the flow run, or the number of flips, does not fit the run.
    """
    from ambiseg.engine.postprocess import EstimateSettings, check_estimate
    from ambiseg.engine.run import load

    flow = None if proposing.flow is None else load(proposing.flow)
    estimate = EstimateSettings(proposing.probabilities, proposing.draws, proposing.flips, proposing.robust)
    check_estimate(estimate, model, flow)
    settings = replace(proposing.settings(), estimate=estimate)
    return settings, flow


def undetermined(count: int, images: int, proposing: Proposing, kind: str = "image") -> str:
    """What to say of ``count`` images (or volumes) whose probabilities are one choice of several; nothing where flips make
    the choice.

    Example:
        >>> undetermined(0, 5, Proposing(probabilities="velocity")), undetermined(5, 5, Proposing(flips=4))
        ('', '')
        >>> undetermined(2, 5, Proposing(probabilities="posterior"))  # doctest: +ELLIPSIS
        'the flow model does not determine the probabilities of 2 of 5 images, ...: remove near-duplicates (a lower...'
    """
    if not count or proposing.flips:
        return ""
    ways = ["remove near-duplicates (a lower --duplicate-iou, no --all)"]
    if proposing.probabilities != "posterior":
        ways += ["ask for --probabilities posterior", "for --flips N where areas go on and off independently"]
    return (
        f"the flow model does not determine the probabilities of {count} of {images} {kind}s, the most even ones were taken:"
        f" {', or '.join(ways)}"
    )


def predict(
    model: Run,
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings,
    *,
    picture: bool = True,
    overlays: bool = False,
    lines: bool = True,
    **options: Any,
) -> list[FileResult]:
    """Predict files with `progress`, then write the page about all predictions in ``out`` if it has pictures.

    ``options`` are those of `predict_files`.
    """
    from ambiseg.engine.predict import predict_files
    from ambiseg.predictions.index import PAGE
    from ambiseg.report.files import DRAWING, check_page, pixels_of, png_of
    from ambiseg.report.overlays import draw_overlays
    from ambiseg.report.pictures import draw_prediction
    from ambiseg.report.prediction_page import write_prediction_page

    channels = model.config.channels

    def draw(image: Any, prediction: MaskSet, partial: Path) -> None:
        with DRAWING:
            pixels = pixels_of(draw_prediction(image, prediction, channels))
        partial.write_bytes(png_of(pixels))

    def draw_each(image: Any, prediction: MaskSet, partials: list[Path]) -> None:
        draw_overlays(image, prediction, partials, channels)

    check_page(out / PAGE)
    options |= {"picture": draw if picture else None, "overlays": draw_each if overlays else None}
    results = []
    found = predict_files(model, paths, out, settings, **options)
    with progress("predicting", lines) as update, closing(found):
        for result in found:
            results.append(result)
            update(len(results), len(paths))
    if picture or overlays or (out / PAGE).exists():
        write_prediction_page(out)
    return results


def predict_all_volumes(
    model: Run,
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings,
    axis: str = "run",
    *,
    picture: bool = True,
    lines: bool = True,
    **options: Any,
) -> list[FileResult]:
    """Predict volumes with `progress`, then write the page about all predictions in ``out`` if it has pictures.

    ``options`` are those of `predict_volumes`.
    """
    from ambiseg.engine.predict_volumes import predict_volumes
    from ambiseg.engine.volumes import slice_settings
    from ambiseg.predictions.index import PAGE
    from ambiseg.report.files import check_page, png_bytes
    from ambiseg.report.prediction_page import write_prediction_page
    from ambiseg.report.volume_pictures import draw_slices

    def draw(slices: Any, partial: Path) -> None:
        partial.write_bytes(png_bytes(draw_slices(slices, model.config.channels)))

    check_page(out / PAGE)
    slices = slice_settings(model)
    if axis != "run":
        slices = replace(slices, axis=int(axis) if axis.isdigit() else axis)
    results = []
    with progress("predicting slices", lines) as update:
        options |= {"slices": slices, "picture": draw if picture else None, "progress": update}
        for result in predict_volumes(model, paths, out, settings, **options):
            results.append(result)
    if picture or (out / PAGE).exists():
        write_prediction_page(out)
    return results
