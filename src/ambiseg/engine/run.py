"""`Run`: a trained model with all it needs to predict; `load` reads one from a run folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambiseg import notebook
from ambiseg.data.batches import annotations_of
from ambiseg.data.files.reading import read_image
from ambiseg.data.files.validation import canonical_image
from ambiseg.data.memory.values import array_of
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.data.volumes.cases import single_image_problem
from ambiseg.data.volumes.volume import is_volume
from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.engine.fitted_filter import FittedFilter
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.machine.memory import refusing_too_much
from ambiseg.engine.mixture import MIXTURE, MixtureConfig, MixtureFit, MixtureModel
from ambiseg.engine.package import unpacked
from ambiseg.engine.postprocess import Image, LoadedModel, Postprocessed, PredictSettings, postprocess
from ambiseg.engine.run_folder import TRAINING, RunConfig, digest_of_tensors, load_weights
from ambiseg.engine.smoke import NOTE
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.escaping import visible
from ambiseg.json_files import read_mapping
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import CPU_ELEMENTS, network_parts, part_sizes, prediction_bytes
from ambiseg.methods import method_info
from ambiseg.methods.base import Segmenter
from ambiseg.methods.contract import masks_of
from ambiseg.metrics.registry import METRICS
from ambiseg.networks.unet import extended

MIXTURE_METHOD = "mixture"
"""Name of the method of a mixture, which is none that can be trained."""


class Run:
    """A trained model with all it needs to predict: what `load` returns.

    Attributes:
        config: what the run was made of.
        model: the segmenter, in evaluation mode.
        hardware: device and number format.
        folder: where it was loaded from, if it was.
        seconds: time spent in the model since loading; with `images`, the time per image.
        images: images predicted since loading.

    Example:
        >>> run = load("runs/fires")                                                        # doctest: +SKIP
        >>> proposals = run.predict("scene.npy")                                            # doctest: +SKIP
        >>> proposals.masks.shape, proposals.weights                                        # doctest: +SKIP
    """

    def __init__(
        self, config: RunConfig, model: Segmenter, hardware: Hardware, folder: Path | None = None
    ) -> None:
        self.config, self.hardware, self.folder = config, hardware, folder
        self.model = model.eval()
        hardware.place(model)
        self.seconds, self.images = 0.0, 0

    def _facts(self) -> dict[str, str]:
        """What a notebook shows: method, data, masks, the metric that chose the weights, and what is kept."""
        config, names = self.config, self.config.labels.names
        facts = {"method": config.method, "preset": config.preset, "data": config.data}
        facts["classes"] = ", ".join(names) if len(names) <= 20 else str(len(names))
        facts["image channels"] = ", ".join(config.channels) or str(config.in_channels)
        if config.method != MIXTURE_METHOD:
            facts["masks per image"] = str(getattr(config.settings, method_info(config.method).masks))
        training = {} if self.folder is None else read_mapping(self.folder / TRAINING)
        metric, value = training.get("metric"), training.get("best", training.get("last"))
        if isinstance(metric, str) and isinstance(value, float):
            title = METRICS[metric].title if metric in METRICS else metric.replace("_", " ")
            facts["validation"] = f"{title} {value:.4f}"
        with suppress(AmbisegError):  # a damaged file of the filter is named where it is used
            facts["kept"] = "" if self.fitted is None else self.fitted.message
        facts["parameters"] = f"{sum(p.numel() for p in self.model.parameters()):,}"
        facts["device"], facts["folder"] = self.hardware.device, str(self.folder or "")
        facts["note"] = NOTE if config.smoke else ""
        return {name: value for name, value in facts.items() if value}

    def __repr__(self) -> str:
        """One line: method, data, validation, folder and device."""
        facts = self._facts()
        names = [name for name in ("data", "validation", "folder", "device") if name in facts]
        return f"<Run: {visible(', '.join([facts['method'], *(f'{name} {facts[name]}' for name in names)]))}>"

    def _repr_html_(self) -> str:
        return notebook.table((), list(self._facts().items()))

    @cached_property
    def fitted(self) -> FittedFilter | None:
        """The filter in the run folder; None where there is none.

        Raises:
            AmbisegError: its file is damaged.
        """
        return None if self.folder is None else FittedFilter.load(self.folder)

    def predict(
        self,
        image: str | Path | Image | Any,
        settings: PredictSettings | None = None,
        generator: torch.Generator | None = None,
        flow: LoadedModel | None = None,
    ) -> MaskSet:
        """Masks with probabilities of one image, sorted by probability.

        Args:
            image: a path, or an array of numpy or torch ``(C, H, W)``, ``(H, W)`` or, where the number of channels
                tells, ``(H, W, C)``, with values like those of training, not normalised; also a picture of Pillow
                or an image of TorchIO with one slice.
            settings: filters, probabilities and number of samples.
            generator: randomness of sampling methods and flow models.
            flow: a run of flow-matching, where ``settings.estimate`` needs one.

        Returns:
            A `MaskSet` of one image, on the CPU.

        Raises:
            AmbisegError: an unreadable file, a volume (`ambiseg.predict_volume`), an array that is no image (NaN,
                complex, empty, four axes), another number of channels, or values of another scale than the training
                images.
        """
        if isinstance(image, (str, Path)) and is_volume(image):
            raise AmbisegError(
                f"{image} is a volume: predict it with ambiseg.predict_volume(run, {str(image)!r})"
            )
        array = read_image(image) if isinstance(image, (str, Path)) else self._image(image)
        remark = self.difference(array)
        if remark:
            warnings.warn(remark, DataWarning, stacklevel=2)
        return self.predict_batch([array], settings, generator, flow).masks

    def _image(self, image: Any) -> Image:
        """An array as ``(C, H, W)``, under the same rules as a file."""
        channels, array = self.config.in_channels, array_of(image, "the image", "image")
        if array.ndim == 2:
            array = array[None]
        elif array.ndim == 3 and array.shape[0] != channels == array.shape[2]:
            array = np.moveaxis(array, 2, 0)
        return canonical_image(array, "the image")

    def difference(self, image: Image) -> str:
        """What to warn of where an image ``(C, H, W)`` has other numbers than those of training; empty if nothing.

        Raises:
            AmbisegError: another number of channels, or numbers of another scale.
        """
        slices, channels = self.config.slices, len(image)
        if slices is not None and slices.neighbours and channels != self.config.in_channels:
            raise single_image_problem(slices, channels)
        self.config.normalization.check(image)
        remark = "" if self.config.images is None else self.config.images.difference(image)
        self.config.normalization.check_values(image)
        return remark

    def check_data(self, split: Split) -> None:
        """Raise `AmbisegError` where a split has other classes or channels than the training images; warn of slices that lie
        otherwise."""
        ours, theirs = self.config.labels.names, split.info.labels.names
        if theirs != ours:
            raise AmbisegError(
                f"the data have the classes {list(theirs)}, the run {list(ours)}: give data of the same classes"
            )
        mine, other = ((0 if s is None else s.neighbours) for s in (self.config.slices, split.info.slices))
        if mine != other:
            raise AmbisegError(
                f"the data are read with {other} neighbours of each slice, the run was trained with {mine}:"
                f" write 'neighbours: {mine}' under 'slices' in dataset.yaml"
            )
        cut, trained = split.info.slices, self.config.slices
        others = [one for one in sorted(split.stored.directions) if not self.knows(one)]
        if cut is not None and trained is not None and cut.axis != trained.axis:
            remark = f"the data are cut into slices along the axis {cut.axis}, those of training along {trained.axis}"
            warnings.warn(f"{remark}: predictions may mean nothing", DataWarning, stacklevel=3)
        elif others:
            warnings.warn(self.turned(others[0]), DataWarning, stacklevel=3)
        names, known = split.info.channels, self.config.channels
        if names and known and names != known:
            raise AmbisegError(
                f"the data have the channels {list(names)}, the run {list(known)}: give data of the same channels"
            )

    def knows(self, directions: str) -> bool:
        """Whether slices of these directions were trained on, or it is unknown which were."""
        return not self.config.directions or directions in self.config.directions

    def turned(self, directions: str) -> str:
        """What to warn of where slices run in other directions than those of training."""
        return (
            f"axes of slices run to {'-'.join(directions)}, those of the training volumes to"
            f" {' or '.join('-'.join(one) for one in self.config.directions)}, so the model sees them mirrored or turned:"
            " store volumes in the orientation of training, or predictions may mean nothing"
        )

    def remark_on(self, sample: Sample) -> str:
        """`difference` of the image of a sample, with its id in every sentence."""
        try:
            remark = self.difference(sample.image)
        except AmbisegError as error:
            raise AmbisegError(f"image {sample.id!r}: {error}") from error
        return f"{sample.id!r}: {remark}" if remark else ""

    def predict_batch(
        self,
        images: Sequence[Image],
        settings: PredictSettings | None = None,
        generator: torch.Generator | None = None,
        flow: LoadedModel | None = None,
    ) -> Postprocessed:
        """Masks with probabilities of several images of one size, in one pass, after `postprocess`."""
        settings = (settings or PredictSettings()).for_run(self)
        threshold = settings.values().foreground_threshold
        proposals = self.propose(images, settings.samples, generator, threshold, settings.annotator)
        return postprocess(proposals, settings, images, flow, generator)

    def digest(self) -> str:
        """SHA-256 of the weights, by which predictions of two runs are told apart."""
        return digest_of_tensors(self.model.state_dict())

    @torch.no_grad()
    def propose(
        self,
        images: Sequence[Image],
        samples: int | None = None,
        generator: torch.Generator | None = None,
        foreground_threshold: float = FOREGROUND_THRESHOLD,
        annotator: str | None = None,
    ) -> MaskSet:
        """All that the model predicts for images of one size, in the style of all annotators or of one, unfiltered, on
        the CPU.

        Raises:
            NotEnoughMemoryError: it needs more memory than there is.
            AmbisegError: an annotator that training did not see, or a method that does not tell them apart.
            AmbisegError: the model gives NaN or infinite weights, scores or probabilities.
        """
        model = self.model if annotator is None else self.model.of_annotator(annotator)
        began = time.perf_counter()
        with self._refusing_too_much(images, samples), self.hardware.autocast():
            batch = self.hardware.images(self.config.normalization.stack(images))
            found = [
                masks_of(model, part, samples, generator).to("cpu")
                for part in torch.split(batch, self._parts(len(batch), batch[0, 0].numel()))
            ]
            predictions: MaskSet = found[0] if len(found) == 1 else MaskSet.stack(found)
            _check_finite(predictions)
            if foreground_threshold != FOREGROUND_THRESHOLD:
                predictions = predictions.rethreshold(foreground_threshold)
        self.seconds += time.perf_counter() - began
        self.images += len(images)
        return predictions

    def _parts(self, count: int, pixels: int) -> list[int]:
        """How many images pass through the network together: all that are given, but on a CPU fewer large ones of a method
        that draws no random numbers."""
        method = self.config.method
        if (
            self.hardware.device != "cpu"
            or method == MIXTURE_METHOD
            or not method_info(method).test.deterministic
        ):
            return [count]
        return part_sizes(count, pixels * self.config.backbone.width, CPU_ELEMENTS)

    def _refusing_too_much(
        self, images: Sequence[Image], samples: int | None
    ) -> AbstractContextManager[None]:
        """Refuse images whose prediction does not fit in memory; of mixtures nothing is known."""
        if self.config.method == MIXTURE_METHOD:
            return nullcontext()
        config, spec = self.config, method_info(self.config.method)
        own = int(getattr(config.settings, spec.masks))
        masks = own if samples is None or (spec.test.deterministic and samples > own) else samples
        count, (height, width) = len(images), images[0].shape[1:]
        pixels, network = count * height * width, config.backbone.width
        parts = network_parts(masks, count, pixels * network) if self.model.passes_for_each_mask else [1]
        multiple = 2 ** (config.backbone.depth - 1)
        needed = prediction_bytes(
            count * extended(height, multiple) * extended(width, multiple),
            network,
            masks * config.labels.channels,
            parts[0],
            self.hardware.bf16,
        )
        fewer = "fewer images at a time (--batch-size), " if count > 1 else ""
        return refusing_too_much(
            f"the prediction of {masks} masks for {count} image(s) of {height}x{width} pixels",
            needed,
            self.hardware.device,
            f"ask for {fewer}fewer masks (--samples), or cut the images into smaller ones",
        )


def _check_finite(predictions: MaskSet) -> None:
    scores = predictions.scores
    if not predictions.is_finite() or (
        scores is not None and not scores[predictions.present].isfinite().all()
    ):
        raise AmbisegError(
            "the model gives NaN or infinite probabilities or scores: look for extreme values in the images, or"
            " train it again"
        )


def warn_of_range(remarks: Sequence[str], images: int, kind: str = "images") -> None:
    """One warning about images whose numbers differ from those of training; nothing if there is none."""
    if remarks:
        warnings.warn(f"{len(remarks)} of {images} {kind}: {remarks[0]}", DataWarning, stacklevel=3)


def load(run: str | Path, precision: str = "auto", device: str | None = None) -> Run:
    """Load a trained run.

    Args:
        run: the run folder, or a file that ``ambiseg export --format package`` wrote.
        precision: ``32``, ``bf16`` or ``auto``, what the run was trained in where this machine can.
        device: ``cuda``, ``mps`` or ``cpu``; the best one there is if None.

    Raises:
        AmbisegError: not a run folder, or no weights that fit it.
    """
    if (Path(run) / MIXTURE).is_file():
        return _load_mixture(Path(run), precision, device)
    if Path(run).is_file():
        with unpacked(Path(run)) as folder:
            found = load(folder, precision, device)
            _ = found.fitted  # read while it is there
        found.folder = Path(run)
        return found
    config = RunConfig.load(run)
    hardware = Hardware.choose(precision, device=device, stored=config.trained_in)
    return Run(config, load_weights(run, config), hardware, Path(run))


def _load_mixture(folder: Path, precision: str, device: str | None) -> Run:
    mixture = MixtureConfig.load(folder)
    members = []
    for place, digest in zip(mixture.runs, mixture.digests, strict=True):
        member = folder / place
        if (member / MIXTURE).is_file():
            raise AmbisegError(
                f"{folder / MIXTURE}: {member} is a mixture itself: mix the runs that it holds"
            )
        members.append(load(member, precision, device))
        if members[-1].digest() != digest:
            raise AmbisegError(
                f"{member} was trained again since it was mixed in {folder}: make the mixture again"
            )
    return mixed(members, mixture.weights, folder)


def mixed(runs: Sequence[Run], weights: Sequence[float], folder: Path | None = None) -> Run:
    """Several runs as one: the weighted union of their masks (`ambiseg.engine.mixture`).

    Args:
        runs: trained on the same data; methods, settings and seeds may differ.
        weights: of each run, sum 1.
        folder: where the mixture is stored, if it is.

    Raises:
        AmbisegError: runs of other classes, channels or training images.
    """
    first = runs[0]
    for run in runs:
        if run.config.method == MIXTURE_METHOD:
            raise AmbisegError(f"{run.folder} is a mixture itself: mix the runs that it holds")
    for other in runs[1:]:
        for what, ours, theirs in (
            ("classes", first.config.labels.one_channel, other.config.labels.one_channel),
            ("channels", first.config.in_channels, other.config.in_channels),
            ("training images", first.config.data_digest, other.config.data_digest),
            ("normalisation", first.config.normalization, other.config.normalization),
        ):
            if ours != theirs:
                raise AmbisegError(
                    f"{first.folder} and {other.folder} cannot be mixed: they have other {what}; mix runs of one data set"
                )
    config = replace(first.config, method=MIXTURE_METHOD)
    return Run(config, MixtureModel([run.model for run in runs], weights), first.hardware, folder)


def fit_mixture(
    runs: Sequence[Run],
    split: Split,
    samples: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MixtureFit:
    """What the weights of a mixture depend on, from all images of a split.

    Args:
        runs: trained on the same data.
        split: annotated images that they were not trained on, such as ``val``.
        samples: masks that each run is asked for; its own number if None.
        seed: of sampling methods.
        progress: called with images done and in all.

    Returns:
        Sums whose ``weights()`` make the mean squared GED smallest; pass them to `mixed`.

    Example:
        >>> fit = fit_mixture([first, second], open_split("my-data", "val"))                # doctest: +SKIP
        >>> mixture = mixed([first, second], fit.weights())                                 # doctest: +SKIP
    """
    fit = MixtureFit(len(runs))
    generators = [torch.Generator(run.hardware.device).manual_seed(seed) for run in runs]
    for done, sample in enumerate(split, 1):
        found = [
            run.propose([sample.image], samples, generator)
            for run, generator in zip(runs, generators, strict=True)
        ]
        fit.add(found, annotations_of(sample, runs[0].config.labels))
        if progress is not None:
            progress(done, len(split))
    return fit
