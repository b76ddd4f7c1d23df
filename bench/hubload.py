"""The load on a hub: simulated devices in a few processes, each with its certificate, credentials and heartbeats.

What a device would do at leisure is done before the clock runs: keys are made, certificates signed, TLS contexts set
up, and heartbeats signed with botocore's own SigV4. While it runs, a process writes bytes that are ready and reads the
answers, over connections that are kept, so that of the machine's cores it takes as little as Python can.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

MODELS = 4
METRICS_A_MODEL = 6
AGENT_METRICS = 10
PATIENCE_SECONDS = 30.0
HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Device:
    """A device's name and the file with its key and certificate."""

    name: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a fleet's devices call: the endpoints of one or more hub processes."""

    fleet: str
    alias: str
    region: str
    authority: str
    endpoints: tuple[str, ...]
    credentials_endpoints: tuple[str, ...]


@dataclass(slots=True)
class Fired:
    """What came of some calls: how long each took, how many failed, and what the generator itself spent."""

    latencies_ms: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    generator_cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: int) -> float:
        """Return how long the quickest so many per cent took at most."""
        if len(self.latencies_ms) < 2:
            return self.latencies_ms[0] if self.latencies_ms else float("nan")
        return quantiles(self.latencies_ms, n=100, method="inclusive")[percent - 1]

    @classmethod
    def together(cls, parts: Sequence[Fired]) -> Fired:
        """Return the sum of what several processes did at the same time."""
        return cls(
            [one for part in parts for one in part.latencies_ms],
            [one for part in parts for one in part.faults],
            max((part.seconds for part in parts), default=0.0),
            sum(part.generator_cpu_seconds for part in parts),
        )


class Generator:
    """Processes that share a fleet's devices. Each order goes to all of them at once."""

    def __init__(self, target: Target, devices: Sequence[Device], *, processes: int, connections: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, target, list(devices[number::processes]), max(1, connections // processes))
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        self._tell("ready")

    def exchange(self) -> Fired:
        """Let every device exchange its certificate for credentials, each over a connection of its own."""
        return Fired.together(self._tell("exchange"))

    def heartbeats(self, rounds: int) -> Fired:
        """Let every device send so many heartbeats, as fast as they are answered; each round is signed before it."""
        total = Fired()
        for _ in range(rounds):
            self._tell("sign")
            fired = Fired.together(self._tell("fire", 0.0))
            total.latencies_ms += fired.latencies_ms
            total.faults += fired.faults
            total.seconds += fired.seconds
            total.generator_cpu_seconds += fired.generator_cpu_seconds
        return total

    def paced(self, a_second: float, seconds: float) -> Fired:
        """Send heartbeats at a rate; a latency begins when a heartbeat was due, not when it could be sent."""
        self._tell("sign_some", int(a_second * seconds / len(self._pipes)))
        return Fired.together(self._tell("fire", a_second / len(self._pipes)))

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(("end",))
        for process in self._processes:
            process.join()

    def _tell(self, *order: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send(order)
        answers = [pipe.recv() for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers


def _work(pipe: Connection, target: Target, devices: list[Device], connections: int) -> None:
    """Do what the generator orders, in a process of its own."""
    worker = _Worker(target, devices, connections)
    while (order := pipe.recv())[0] != "end":
        try:
            pipe.send(getattr(worker, order[0])(*order[1:]))
        except Exception as error:  # noqa: BLE001 - the ordering process raises it
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


class _Worker:
    """One process's share of the fleet."""

    def __init__(self, target: Target, devices: list[Device], connections: int) -> None:
        self._target = target
        self._devices = devices
        self._connections = connections
        self._credentials: dict[str, Credentials] = {}
        self._signed: list[bytes] = []
        self._contexts: dict[str, ssl.SSLContext] = {}

    def ready(self) -> int:
        """Set up every device's TLS."""
        for device in self._devices:
            context = ssl.create_default_context(cafile=self._target.authority)
            context.load_cert_chain(device.certificate)
            self._contexts[device.name] = context
        return len(self._devices)

    def exchange(self) -> Fired:
        """See `Generator.exchange`."""
        jobs = [lambda device=device: self._exchange(device) for device in self._devices]
        return _in_threads(jobs, self._connections)

    def _exchange(self, device: Device) -> None:
        place = urlsplit(_of(self._target.credentials_endpoints, device.name))
        host, port = place.hostname or "", place.port or 443
        request = (
            f"GET /role-aliases/{self._target.alias}/credentials HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"x-amzn-iot-thingname: {device.name}\r\nConnection: close\r\n\r\n"
        )
        with (
            socket.create_connection((host, port), PATIENCE_SECONDS) as plain,
            self._contexts[device.name].wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.sendall(request.encode())
            status, body = _answer(connection)
        if status != 200:
            raise RuntimeError(f"{status} {body[:200]!r}")
        given = json.loads(body)["credentials"]
        self._credentials[device.name] = Credentials(
            given["accessKeyId"], given["secretAccessKey"], given["sessionToken"]
        )

    def sign(self) -> int:
        """Sign a heartbeat of every device."""
        self._signed = [self._heartbeat(device) for device in self._devices]
        return len(self._signed)

    def sign_some(self, number: int) -> int:
        """Sign so many heartbeats, the devices taking turns."""
        self._signed = [self._heartbeat(self._devices[turn % len(self._devices)]) for turn in range(number)]
        return len(self._signed)

    def _heartbeat(self, device: Device) -> bytes:
        """Return a heartbeat's bytes as boto3 would send them."""
        endpoint = self._target.endpoints[0]
        now = time.time()
        metrics = [
            {"MetricName": f"Metric-{number}", "Value": number + 0.5, "Timestamp": now}
            for number in range(max(METRICS_A_MODEL, AGENT_METRICS))
        ]
        body = json.dumps(
            {
                "AgentMetrics": metrics[:AGENT_METRICS],
                "Models": [
                    {
                        "ModelName": f"model-{number}",
                        "ModelVersion": "1.0",
                        "LatestSampleTime": now,
                        "LatestInference": now,
                        "ModelMetrics": metrics[:METRICS_A_MODEL],
                    }
                    for number in range(MODELS)
                ],
                "AgentVersion": "1.0",
                "DeviceName": device.name,
                "DeviceFleetName": self._target.fleet,
            }
        ).encode()
        headers = {
            "Host": urlsplit(endpoint).netloc,
            "Content-Type": "application/json",
            "amz-sdk-invocation-id": str(uuid.uuid4()),
            "amz-sdk-request": "attempt=1",
        }
        request = AWSRequest("POST", f"{endpoint}/SendHeartbeat", headers, body)
        SigV4Auth(self._credentials[device.name], "sagemaker", self._target.region).add_auth(request)
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        head = "\r\n".join(["POST /SendHeartbeat HTTP/1.1", *lines, f"Content-Length: {len(body)}"])
        return head.encode() + HEADER_END + body

    def fire(self, a_second: float) -> Fired:
        """Send what is signed, over connections that are kept: as fast as answered, or at a rate."""
        lanes = [self._signed[number :: self._connections] for number in range(self._connections)]
        hubs = self._target.endpoints
        endpoints = [urlsplit(hubs[number % len(hubs)]) for number in range(len(lanes))]
        gap = self._connections / a_second if a_second else 0.0
        total = Fired()
        opened = [socket.create_connection((one.hostname or "", one.port or 80), PATIENCE_SECONDS) for one in endpoints]
        cpu, began = time.process_time(), time.perf_counter()
        threads = [
            threading.Thread(target=_fire, args=(lane, connection, began + gap * number / len(lanes), gap, total))
            for number, (lane, connection) in enumerate(zip(lanes, opened, strict=True))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total.seconds = time.perf_counter() - began
        total.generator_cpu_seconds = time.process_time() - cpu
        for connection in opened:
            connection.close()
        return total


def _fire(lane: Sequence[bytes], connection: socket.socket, due: float, gap: float, total: Fired) -> None:
    for request in lane:
        if gap:
            time.sleep(max(0.0, due - time.perf_counter()))
        else:
            due = time.perf_counter()
        try:
            connection.sendall(request)
            status, body = _answer(connection)
        except OSError as error:
            total.faults.append(str(error))
            return
        total.latencies_ms.append((time.perf_counter() - due) * 1000)
        if status != 200:
            total.faults.append(f"{status} {body[:200]!r}")
        due += gap


def _in_threads(jobs: Sequence[Callable[[], None]], threads: int) -> Fired:
    """Do jobs in threads, and time each."""
    total, left, lock = Fired(), list(reversed(jobs)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not left:
                    return
                job = left.pop()
            started = time.perf_counter()
            try:
                job()
            except (OSError, RuntimeError, ValueError) as error:
                total.faults.append(f"{type(error).__name__}: {error}")
            else:
                total.latencies_ms.append((time.perf_counter() - started) * 1000)

    cpu, began = time.process_time(), time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total.seconds = time.perf_counter() - began
    total.generator_cpu_seconds = time.process_time() - cpu
    return total


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer: its status and body."""
    read = bytearray()
    while (end := read.find(HEADER_END)) < 0:
        read += _some(connection)
    head = bytes(read[:end]).decode("latin-1")
    length = next(
        int(line.split(":", 1)[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:")
    )
    start = end + len(HEADER_END)
    while len(read) < start + length:
        read += _some(connection)
    return int(head.split(" ", 2)[1]), bytes(read[start : start + length])


def _some(connection: socket.socket) -> bytes:
    read = connection.recv(65536)
    if not read:
        raise ConnectionError("the hub closed the connection")
    return read


def _of(places: Sequence[str], name: str) -> str:
    """Spread devices over the hub's processes, each always to the same one."""
    return places[sum(name.encode()) % len(places)]


def cores() -> int:
    """Return how many cores the generator and the hub share."""
    return len(os.sched_getaffinity(0))
