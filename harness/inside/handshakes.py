"""Run by any Python, without other packages: whom redis_connection/context.py accepts.

Its one argument is a JSON file:

    {"package": the folder that has redis_connection/,
     "host": what servers are called,
     "trusts": {name: {field of Trust: value}}, each of which is asked with each of cert_reqs,
     "servers": {name: [chain, key]},
     "cert_reqs": [...], "versions": ["TLSv1_2", ...], the newest that the server speaks,
     "over": "memory" or "sockets"}

It prints {"unreadable": {trust: why}, "accepted": {trust: {server: [ways]}}, "handshakes": number,
"bytes": what refused clients sent to servers, "refusals": {reason: number}} as JSON.
"""

import contextlib
import json
import socket
import ssl
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

PING, PONG = b"PING\r\n", b"+PONG\r\n"
PATIENCE = 20


def server_context(chain, key, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.maximum_version = ssl.TLSVersion[version]
    return context


def in_memory(client, server, host):
    """Return (why the client refused, what the server was sent); both run in one thread.

    A client that refused tries to send its line all the same, and must not be able to.
    """
    for_server, for_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(for_client, for_server, server_hostname=host)
    far = server.wrap_bio(for_server, for_client, server_side=True)
    refused = shake(near, far)
    try:
        near.write(PING)
    except ssl.SSLError:
        assert refused
    received = read_of(far)
    if not refused:
        far.write(PONG)
        assert near.read() == PONG
    return refused, received


def shake(near, far):
    """Let both sides do their handshake; return why the near side refused, or nothing."""
    for _ in range(9):
        try:
            near.do_handshake()
            return ""
        except ssl.SSLWantReadError:
            step(far)
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    raise AssertionError("the handshake does not end")


def step(far):
    with contextlib.suppress(ssl.SSLWantReadError):
        far.do_handshake()


def read_of(far):
    try:
        far.do_handshake()
        return far.read()
    except ssl.SSLError:
        return b""


def over_socket(wrap, server, host, pool):
    """Return the same over loopback, where `wrap` makes the client's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = pool.submit(serve, listener, server)
        refused: str | None = ""
        with socket.create_connection(listener.getsockname(), PATIENCE) as sock:
            try:
                with wrap(sock, host) as tls:
                    tls.sendall(PING)
                    assert tls.recv(100) == PONG
            except ssl.SSLCertVerificationError as error:
                refused = error.strerror
        return refused, served.result(PATIENCE)


def serve(listener, server):
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    try:
        with sock, server.wrap_socket(sock, server_side=True) as tls:
            received = tls.recv(100)
            if received:
                tls.sendall(PONG)
            return received
    except (ssl.SSLError, ConnectionError):
        return b""


class Matrix:
    """Every trust meets every server in every way."""

    def __init__(self, given, context, pool):
        self.given, self.context, self.pool = given, context, pool
        self.handshakes = self.bytes = 0
        self.refusals: Counter[str] = Counter()
        self.servers = {
            (name, version): server_context(chain, key, version)
            for name, (chain, key) in given["servers"].items()
            for version in given["versions"]
        }

    def meet(self, trust, server):
        if self.given["over"] == "memory":
            client = self.context.context_of(trust)
            return in_memory(client, server, self.given["host"])

        def wrap(sock, host):
            return self.context.wrap(trust, sock, host)

        return over_socket(wrap, server, self.given["host"], self.pool)

    def accepted_by(self, trusts):
        """Return {server: the ways in which it was accepted}, without servers that never were."""
        found: dict[str, list[str]] = {}
        for (name, version), server in self.servers.items():
            for cert_reqs, trust in trusts.items():
                refused, received = self.meet(trust, server)
                self.handshakes += 1
                if refused:
                    self.refusals[refused] += 1
                    self.bytes += len(received)
                else:
                    assert received == PING
                    found.setdefault(name, []).append(f"{cert_reqs} {version}")
        return found

    def report(self):
        accepted: dict[str, dict] = {}
        unreadable: dict[str, str] = {}
        for name, fields in self.given["trusts"].items():
            trusts = {
                each: self.context.Trust(cert_reqs=each, **fields)
                for each in self.given["cert_reqs"]
            }
            try:
                for trust in trusts.values():
                    self.context.context_of(trust)
            except self.context.NoPin as error:
                unreadable[name], accepted[name] = str(error), {}
            else:
                accepted[name] = self.accepted_by(trusts)
        return {
            "unreadable": unreadable,
            "accepted": accepted,
            "handshakes": self.handshakes,
            "bytes": self.bytes,
            "refusals": self.refusals,
        }


def main():
    with open(sys.argv[1]) as file:
        given = json.load(file)
    sys.path.insert(0, given["package"])
    # The package's __init__ is a docstring only, and neither of the two modules needs another.
    from redis_connection import context

    with ThreadPoolExecutor(1) as pool:
        print(json.dumps(Matrix(given, context, pool).report()))


if __name__ == "__main__":
    main()
