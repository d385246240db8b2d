"""Clients: curl to /dev/null, one that has the kernel discard what comes, wrk, one that sends HEAD, one that
looks for the first byte, and many that take nothing.

The law: a transfer that is not whole, or a request that is not answered with 200, raises
LoadFailed, and is never a figure.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from attrs import frozen
from OpenSSL import SSL

CIPHER = "TLS_AES_256_GCM_SHA384"
"""The same for all, or Go's and OpenSSL's preferences would be compared."""
_UNALIKE = Path(__file__).with_name("unalike.lua")
"""Makes each of wrk's requests another one."""
_HEADS = Path(__file__).with_name("heads.py")
_PATIENCE = 60
"""Seconds."""
_RECORD, _RECORD_MORE = 16384, 22
"""Bytes of the largest TLS record, and those around them (RFC 8446 section 5.2)."""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class LoadFailed(Exception):
    """A client did not get what it asked for."""


@frozen
class Transfer:
    bytes: int
    seconds: float
    """Of the slowest client; starting the program is not in it."""
    cpu: float
    """Of the clients: user and system seconds."""


@frozen
class Requests:
    rate: float
    """A second."""
    count: int
    p99: float
    """Milliseconds."""
    cpu: float
    """Of the client: cores."""


def pull(curl: str, url: str, size: int, clients: int, times: int, ca: Path) -> Transfer:
    """Get a blob of `size` bytes with as many curls at once, `times` times each on one connection."""
    command = [*_curl(curl, ca), *["-o", "/dev/null", url] * times]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(clients)]
    done = [_end(process) for process in running]
    lines = [[line.split() for line in output.splitlines()] for output, _ in done]
    got = sum(int(size) for client in lines for size, _ in client)
    _whole(got, size * clients * times, url)
    return Transfer(got, max(sum(float(took) for _, took in client) for client in lines), sum(cpu for _, cpu in done))


def crowd(curl: str, url: str, size: int, clients: int, ca: Path) -> Transfer:
    """Get a blob over as many connections at once, all of one curl."""
    at_once = ["--parallel", "--parallel-immediate", "--parallel-max", str(clients)]
    command = [*_curl(curl, ca), *at_once, *["-o", "/dev/null", url] * clients]
    output, cpu = _end(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    lines = [line.split() for line in output.splitlines()]
    got = sum(int(size) for size, _ in lines)
    _whole(got, size * clients, url)
    return Transfer(got, max(float(took) for _, took in lines), cpu)


def drain(url: str, size: int, clients: int, ca: Path) -> Transfer:
    """Get a blob over as many connections at once and have the kernel discard it.

    What comes over TLS is not even decrypted: the server's work is the same, the client has none.
    """
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for got in pool.map(_drained, [urlsplit(url)] * clients, [size] * clients, [ca] * clients):
            _whole(min(got, size), size, url)
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return Transfer(size * clients, took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _drained(url: SplitResult, size: int, ca: Path) -> int:
    """Bytes that came: of the body, or of the TLS records with it."""
    with socket.create_connection((url.hostname, url.port)) as connection:
        # Blocking, as OpenSSL needs it, and yet not for ever.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _PATIENCE, 0))
        got = 0
        if url.scheme == "https":
            _secured(connection, ca).sendall(_request(url))
            size += -(-size // _RECORD) * _RECORD_MORE
        else:
            connection.sendall(_request(url))
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise LoadFailed(f"{url.geturl()}: {answer[:200]!r}")
            got = len(answer.partition(b"\r\n\r\n")[2])
        room = bytearray(4 << 20)
        while got < size and (count := connection.recv_into(room, 0, socket.MSG_TRUNC)):
            got += count
        return got


def _secured(connection: socket.socket, ca: Path) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_METHOD)
    context.load_verify_locations(str(ca))
    context.set_verify(SSL.VERIFY_PEER)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER.encode())
    tls = SSL.Connection(context, connection)
    tls.set_connect_state()
    tls.do_handshake()
    return tls


def small(wrk: str, url: str, seconds: int, accept: str, part: tuple[int, int] | None = None) -> Requests:
    """64 connections that are kept, one thread, no two requests the same.

    `part`: bytes of a range, and of what it is a range of; None for all of it.
    """
    started = time.monotonic()
    command = [
        wrk,
        "-t1",
        "-c64",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "--latency",
        "-s",
        str(_UNALIKE),
        "-H",
        f"Accept: {accept}",
        url,
        *([] if part is None else ["--", *map(str, part)]),
    ]
    output, cpu = _end(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return requests(output, cpu / (time.monotonic() - started))


def requests(output: str, cpu: float) -> Requests:
    """What wrk printed."""
    errors = re.search(r"Non-2xx.*|Socket errors: (?!connect 0, read 0, write 0, timeout 0).*", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    count = re.search(r"(\d+) requests in", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", output)
    if errors or rate is None or p99 is None or count is None:
        raise LoadFailed(f"wrk: {errors[0] if errors else output}")
    return Requests(float(rate[1]), int(count[1]), float(p99[1]) * _UNITS[p99[2]], cpu)


def heads(url: str, seconds: int, accept: str, ca: Path) -> Requests:
    """The same by HEAD, whose answers wrk cannot read."""
    started = time.monotonic()
    command = [sys.executable, str(_HEADS), str(seconds), str(ca), accept, url]
    output, cpu = _end(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    count, lasted, p99 = output.split()
    return Requests(int(count) / float(lasted), int(count), float(p99), cpu / (time.monotonic() - started))


def first_byte(url: str, ca: Path) -> float:
    """Seconds from the request on a new connection to the first byte of the body; then takes all the rest."""
    context = ssl.create_default_context(cafile=str(ca)) if url.startswith("https:") else None
    with _asking(url, context) as connection:
        started, seen = time.perf_counter(), b""
        while len(seen.partition(b"\r\n\r\n")[2]) == 0:
            piece = connection.recv(65536)
            if not piece:
                raise LoadFailed(f"{url}: {seen[:200]!r}")
            seen += piece
        took = time.perf_counter() - started
        if not seen.startswith(b"HTTP/1.1 200"):
            raise LoadFailed(f"{url}: {seen[:200]!r}")
        while connection.recv(1 << 20):
            pass
    return took


@contextmanager
def stalled(url: str, clients: int, ca: Path) -> Iterator[None]:
    """While this is open, as many clients have asked and take nothing."""
    context = ssl.create_default_context(cafile=str(ca)) if url.startswith("https:") else None
    with ExitStack() as all_of_them:
        for _ in range(clients):
            all_of_them.enter_context(_asking(url, context))
        yield


@contextmanager
def _asking(url: str, context: ssl.SSLContext | None = None) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE))
        if context is not None:
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=parts.hostname))
        connection.sendall(_request(parts))
        yield connection


def _request(url: SplitResult) -> bytes:
    return f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode()


def _curl(curl: str, ca: Path) -> list[str]:
    tls = ["--cacert", str(ca), "--tlsv1.3", "--tls13-ciphers", CIPHER]
    return [curl, "-q", "-sS", "--fail", "--http1.1", "--noproxy", "*", *tls, "-w", "%{size_download} %{time_total}\n"]


def _end(process: subprocess.Popen[bytes]) -> tuple[str, float]:
    """What a program printed, and the CPU seconds it took."""
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        output, errors = process.stdout.read().decode(), process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LoadFailed(f"{' '.join(map(str, _short(process.args)))}: {errors.strip()[:500]}")
    return output, used.ru_utime + used.ru_stime


def _short(command: object) -> Sequence[object]:
    return [command] if not isinstance(command, list) else [*command[:1], "…", *command[-1:]]


def _whole(got: int, wanted: int, url: str) -> None:
    if got != wanted:
        raise LoadFailed(f"{url}: {got} bytes of {wanted}")
