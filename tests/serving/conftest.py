"""A small run, its images, and a client of the application that serves it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from ambiseg.data.source import open_split
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import load
from ambiseg.serving.app import create_app
from ambiseg.serving.model import Served
from ambiseg.serving.settings import ServeSettings

SETTINGS = PredictSettings(score_threshold=None)
"""Several masks of each image stay."""


@pytest.fixture(scope="session")
def run(tiny_run):
    return load(tiny_run, precision="32", device="cpu")


@pytest.fixture(scope="session")
def images(fires):
    return [sample.image for sample in open_split(fires, "test")]


@pytest.fixture(scope="session")
def npy():
    """``npy(array)``: the bytes of a file."""

    def write(array):
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    return write


@pytest.fixture
def client_of():
    """``client_of(served, **limits)``: a client of its application, closed after the test."""
    clients = []

    def make(served, **limits):
        client = TestClient(create_app(served, replace(ServeSettings(), **limits)))
        clients.append(client)
        return client.__enter__()

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def served(run):
    return Served(run, SETTINGS)


@pytest.fixture(scope="session")
def client(served):
    with TestClient(create_app(served)) as client:
        yield client
