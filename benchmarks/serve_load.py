"""Load test of `ambiseg serve` on this machine: one client, many with and without batches, and bad ones beside them.

    python benchmarks/serve_load.py [--requests 5000] [--clients 32] [--size 64] [--limit 240] [--out RESULT.json]

It trains the demo's model for a few steps on simulated wildfires, starts servers on free ports of 127.0.0.1, and sends
images. Each part stops after ``--requests`` requests (a tenth with one client, a fifth beside bad clients) or
``--limit`` seconds. A server with batches and one without take turns for ten rounds of a fiftieth each. It prints
requests, requests lost (no answer, another status than 200, or the answer to another image), latency p50 and p95 in
milliseconds, requests per second, processor time of the server per request, and its memory (RSS in MiB) at the begin
and after each fifth. Of the rounds it prints medians. Bad clients send malformed, huge, slow and truncated requests
while the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ambiseg.data.info import DatasetInfo
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import write_dataset
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit
from ambiseg.networks.settings import UNetSettings

IMAGES = 16
PATIENCE = 60.0
ROUNDS = 10


def make(room: Path, size: int) -> tuple[Path, list[bytes]]:
    """A run of the demo's model, hardly trained, and images as ``.npy``."""
    counts = {"train": (16, 0), "val": (4, 16), "test": (IMAGES, 20)}
    splits = {name: simulate_wildfires(n, size=size, start=start) for name, (n, start) in counts.items()}
    data = write_dataset(room / "fires", splits, DatasetInfo("fires"))
    training = TrainSettings(updates=20, batch_size=8, lr=2e-3, validations=1, warmup=5)
    run = fit(
        "mode-proposals", data, room / "run", train=training, backbone=UNetSettings(width=16), quiet=True
    )
    return run.run, [path.read_bytes() for path in sorted((data / "test" / "images").glob("*.npy"))]


@contextmanager
def server(run: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Process id and port of a server; it must end with status 0 when it is told to stop."""
    command = [sys.executable, "-m", "ambiseg", "serve", str(run), "--port", "0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = itertools.takewhile(lambda line: line != "}\n", process.stdout)
        address = json.loads("".join(lines) + "}")["address"]
        yield process.pid, int(address.rpartition(":")[2])
        process.terminate()
        if process.wait(PATIENCE):
            raise SystemExit(f"the server ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()


def memory(process: int) -> float:
    """Resident memory of a process in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024, 1)


def processor_seconds(process: int) -> float:
    """What a process has computed, in seconds of one core."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(body: bytes, more: str = "") -> bytes:
    """A request for the masks of an image."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


def expected_area(body: bytes) -> float:
    """Of an answer, by which answers to different images are told apart."""
    return float(sum(mask["probability"] * mask["area"] for mask in json.loads(body)["masks"]))


async def part(
    port: int,
    process: int,
    images: list[bytes],
    clients: int,
    requests: int,
    limit: float,
    areas: list[float],
) -> dict[str, Any]:
    """Clients that each send one request after the other; ``areas`` are those of the right answers."""
    turns, seconds, lost = iter(range(requests)), list[float](), 0
    began, memories, computed = time.perf_counter(), [memory(process)], processor_seconds(process)

    async def client() -> None:
        nonlocal lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in turns:
            if time.perf_counter() - began > limit:
                break
            start, which = time.perf_counter(), turn % len(images)
            try:
                writer.write(request(images[which]))
                status, body = await asyncio.wait_for(answer(reader), PATIENCE)
                right = status == 200 and abs(expected_area(body) - areas[which]) < 2e-3
            except (OSError, EOFError, TimeoutError):
                right = False
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            lost += not right
            seconds.append(time.perf_counter() - start)
            if len(seconds) % max(1, requests // 5) == 0:
                memories.append(memory(process))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    duration = time.perf_counter() - began
    cuts = statistics.quantiles(seconds, n=20)
    return {
        "clients": clients,
        "requests": len(seconds),
        "lost": lost,
        "p50_ms": round(1e3 * statistics.median(seconds), 1),
        "p95_ms": round(1e3 * cuts[-1], 1),
        "per_second": round(len(seconds) / duration, 1),
        "processor_ms": round(1e3 * (processor_seconds(process) - computed) / len(seconds), 2),
        "memory_mib": memories,
    }


def middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums of requests and of those lost, medians of the rest."""
    sums = {name: sum(one[name] for one in rounds) for name in ("requests", "lost")}
    names = ("p50_ms", "p95_ms", "per_second", "processor_ms")
    medians = {name: round(statistics.median(one[name] for one in rounds), 2) for name in names}
    return {"clients": rounds[0]["clients"], "rounds": len(rounds), **sums, **medians}


async def references(port: int, images: list[bytes]) -> list[float]:
    """What the right answer to each image is known by."""
    areas = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for image in images:
        writer.write(request(image))
        status, body = await answer(reader)
        assert status == 200, body
        areas.append(expected_area(body))
    writer.close()
    return areas


async def bad_clients(port: int, image: bytes, until: asyncio.Event) -> dict[str, int]:
    """Four clients that misbehave until an event; statuses that they saw, 0 for no answer."""
    seen: dict[str, int] = {}

    async def bad(name: str, content: bytes, rest: bytes = b"", pause: float = 0.0) -> None:
        while not until.is_set():
            status = 0
            with suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(content)
                await asyncio.sleep(pause)
                if rest:
                    writer.write(rest)
                    status, _ = await asyncio.wait_for(answer(reader), PATIENCE)
                writer.close()
            key = f"{name} {status or 'no answer'}"
            seen[key] = seen.get(key, 0) + 1
            await asyncio.sleep(0.05)

    whole = request(image)
    await asyncio.gather(
        bad("malformed", request(b"\x89PNG\r\n\x1a\n" + os.urandom(200))[:50], request(os.urandom(400))[50:]),
        bad(
            "huge",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
            os.urandom(1 << 16),
        ),
        bad("slow", whole[:200], whole[200:], 2.0),
        bad("truncated", whole[: len(whole) // 2], pause=0.02),
    )
    return seen


async def beside_bad(
    port: int, process: int, images: list[bytes], given: argparse.Namespace, areas: list[float]
) -> Any:
    """The usual clients while others misbehave."""
    end = asyncio.Event()
    bad = asyncio.create_task(bad_clients(port, images[0], end))
    count = max(1, given.requests // 5)
    found = await part(port, process, images, given.clients, count, given.limit, areas)
    end.set()
    return {**found, "bad_clients_saw": await bad}


def main() -> None:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--limit", type=float, default=240.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    few = max(1, given.requests // 10)

    with tempfile.TemporaryDirectory() as room:
        run, images = make(Path(room), given.size)
        record: dict[str, Any] = {
            "size": given.size,
            "cores": len(os.sched_getaffinity(0)),
            "load_before": os.getloadavg()[0],
        }
        with server(run) as with_batches, server(run, "--batch-size", "1") as alone:
            process, port = with_batches
            areas = asyncio.run(references(port, images))

            def measured(one: tuple[int, int], clients: int, requests: int) -> dict[str, Any]:
                return asyncio.run(part(one[1], one[0], images, clients, requests, given.limit, areas))

            record["one"] = measured(with_batches, 1, few)
            record["many"] = measured(with_batches, given.clients, given.requests)
            record["beside bad clients"] = asyncio.run(beside_bad(port, process, images, given, areas))
            rounds = [
                [measured(one, given.clients, max(2, given.requests // 50)) for one in (with_batches, alone)]
                for _ in range(ROUNDS)
            ]
            names = ("in turns, with batches", "in turns, without")
            record |= {
                name: middle(found) for name, found in zip(names, zip(*rounds, strict=True), strict=True)
            }
    record["load_after"] = os.getloadavg()[0]
    text = json.dumps(record, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
