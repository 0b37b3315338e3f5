"""``ambiseg serve``: a run that answers requests over HTTP."""

from __future__ import annotations

import ipaddress
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import command, next_commands, say, show, show_json, warn
from ambiseg.cli.parsing import Proposing, at_least_one, parse
from ambiseg.cli.predict import settings_of
from ambiseg.errors import AmbisegError

PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
"""Packages of the extra ``serve``."""


@dataclass(frozen=True)
class ServeArguments:
    """Answer requests over HTTP with a run: an image in, masks with probabilities out."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote; it is read once, at the start."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only. There is no password."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    timeout: float = 60.0
    """Seconds in which a request must have arrived, and in which it is answered."""
    max_body: float = 32.0
    """Largest body of a request in MiB."""
    max_pixels: int = 4194304
    """Largest image, as height times width."""
    max_samples: int = 128
    """Most masks that a request may ask of the model."""
    max_queue: int = 64
    """Most images that wait; more are refused with status 503."""
    json: bool = False
    """Print the address as JSON."""
    proposing: OmitArgPrefixes[Proposing] = field(default_factory=Proposing)


def run(args: list[str]) -> int:
    """Serve until Ctrl-C."""
    arguments = parse(ServeArguments, args, "ambiseg serve")
    arguments.proposing.check()
    at_least_one(**{name: getattr(arguments, name) for name in ("max_pixels", "max_samples", "max_queue")})
    for name, least in (("timeout", 0.1), ("max_body", 0.001)):
        if not least <= getattr(arguments, name) < math.inf:
            raise AmbisegError(
                f"--{name.replace('_', '-')} is a number from {least:g}, received {getattr(arguments, name)}"
            )
    from ambiseg.exchange.packages import package

    for name in PACKAGES:
        package(name, "serve", "'ambiseg serve' needs")
    from ambiseg.engine.postprocess import flow_remark
    from ambiseg.engine.run import load
    from ambiseg.serving.app import create_app
    from ambiseg.serving.model import Served
    from ambiseg.serving.server import address_of, bind, listen, names_of
    from ambiseg.serving.settings import ServeSettings

    bound = bind(arguments.host, arguments.port)
    with bound:
        model = load(arguments.run)
        settings, flow = settings_of(arguments.proposing, model)
        warn(flow_remark(model, flow))
        served = Served(model, settings, flow, arguments.proposing.seed)
        host = bound.getsockname()[0]
        inside = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        limits = ServeSettings(
            timeout=arguments.timeout,
            body_bytes=int(arguments.max_body * (1 << 20)),
            pixels=arguments.max_pixels,
            samples=arguments.max_samples,
            queue_size=arguments.max_queue,
            batch_size=arguments.proposing.batch_size,
            hosts=names_of(arguments.host, host) if inside else frozenset(),
        )
        address = address_of(bound)

        def ready(_: object) -> None:
            if arguments.json:
                show_json({"address": address, **served.facts()})
                sys.stdout.flush()
                return
            show(f"{arguments.run} ({model.config.method}) answers at {address}")
            if not inside:
                warn("everybody who reaches this address can use the service: there is no password")
            next_commands(
                (command("curl", "--data-binary", "@image.png", f"{address}/predict"), "masks of an image"),
                (command("curl", f"{address}/health"), f"its state; {address}/docs describes it"),
            )
            say("Ctrl-C ends it")

        listen(create_app(served, limits), bound, limits, ready)
    if not arguments.json:
        say("stopped")
    return 0
