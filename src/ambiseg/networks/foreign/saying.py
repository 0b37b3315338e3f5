"""What other packages say against a network, in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ambiseg.errors import AmbisegError


def is_outline() -> bool:
    """Whether models are built without memory now (torch's meta device), which some packages do not support."""
    return torch.get_default_device().type == "meta"


@contextmanager
def in_one_sentence(what: str, remedy: str) -> Iterator[None]:
    """Turn an error of another package into ours; one of an outline stays, so that the real build is tried.

    Args:
        what: the beginning of the sentence, such as "timm:resnet18 cannot be built".
        remedy: its end.

    Raises:
        AmbisegError: with the first line of what the package says.

    Example:
        >>> with in_one_sentence("it cannot be built", "choose another one"):
        ...     raise ValueError("no such block")
        Traceback (most recent call last):
        ambiseg.errors.AmbisegError: it cannot be built (ValueError: no such block): choose another one
    """
    try:
        yield
    except AmbisegError:
        raise
    except Exception as error:
        if is_outline():
            raise
        first = next(iter(str(error).strip().splitlines()), "").rstrip(" .:")
        raise AmbisegError(f"{what} ({type(error).__name__}: {first:.200}): {remedy}") from error


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep loggers of other packages to errors for a while."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
