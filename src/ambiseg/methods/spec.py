"""`MethodSpec`: all that the rest of the library knows of a method before it builds one. Imports no torch.

A method is a folder with a ``SPEC`` in its ``__init__.py`` and the model beside it. Methods of other packages
join by `ambiseg.register` or by an entry point in the group ``ambiseg.methods``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from ambiseg.data.layouts import Layout
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.settings import UNetSettings

if TYPE_CHECKING:
    from ambiseg.methods.base import Segmenter

RECOMMENDED, PAPER = "recommended", "paper"
"""The preset that counts where none is named, and that of the values of the paper; every method has both."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Preset:
    """A named choice of settings: its values replace the defaults, nested settings key by key.

    Attributes:
        source: where the choice comes from, such as a paper and its table, or the command that measured it.
        differs: what still differs from that source.
        train: of `ambiseg.TrainSettings`.
        backbone: of `ambiseg.UNetSettings`.
        settings: of the method's own settings.
        single: of the method's own settings where training sees single labels, over ``settings``.
        data: what the data of the experiment look like; None where the choice is for any data.
    """

    source: str = ""
    differs: str = ""
    train: Mapping[str, Any] = field(default_factory=dict)
    backbone: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    single: Mapping[str, Any] = field(default_factory=dict)
    data: Layout | None = None


@dataclass(frozen=True)
class TestCase:
    """How `ambiseg.testing.check_method` tries a method on a small ambiguous problem.

    Attributes:
        settings: values that replace its defaults, to make it small.
        deterministic: predictions draw no random numbers, so images of a batch do not depend on each other.
        draws_labels: of several annotations the loss draws one, so only with one each is it the same at every
            call.
        steps: of the optimiser in which one batch is learnt.
        rate: learning rate of the first step; it falls to 0 along half a cosine, as in training. At a
            constant rate the loss of some methods keeps fluctuating, and the last step is a random one.
        gain: least rise of M-IoU in these steps; 0 for a method that need not find every mode.
        tolerance: largest change of mean masks and weights in bfloat16; larger for a method that draws hard
            masks.
        unused: beginnings of the names of parameters that no loss reaches, with good reason.
    """

    __test__ = False  # no test class, whatever its name begins with

    settings: Mapping[str, Any] = field(default_factory=dict)
    deterministic: bool = True
    draws_labels: bool = False
    steps: int = 150
    rate: float = 1e-2
    gain: float = 0.05
    tolerance: float = 0.02
    unused: tuple[str, ...] = ()


_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("summary", str, "a text"),
    ("citation", str, "BibTeX as a text"),
    ("model", (str, type), "a subclass of ambiseg.Segmenter, or 'module:Class'"),
    ("presets", Mapping, "a mapping of presets by names"),
    ("masks", str, "the name of a setting"),
    ("validation", str, "the name of a metric, or 'loss'"),
    ("search", Mapping, "a mapping of ranges by names of settings"),
    ("starts_from", Mapping, "a mapping of functions by names of methods"),
    ("test", TestCase, "a TestCase"),
    ("variants", Mapping, "a mapping of TestCases by names"),
)
"""Types of the fields of `MethodSpec`, with words for them."""


@dataclass(frozen=True)
class MethodSpec:
    """A method as the library and its command line see it.

    Attributes:
        name: what the command line calls it, in lower case with hyphens.
        summary: one line.
        citation: the paper as BibTeX.
        model: the subclass of `ambiseg.Segmenter`, or ``"module:Class"``, which is imported when a model is
            built.
        settings: its settings, a frozen dataclass that can be built without arguments.
        presets: named choices of settings over the defaults. Every method has ``recommended``, which counts
            where none is named, and ``paper``, also without naming them here.
        masks: the setting that says how many masks an image gets.
        validation: the metric that chooses the best weights, a key of `ambiseg.metrics.METRICS`, or "loss"
            where sampling is slow.
        search: settings of its own that `ambiseg tune` tries, each with its range such as "log:0.01..1" or "8|16"
            (`ambiseg.engine.tuning.space`), beside learning rate, weight decay and batch size.
        starts_from: other methods whose weights it can start from (``--init``), each with a function of its
            settings and theirs that gives the settings it then needs.
        test: how `ambiseg.testing.check_method` tries it; ``variants`` are further cases by name.
        by_annotator: whether its loss asks who drew a mask (`MaskSet.annotators`). Its settings are then those of
            `ambiseg.methods.style_settings.StyleSettings` and its own, and training fills them in.

    Raises:
        AmbisegError: a name with other characters, settings that are no dataclass or need arguments, or
            anything else of another type.

    Example:
        >>> from ambiseg.methods import METHODS
        >>> METHODS["ssn"].settings().rank
        10
    """

    name: str
    summary: str
    citation: str
    model: str | type[Segmenter]
    settings: type[Any]
    presets: Mapping[str, Preset] = field(default_factory=dict)
    masks: str = "samples"
    validation: str = "hm_iou_unique"
    search: Mapping[str, str] = field(default_factory=dict)
    starts_from: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    test: TestCase = TestCase()
    variants: Mapping[str, TestCase] = field(default_factory=dict)
    by_annotator: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise AmbisegError(
                f"a method is named in lower case with hyphens, such as 'my-method', received {self.name!r}"
            )
        if not isinstance(self.settings, type) or not is_dataclass(self.settings):
            raise AmbisegError(
                f"the settings of {self.name} are a frozen dataclass, received {self.settings!r}"
            )
        known = {f.name: f for f in fields(self.settings)}
        missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
        if missing:
            raise AmbisegError(
                f"the settings of {self.name} have no default for {', '.join(missing)}: give each field one"
            )
        for name, kinds, words in _TYPES:
            value = getattr(self, name)
            if not isinstance(value, kinds):
                raise AmbisegError(f"{name} of {self.name} is {words}, received {value!r}")
        if self.masks not in known and self.masks != "samples":
            raise UnknownNameError(f"setting of {self.name} that masks names", self.masks, known)
        for name, preset in self.presets.items():
            self._check_preset(name, preset, known)
        for name, convert in self.starts_from.items():
            if not isinstance(name, str) or not callable(convert):
                raise AmbisegError(
                    f"starts_from of {self.name} are functions by names of methods, received {name!r}: {convert!r}"
                )

    def _check_preset(self, name: object, preset: object, known: Collection[str]) -> None:
        """Raise `AmbisegError` for a preset without a name, of another type, or with keys that there are not."""
        where = f"preset {name!r} of {self.name}"
        if not isinstance(name, str) or not isinstance(preset, Preset):
            raise AmbisegError(
                f"presets of {self.name} are Preset(...) by names, received {name!r}: {preset!r}"
            )
        if not isinstance(preset.data, Layout | None):
            raise AmbisegError(
                f"data of the {where} is a Layout of ambiseg.data.layouts, received {preset.data!r}"
            )
        network = [f.name for f in fields(UNetSettings)]
        for part, names in (("train", None), ("backbone", network), ("settings", known), ("single", known)):
            values = getattr(preset, part)
            if not isinstance(values, Mapping):
                raise AmbisegError(f"{part} of the {where} is a mapping of values, received {values!r}")
            for key in values:
                if names is not None and key not in names:
                    raise UnknownNameError(f"key of {part} of the {where}", str(key), names)

    @property
    def has_single_settings(self) -> bool:
        """Whether a preset has other settings for single labels, whose loss then differs."""
        return any(preset.single for preset in self.presets.values())

    @property
    def all_presets(self) -> dict[str, Preset]:
        """Every preset by its name, those that go without saying among them."""
        return {
            RECOMMENDED: Preset(source="the defaults"),
            PAPER: Preset(source="the defaults"),
            **self.presets,
        }

    def preset(self, name: str = RECOMMENDED) -> Preset:
        """A preset by its name.

        Raises:
            UnknownNameError: the method has no such preset; the message suggests the nearest name.
        """
        if not isinstance(name, str) or name not in self.all_presets:
            raise UnknownNameError(f"preset of {self.name}", str(name), self.all_presets)
        return self.all_presets[name]

    def model_class(self) -> type[Segmenter]:
        """The class of the model, imported now.

        Raises:
            AmbisegError: the module or the class is not there.
        """
        if not isinstance(self.model, str):
            return self.model
        module, _, name = self.model.partition(":")
        try:
            found: type[Segmenter] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise AmbisegError(
                f"the model {self.model!r} of {self.name} cannot be imported ({error}): correct its spec"
            ) from error
        return found

    def is_model(self, cls: type) -> bool:
        """Whether a class is the model of this method; nothing is imported."""
        return self.model in (cls, f"{cls.__module__}:{cls.__qualname__}")

    @classmethod
    def of_class(cls, model: type[Segmenter]) -> MethodSpec:
        """A spec for a class that has none, by its name, its docstring and its annotation ``settings:
        MySettings``.

        Raises:
            AmbisegError: not a class, or one without these.
        """
        settings = _annotated(model)
        if settings is None:
            raise AmbisegError(
                "a method is a name, a MethodSpec, or a subclass of ambiseg.Segmenter that annotates its settings"
                f" ('settings: MySettings', a dataclass), received {model!r}"
            )
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", "-", model.__name__)
        return cls(words.lower(), next(iter((model.__doc__ or "").splitlines()), ""), "", model, settings)


def _annotated(model: Any) -> type[Any] | None:
    if not isinstance(model, type):
        return None
    try:
        found = get_type_hints(model).get("settings")
    except NameError:
        return None
    return found if isinstance(found, type) and is_dataclass(found) else None
