"""A TLS front before a plain server: shows a certificate, passes bytes on, counts what it saw."""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import ssl
import threading


@dataclasses.dataclass
class Seen:
    """What one connection did. TLS begins with b"\\x16"; `received` counts decrypted bytes."""

    first_byte: bytes = b""
    tls: str = ""
    refusal: str = ""
    received: int = 0


class TLSFront:
    """Listens on loopback, in a thread of its own; a context manager.

    `upstream` is a (host, port) pair or the path of a Unix socket. `chain` and `key` are PEM files.
    With `client_ca`, a PEM file too, clients must show a certificate of that CA.
    """

    def __init__(self, upstream, chain, key, *, port=0, client_ca=None):
        self._upstream = upstream
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(chain, key)
        if client_ca:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self.port = port
        self.connections = []

    @property
    def handshakes(self):
        """Number of connections whose TLS handshake was completed by both sides."""
        return sum(bool(seen.tls) for seen in self.connections)

    @property
    def application_bytes(self):
        """Number of bytes clients sent after a handshake: where a password would be."""
        return sum(seen.received for seen in self.connections)

    def report(self):
        """The counts and every connection, as JSON types."""
        return {
            "handshakes": self.handshakes,
            "application_bytes": self.application_bytes,
            "connections": [
                dataclasses.asdict(seen) | {"first_byte": seen.first_byte.hex()}
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
        sock.setblocking(False)
        seen = Seen()
        self.connections.append(seen)
        try:
            await self._readable(sock)
            seen.first_byte = sock.recv(1, socket.MSG_PEEK)
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._context, ssl_handshake_timeout=10
            )
        except OSError as error:
            seen.refusal = str(error) or type(error).__name__
            sock.close()
            return
        seen.tls = transport.get_extra_info("ssl_object").version()
        client = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            answers, server = await self._connect()
        except OSError as error:
            seen.refusal = f"upstream: {error}"
            transport.abort()
            return
        ways = [
            self._loop.create_task(self._pass_on(reader, server, seen)),
            self._loop.create_task(self._pass_on(answers, client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (server, client):
                writer.close()

    async def _readable(self, sock):
        ready = self._loop.create_future()
        self._loop.add_reader(sock, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            self._loop.remove_reader(sock)

    async def _connect(self):
        if isinstance(self._upstream, tuple):
            return await asyncio.open_connection(*self._upstream)
        return await asyncio.open_unix_connection(str(self._upstream))

    async def _pass_on(self, reader, writer, seen=None):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if seen is not None:
                    seen.received += len(data)
                writer.write(data)
                await writer.drain()


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
