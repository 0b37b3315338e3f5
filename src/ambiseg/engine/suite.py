"""A benchmark suite: which methods on which data sets under which protocol, read from a YAML file that a
person can read.

What is said of training, network and masks is merged from the general to the particular: the protocol, the
data set, the method, the method on that data set. A key that is not known is an error with a suggestion: a
misspelt ``epoch`` must not silently train for another time. Nothing here imports torch, so that suites can be
listed at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from ambiseg.data.layouts import LAYOUTS, Layout
from ambiseg.engine.presets import merged_training, resolve
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.smoke import bounded, shrunk
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.methods import METHODS, method_info
from ambiseg.methods.spec import RECOMMENDED, MethodSpec
from ambiseg.nested_settings import check_name, fits, from_values, mapping, merged, number_problems
from ambiseg.networks.settings import UNetSettings
from ambiseg.plain_yaml import read_yaml, yaml_text

T = TypeVar("T")

_KEYS = ("title", "protocol", "data", "all_methods", "methods", "papers")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+")


@dataclass(frozen=True)
class Recipe:
    """What any level of a suite may say.

    Attributes:
        train: of `TrainSettings`.
        backbone: of `UNetSettings`.
        settings: of the method's own settings.
        samples: masks to ask of a method; it gives fewer where it has fewer.
    """

    train: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None

    def over(self, general: Recipe) -> Recipe:
        """This one where it says something, else the more general one.

        Example:
            >>> Recipe({"epochs": 3}).over(Recipe({"updates": 90, "lr": 0.1}, samples=16))
            Recipe(train={'lr': 0.1, 'epochs': 3}, backbone={}, settings={}, samples=16)
        """
        return Recipe(
            merged_training(general.train, self.train),
            merged(general.backbone, self.backbone),
            merged(general.settings, self.settings),
            general.samples if self.samples is None else self.samples,
        )


@dataclass(frozen=True)
class Protocol(Recipe):
    """What holds for every run of a suite.

    Attributes:
        metrics: what tables show, in this order; the first one goes into the plots.
        split: what is evaluated.
        labels: what training sees of an image.
        seeds: how many, counted from 0.
        batch_size: images in one pass of the evaluation.
        dialect: conventions of metrics, see `ambiseg.metrics.dialects`.
        classes: names or ids of the classes to evaluate; those of the dialect if empty.
    """

    metrics: tuple[str, ...] = ("hm_iou_unique", "ged")
    split: str = "test"
    labels: Literal["full", "single"] = "full"
    seeds: int = 1
    batch_size: int = 16
    dialect: str = "ambiseg"
    classes: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class DataEntry(Recipe):
    """A data set and how to get it, in one of four ways; with a layout alone, in that of the layout.

    Attributes:
        simulate: scene of ``ambiseg data simulate``.
        path: a data set that is there, below the data root.
        importer: of `ambiseg.data.importers` (``import`` in the file).
        source: what to import, below the data root.
        part_of: another data set of the suite, with fewer training images.
        train_share: share of them, evenly spread.
        options: of the simulation or the importer.
        layout: of `ambiseg.data.layouts.LAYOUTS`, that of the data or the whole; a smoke run simulates it.
        split: what is evaluated; that of the protocol if empty.
        images: so many images of it, evenly spread; all if left out.
        dialect: conventions of metrics; those of the protocol if empty.
        classes: that are evaluated; those of the protocol if empty.
    """

    simulate: str = ""
    path: str = ""
    importer: str = ""
    source: str = ""
    part_of: str = ""
    train_share: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    layout: str = ""
    split: str = ""
    images: int | None = None
    dialect: str = ""
    classes: tuple[str | int, ...] = ()

    @property
    def ways(self) -> tuple[str, ...]:
        """How to get it, in the four ways; all but one are empty."""
        return self.simulate, self.path, self.importer, self.part_of


@dataclass(frozen=True)
class MethodEntry(Recipe):
    """A method with its settings.

    Attributes:
        method: its name in `ambiseg.METHODS`; that of the entry if empty.
        preset: the preset whose values hold where the suite says nothing.
        presets: the preset on single data sets, in place of ``preset``; with ``run_of`` one that trains like
            that entry, for its settings of sampling.
        start_from: another entry, whose run on the same data with the same seed gives the first weights.
        run_of: another entry, whose run is measured in place of one of its own, with other settings of
            sampling or another number of masks.
        data: the only data sets to run on; those of ``presets``, or all, if empty.
        overrides: more about single data sets.
    """

    method: str = ""
    preset: str = RECOMMENDED
    presets: dict[str, str] = field(default_factory=dict)
    start_from: str = ""
    run_of: str = ""
    data: tuple[str, ...] = ()
    overrides: dict[str, Recipe] = field(default_factory=dict)

    def runs_on(self, data: str) -> bool:
        """Whether it runs on a data set."""
        chosen = self.data or tuple(self.presets)
        return not chosen or data in chosen

    @property
    def needs(self) -> str:
        """The entry that runs before this one, if any."""
        return self.start_from or self.run_of


@dataclass(frozen=True)
class PaperEntry:
    """What a paper prints.

    Attributes:
        paper: where it stands.
        data: the data set of the suite beside which to show it.
        values: of each method, metric -> mean, or mean and standard deviation.
        samples: masks per image.
        differs: in what its protocol is another one; empty if it is the same.
    """

    paper: str
    data: str
    values: dict[str, dict[str, tuple[float, float | None]]]
    samples: int | None = None
    differs: str = ""


@dataclass(frozen=True)
class Suite:
    """A benchmark: methods x data sets under one protocol.

    Attributes:
        smoke: every run is a small and short one (`ambiseg.engine.smoke`).
    """

    name: str
    title: str
    protocol: Protocol
    data: dict[str, DataEntry]
    methods: dict[str, MethodEntry]
    papers: tuple[PaperEntry, ...] = ()
    smoke: bool = False

    def for_smoke(self) -> Suite:
        """The same suite, its runs small, with one seed."""
        return replace(self, smoke=True, protocol=replace(self.protocol, seeds=1))

    def dialect(self, data: str) -> str:
        """Name of the conventions of metrics on a data set."""
        return self.data[data].dialect or self.protocol.dialect

    def methods_on(self, data: str) -> list[str]:
        """Names of the methods that run on a data set, each after the one that it starts from."""
        names: list[str] = []
        for name, entry in self.methods.items():
            if entry.runs_on(data):
                names += [one for one in reversed(self.lineage(name)) if one not in names]
        return names

    def lineage(self, name: str) -> list[str]:
        """A method, the one that it starts from or whose run it measures, the one that starts from, and so
        on.

        Raises:
            AmbisegError: one of them is not there, or they run in a circle.
        """
        names = [name]
        while start := self.methods[names[-1]].needs:
            check_name("method to start from", start, self.methods)
            if start in names:
                raise AmbisegError(
                    f"{self.name}: {name} starts from itself ({' from '.join([*names, start])})"
                )
            names.append(start)
        return names

    def trained(self, name: str) -> str:
        """The entry whose training makes the run of a method: itself, but for ``run_of``."""
        while self.methods[name].run_of:
            name = self.methods[name].run_of
        return name

    def sampling(self, data: str, name: str) -> Recipe:
        """What a method that measures another one's run asks of it; nothing for the others."""
        entry = self.methods[name]
        if not entry.run_of:
            return Recipe()
        found = self.sampling(data, entry.run_of)
        for particular in (
            Recipe(settings=self._sampling_preset(data, name)),
            entry,
            entry.overrides.get(data),
        ):
            found = particular.over(found) if particular else found
        return replace(found, settings=bounded(found.settings)) if self.smoke else found

    def resolved(
        self, data: str, name: str, seed: int = 0
    ) -> tuple[TrainSettings, UNetSettings, Any, int | None]:
        """Settings of training, network and method, and the number of masks, for one run.

        Raises:
            AmbisegError: a setting that there is not, or whose value makes no sense.
        """
        where, own = f"{self.name}: {name} on {data}", self.sampling(data, name)
        name = self.trained(name)
        entry = self.methods[name]
        recipe: Recipe = self.protocol
        for particular in (self.data[data], entry, entry.overrides.get(data, Recipe()), own):
            recipe = particular.over(recipe)
        given = {"labels": self.protocol.labels} | recipe.train | {"seed": seed}
        train, backbone, settings = resolve(
            self.spec(name), self.preset(data, name), given, recipe.backbone, recipe.settings, where
        )
        samples = recipe.samples
        if self.smoke:
            train, backbone, settings = shrunk(train, backbone, settings)
            samples = None if samples is None else bounded({"samples": samples})["samples"]
        return train, backbone, settings, samples

    def _sampling_preset(self, data: str, name: str) -> dict[str, Any]:
        """Settings in which the preset of an entry that measures a run differs from that of the run.

        Raises:
            AmbisegError: these presets train in different ways.
        """
        spec, asked = self.spec(name), self.preset(data, name)
        measured = self.preset(data, self.methods[name].run_of)
        ours, theirs = spec.preset(asked), spec.preset(measured)
        if any(getattr(ours, part) != getattr(theirs, part) for part in ("train", "backbone", "single")):
            raise AmbisegError(
                f"{self.name}: {name} on {data} measures a run of the preset {measured}, but the"
                f" preset {asked} trains in another way: take one of the same training, or train it"
            )
        return {key: value for key, value in ours.settings.items() if theirs.settings.get(key) != value}

    def spec(self, name: str) -> MethodSpec:
        """The method that an entry trains or measures."""
        trained = self.trained(name)
        return method_info(self.methods[trained].method or trained)

    def preset(self, data: str, name: str) -> str:
        """The preset of a method; where it measures another one's run and names none, that of the run."""
        entry = self.methods[name]
        if entry.run_of and data not in entry.presets:
            return self.preset(data, entry.run_of)
        return entry.presets.get(data, entry.preset)

    def differs(self, data: str) -> dict[str, str]:
        """In what the presets of methods still differ from the experiments that they stand for; only those that
        do."""
        found = {}
        for name in self.methods_on(data):
            spec, preset = self.spec(name), self.preset(data, name)
            if text := spec.preset(preset).differs:
                found[name] = f"{text} (preset {preset} of {spec.name})"
        return found

    def masks(self, data: str, name: str) -> int | None:
        """How many masks an image gets from a method: those asked for, or fewer where the method has fewer
        heads, members or proposals.

        Example:
            >>> load_suite("cpu").masks("lidc-on-ct", "unet-ensemble")
            2
        """
        _, _, settings, asked = self.resolved(data, name)
        setting = self.spec(name).masks
        own: int | None = getattr(settings, setting, None)
        if setting == "samples":
            return own if asked is None else asked
        return min((number for number in (asked, own) if number is not None), default=None)


def suite_names() -> list[str]:
    """Suites that come with the library."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def load_suite(name: str | Path) -> Suite:
    """Read a suite by its name, or a file of one's own.

    Raises:
        AmbisegError: no such suite, not YAML, an unknown key or a value of the wrong kind.

    Example:
        >>> load_suite("smoke").protocol.samples
        8
    """
    if str(name) in suite_names():
        return read_suite((_folder() / f"{name}.yaml").read_text(encoding="utf-8"), str(name))
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UnknownNameError("suite", str(name), [*suite_names(), "FILE.yaml"])
    try:
        text = yaml_text(path)
    except FileNotFoundError as error:
        raise AmbisegError(f"{path} does not exist: name a suite or a YAML file") from error
    return read_suite(text, path.stem, str(path))


def read_suite(text: str, name: str, where: str = "") -> Suite:
    """Read the text of a suite.

    Args:
        text: YAML with the keys title, protocol, data, methods and papers; ``all_methods: true`` adds every
            method that ``methods`` does not name, with its recommended preset.
        name: of the suite.
        where: file name for error messages.

    Raises:
        AmbisegError: see `load_suite`.
    """
    where = where or name
    entries = mapping(read_yaml(text, where, aliases=True), where)
    for key in entries:
        check_name(f"key of {where}", key, _KEYS)
    papers = entries.get("papers") or []
    if not isinstance(papers, list):
        raise AmbisegError(f"{where}: papers is a list, one '- paper: ...' for each, received {papers!r}")
    suite = Suite(
        name,
        str(entries.get("title", name)),
        from_values(Protocol, entries.get("protocol"), f"{where}: protocol"),
        _data(entries, where),
        _methods(entries, where),
        tuple(_paper(entry, f"{where}: papers") for entry in papers),
    )
    try:
        _check(suite)
    except AmbisegError as error:
        raise AmbisegError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from error
    return suite


def _data(entries: Mapping[str, Any], where: str) -> dict[str, DataEntry]:
    found = {
        key: from_values(DataEntry, _renamed(entry, "import", "importer"), f"{where}: {key}")
        for key, entry in _named(entries, "data", where).items()
    }
    for key, entry in found.items():
        if entry.part_of in found:
            found[key] = replace(entry, layout=entry.layout or found[entry.part_of].layout)
        elif entry.layout in LAYOUTS and not any(entry.ways):
            found[key] = _as_in_layout(entry, LAYOUTS[entry.layout])
    return found


def _as_in_layout(entry: DataEntry, layout: Layout) -> DataEntry:
    """A data set that is got in the way of its layout."""
    if layout.prediction:  # no importer makes that channel
        return replace(entry, path=f"{layout.name}.h5")
    options = {**layout.options, **entry.options}
    return replace(entry, importer=layout.importer, source=entry.source or layout.importer, options=options)


def _methods(entries: Mapping[str, Any], where: str) -> dict[str, MethodEntry]:
    every = entries.get("all_methods", False)
    if not isinstance(every, bool):
        raise AmbisegError(f"{where}: all_methods is true or false, received {every!r}")
    listed = {} if every and not entries.get("methods") else _named(entries, "methods", where)
    found = {key: _method(entry, f"{where}: {key}") for key, entry in listed.items()}
    return found | {name: MethodEntry() for name in METHODS if every and name not in found}


def _method(entry: Any, where: str) -> MethodEntry:
    given = dict(mapping(entry, where))
    overrides = {
        name: from_values(Recipe, part, f"{where} on {name}")
        for name, part in mapping(given.get("overrides"), where).items()
    }
    return from_values(MethodEntry, given | {"overrides": overrides}, where)


def _paper(entry: Any, where: str) -> PaperEntry:
    given = dict(mapping(entry, where))
    values: dict[str, dict[str, tuple[float, float | None]]] = {}
    for method, numbers in mapping(given.get("values"), where).items():
        for metric, value in mapping(numbers, where).items():
            pair = value if isinstance(value, list) else [value, None]
            if len(pair) != 2 or not fits(pair[0], float) or not fits(pair[1], float | None):
                raise AmbisegError(f"{where}: {metric} is a number or [mean, deviation], received {value!r}")
            values.setdefault(str(method), {})[str(metric)] = (pair[0], pair[1])
    return from_values(PaperEntry, given | {"values": values}, where)


def _check(suite: Suite) -> None:
    """What one entry says of another holds, and every run can be resolved.

    Names of metrics are checked where they are used, since their table needs torch.
    """
    problems = number_problems(suite.protocol, "protocol.")
    for name, data in suite.data.items():
        problems += number_problems(data, f"{name}.")
    if problems:
        raise AmbisegError("; ".join(problems))
    for name, data in suite.data.items():
        if data.layout:
            check_name(f"layout of {name}", data.layout, LAYOUTS)
        if sum(map(bool, data.ways)) != 1 or bool(data.source) != bool(data.importer):
            raise AmbisegError(
                f"{name}: say one of 'simulate', 'path', 'part_of', or 'import' with 'source', how to get it,"
                " or its 'layout' alone"
            )
        if data.part_of:
            check_name("data set", data.part_of, suite.data)
        if not 0 < data.train_share <= 1:
            raise AmbisegError(f"{name}: train_share is above 0 and at most 1, received {data.train_share}")
        if data.part_of and suite.data[data.part_of].part_of:
            raise AmbisegError(f"{name} is a part of {data.part_of}, which is a part itself: name the whole")
    for name, entry in suite.methods.items():
        parts = (entry, *entry.overrides.values())
        if entry.run_of and (
            entry.method
            or entry.start_from
            or entry.preset != RECOMMENDED
            or any(part.train or part.backbone for part in parts)
        ):
            raise AmbisegError(
                f"{name} measures the run of {entry.run_of}: say settings, samples and presets only"
            )
        for other in (*entry.data, *entry.presets, *entry.overrides):
            check_name("data set", other, suite.data)
        suite.lineage(name)
    for data_name in suite.data:
        for name in suite.methods_on(data_name):
            suite.resolved(data_name, name)
    for paper in suite.papers:
        check_name("data set of a paper", paper.data, suite.data)


def _renamed(value: Any, old: str, new: str) -> Any:
    return {new if k == old else k: v for k, v in value.items()} if isinstance(value, dict) else value


def _named(entries: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """Entries whose names may be those of folders."""
    found = mapping(entries.get(key), f"{where}: {key}")
    if not found:
        raise AmbisegError(f"{where}: names no {key}: add a line such as 'wildfire: {{simulate: wildfire}}'")
    for name in found:
        if not isinstance(name, str) or not set(name) <= _NAME or not name.strip("."):
            raise AmbisegError(
                f"{where}: {key}: a name has letters, digits and -_.+ only, received {name!r}: rename it"
            )
    return found


def _folder() -> Any:
    return resources.files("ambiseg") / "suites"
