"""A TLS front for a plain server: it shows a certificate, passes bytes on, and counts them."""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import ssl
import threading
import warnings
from typing import Any

HANDSHAKE_TIMEOUT = 10  # seconds


@dataclasses.dataclass
class Seen:
    """What one connection did. TLS begins with b"\\x16"; `received` counts decrypted bytes.

    On a plain port `received` counts what is not part of a TLS handshake, and `plain` counts all.
    """

    first_byte: bytes = b""
    tls: str = ""
    refusal: str = ""
    received: int = 0
    plain: bytes = b""


class TLSFront:
    """Listens on loopback, in a thread of its own; a context manager.

    `upstream` is a (host, port) pair or the path of a Unix socket. `chain` and `key` are PEM files;
    without them the port is plain. With `client_ca`, a PEM file too, clients must show a
    certificate of that CA. With `outdated` it speaks TLS 1.1 and nothing newer.
    """

    def __init__(self, upstream, chain=None, key=None, *, port=0, client_ca=None, outdated=False):
        self._upstream = upstream
        self._context: Any = None
        if chain:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(chain, key)
        if client_ca:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        if outdated:
            only_tls_1_1(self._context)
        self.port = port
        self.connections = []

    @property
    def handshakes(self):
        """The number of connections whose TLS handshake both sides completed."""
        return sum(bool(seen.tls) for seen in self.connections)

    @property
    def application_bytes(self):
        """The number of bytes that clients sent after a handshake, where a password would be."""
        return sum(seen.received for seen in self.connections)

    def report(self):
        """Return the counts and every connection, as JSON types."""
        return {
            "handshakes": self.handshakes,
            "application_bytes": self.application_bytes,
            "connections": [
                dataclasses.asdict(seen)
                | {"first_byte": seen.first_byte.hex(), "plain": seen.plain.hex()}
                for seen in self.connections
            ],
        }

    def start(self):
        """Listen, then serve until `stop()`."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="tls-front", daemon=True)
        self._thread.start()
        return self

    def stop(self):
        """Close every connection and the port."""
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join(10)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _run(self):
        self._accepting = self._loop.create_task(self._accept())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)
        self._loop.close()
        self._listener.close()

    async def _accept(self):
        serving = set()
        try:
            while True:
                sock, _ = await self._loop.sock_accept(self._listener)
                task = self._loop.create_task(self._serve(sock))
                serving.add(task)
                task.add_done_callback(serving.discard)
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, sock):
        seen = Seen()
        self.connections.append(seen)
        with sock:
            sock.setblocking(False)
            await self._talk(sock, seen)

    async def _talk(self, sock, seen):
        client = _Plain(self._loop, sock, seen)
        try:
            await self._readable(sock)
            seen.first_byte = sock.recv(1, socket.MSG_PEEK)
            if self._context:
                client = _Encrypted(self._loop, sock, seen, self._context)
                await asyncio.wait_for(client.shake_hands(), HANDSHAKE_TIMEOUT)
            upstream = await self._connect()
        except OSError as error:
            seen.refusal = str(error) or type(error).__name__
            await client.hear_out()
            return
        with upstream:
            server = _Peer(self._loop, upstream)
            ways = [
                self._loop.create_task(self._pass_on(client, server)),
                self._loop.create_task(self._pass_on(server, client)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _readable(self, sock):
        ready = self._loop.create_future()

        def note():
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(sock, note)
        try:
            await ready
        finally:
            self._loop.remove_reader(sock)

    async def _connect(self):
        by_port = isinstance(self._upstream, tuple)
        with contextlib.ExitStack() as opened:
            sock = socket.socket(socket.AF_INET if by_port else socket.AF_UNIX)
            opened.enter_context(sock)
            sock.setblocking(False)
            await self._loop.sock_connect(sock, self._upstream if by_port else str(self._upstream))
            opened.pop_all()
        return sock

    async def _pass_on(self, source, target):
        with contextlib.suppress(OSError):
            while data := await source.read():
                await target.write(data)


class _Peer:
    """One side of a connection."""

    def __init__(self, loop, sock):
        self._loop = loop
        self._sock = sock

    async def read(self):
        return await self._loop.sock_recv(self._sock, 65536)

    async def write(self, data):
        await self._loop.sock_sendall(self._sock, data)


class _Plain(_Peer):
    """A client whose bytes are passed on as they are."""

    def __init__(self, loop, sock, seen):
        super().__init__(loop, sock)
        self._seen = seen

    async def read(self):
        data = await super().read()
        self._seen.plain += data
        self._seen.received = _outside_of_handshakes(self._seen.plain)
        return data

    async def hear_out(self):
        """Read what still comes; otherwise a reset could overtake the alert with the reason."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                while await super().read():
                    continue


class _Encrypted(_Plain):
    """A client that speaks TLS, without asyncio's, which holds back a failed handshake's alert."""

    def __init__(self, loop, sock, seen, context):
        super().__init__(loop, sock, seen)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self):
        while True:
            try:
                self._tls.do_handshake()
                self._seen.tls = self._tls.version()
                return
            except ssl.SSLWantReadError:
                pass
            finally:
                await super().write(self._outgoing.read())
            await self._receive()

    async def read(self):
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._receive()
            else:
                self._seen.received += len(data)
                return data

    async def write(self, data):
        self._tls.write(data)
        await super().write(self._outgoing.read())

    async def _receive(self):
        data = await _Peer.read(self)
        if not data:
            raise ConnectionResetError("the client left")
        self._incoming.write(data)


def only_tls_1_1(context):
    """Make an ssl.SSLContext speak only TLS 1.1, which was retired in 2021."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")


def _outside_of_handshakes(data):
    """Return how many bytes are not part of a TLS handshake or alert record."""
    position = 0
    while position < len(data) and data[position] in (0x15, 0x16):
        position += 5 + int.from_bytes(data[position + 3 : position + 5], "big")
    return max(0, len(data) - position)


def main():
    """Serve until SIGTERM: prints the port, and at the end the report as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream", help="HOST:PORT, or the path of a Unix socket")
    parser.add_argument("--chain", required=True, help="PEM file, leaf first")
    parser.add_argument("--key", required=True, help="PEM file")
    parser.add_argument("--client-ca", help="PEM file: ask clients for a certificate of this CA")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    upstream = options.upstream
    if not upstream.startswith("/"):
        host, _, port = upstream.rpartition(":")
        upstream = (host, int(port))
    front = TLSFront(
        upstream, options.chain, options.key, port=options.port, client_ca=options.client_ca
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with front:
        print(front.port, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    print(json.dumps(front.report()), flush=True)


if __name__ == "__main__":
    main()
