"""A credentials endpoint with real TLS on the loopback, which asks for a device's certificate and answers as told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from lightkeeper.providers.base import DeviceCertificate
from tests.support.certificates import AUTHORITY, BEGIN, END, SERVER, Holder, Shape, make

PATH = "/role-aliases/SageMakerEdge-yard/credentials"
JOIN_SECONDS = 30.0
NAMES = (
    x509.DNSName("localhost"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.IPAddress(ip_address("::1")),
)

Answer = Callable[[str], Iterable[bytes]]
"""Takes the request's first line, and gives what goes over the connection."""


def answered(
    body: bytes | None = None,
    *,
    status: int = 200,
    date: datetime | None = None,
    dated: bool = True,
    life: float = 3600,
) -> Answer:
    """Return what gives one answer: credentials where nothing else is said."""
    if body is None:
        expiration = datetime.now(UTC) + timedelta(seconds=life)
        given = {"accessKeyId": "AK", "secretAccessKey": "secret-word", "sessionToken": "token-word"}
        body = json.dumps({"credentials": given | {"expiration": f"{expiration:%FT%TZ}"}}).encode()
    said = f"Date: {format_datetime(date or datetime.now(UTC), usegmt=True)}\r\n" if dated else ""
    head = f"HTTP/1.1 {status} Said\r\n{said}Content-Length: {len(body)}\r\n\r\n"
    return lambda _: [head.encode() + body]


def served_by(authority: Holder, *names: x509.GeneralName, begin: datetime = BEGIN, end: datetime = END) -> Holder:
    """Make a server's certificate."""
    extras = ((x509.SubjectAlternativeName(names or NAMES), False),)
    return make("endpoint", authority, Shape(extended=(SERVER,), extras=extras, begin=begin, end=end))


class Endpoint:
    """The endpoint, the authority that it and its devices are of, and the files of one device."""

    def __init__(
        self,
        folder: Path,
        answer: Answer | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        authority: Holder | None = None,
        server: Holder | None = None,
    ) -> None:
        self.folder = folder
        self.authority = authority or make("hub", None, AUTHORITY)
        self.answer = answer or answered()
        self.requests: list[str] = []
        self.headers: list[str] = []
        self.faults: list[str] = []
        self.ca = self._written("ca.pem", self.authority.pem)
        served = server or served_by(self.authority)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as servers are that are not Python's
        self._tls.load_cert_chain(self._written("server.pem", served.key_pem + served.pem))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.port = int(self._listener.getsockname()[1])
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._open: list[socket.socket] = []
        self._ending = False
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def device(
        self, shape: Shape | None = None, *, issuer: Holder | None = None, address: str = "", ca: Path | None = None
    ) -> DeviceCertificate:
        """Make a device's certificate, and return its files with this endpoint, or with another address."""
        held = make("cam-1", issuer or self.authority, shape or Shape())
        certificate, key = self._written("device.pem", held.pem), self._written("device.key", held.key_pem)
        return DeviceCertificate(f"https://{address or self.address}{PATH}", ca or self.ca, certificate, key)

    def _written(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def _start(self, work: Callable[..., None], *given: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=given, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._ending:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(connection, server_side=True) as made:
                self._open.append(made)
                head = b""
                while b"\r\n\r\n" not in head and (data := made.recv(4096)):
                    head += data
                first, _, rest = head.decode().partition("\r\n")
                if not first:
                    return
                self.requests.append(first)
                self.headers.append(rest)
                for piece in self.answer(first):
                    made.sendall(piece)
        except OSError as error:
            self.faults.append(str(error))

    def close(self) -> None:
        """End every connection and thread."""
        self._ending = True
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        for one in (self._listener, *self._open):
            one.close()


class Tunnel:
    """A proxy that knows CONNECT alone, and what it was asked for."""

    def __init__(self, port: int, *, refusing: bool = False) -> None:
        self.asked: list[str] = []
        self._port = port
        self._refusing = refusing
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def _start(self, work: Callable[..., None], *given: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=given, daemon=True))
        self._threads[-1].start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                head = b""
                while b"\r\n\r\n" not in head and (data := client.recv(4096)):
                    head += data
                self.asked.append(head.decode())
                if self._refusing:
                    client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open.append(server)
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._start(_pass, client, server)
                self._start(_pass, server, client)

    def close(self) -> None:
        """End every connection and thread."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        for one in self._open:
            one.close()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(16384):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def closed_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Service:
    """A service of the cloud with real TLS: it answers what the test says, by path, and keeps what it was asked."""

    def __init__(self, folder: Path, authority: Holder) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, Mapping[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.asked.append((self.path, dict(self.headers), body))
                status, answer = service.answers.get(self.path, (200, b"{}"))
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if answer.startswith(b"<") else "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served = served_by(authority)
        (folder / "service.pem").write_bytes(served.key_pem + served.pem)
        tls.load_cert_chain(folder / "service.pem")
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join(JOIN_SECONDS)
        self._server.server_close()
