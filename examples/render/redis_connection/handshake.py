"""A TLS handshake with a server, to look at: without Redis, and without a password."""

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from typing import Any

from . import context, x509
from .policy import Policy

TIMEOUT = 5  # seconds for connecting, and for each answer of the server
SECONDS_A_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class ServerCertificate:
    """The certificate that a server shows, whether it was verified or not.

    `fields` are as in `SSLSocket.getpeercert()`, and empty if they cannot be read.
    """

    der: bytes
    fields: dict[str, Any]

    def __str__(self) -> str:
        """Whose certificate it is, who issued it, and until when it is valid."""
        if not self.fields:
            return "a certificate whose fields cannot be read"
        subject = name_in(self.fields["subject"])
        issuer = name_in(self.fields["issuer"])
        return printable(f"subject {subject}, issuer {issuer}, expires {self.fields['notAfter']}")

    @property
    def days_left(self) -> float:
        """Days until it expires; minus infinity if its end cannot be read."""
        if not self.fields:
            return -inf
        end = ssl.cert_time_to_seconds(self.fields["notAfter"])
        return (end - time.time()) / SECONDS_A_DAY

    @property
    def hosts(self) -> list[str]:
        """The host names and addresses for which it is valid."""
        return [printable(name) for _, name in self.fields.get("subjectAltName", ())]

    @property
    def fingerprint(self) -> str:
        """SHA-256, as OpenSSL writes it."""
        return sha256(self.der).digest().hex(":").upper()

    @property
    def pem(self) -> str:
        return ssl.DER_cert_to_PEM_cert(self.der).strip()


@dataclass(frozen=True)
class Handshake:
    version: str
    cipher: str
    certificate: ServerCertificate


def shake_hands(policy: Policy, listen: float = 0) -> Handshake:
    """Open a TLS connection as the policy asks, and end it in good order.

    With `listen`, wait so many seconds for what the server says after the handshake: in TLS 1.3 it
    refuses a client's certificate only then. Raises OSError if there is no connection or if it is
    not trusted, and ValueError if a certificate of the policy cannot be used.
    """
    with (
        open_socket(policy.host, policy.port) as sock,
        context.wrap(policy.trust, sock, policy.host) as tls,
    ):
        certificate = certificate_of(tls)
        handshake = Handshake(tls.version() or "", cipher_of(tls), certificate)
        if listen:
            tls.settimeout(listen)
            with suppress(TimeoutError):
                tls.recv(1)
        end_in_good_order(tls)
    return handshake


def open_socket(host: str, port: int, timeout: float = TIMEOUT) -> socket.socket:
    return socket.create_connection((host, port), timeout)


def certificate_of(tls: ssl.SSLSocket) -> ServerCertificate:
    der = tls.getpeercert(binary_form=True) or b""
    # Python reads no fields of a certificate that it has not verified.
    return ServerCertificate(der, tls.getpeercert() or x509.fields_of(der))


def cipher_of(tls: ssl.SSLSocket) -> str:
    name, _, _ = tls.cipher() or ("", "", 0)
    return name


def end_in_good_order(sock: socket.socket) -> None:
    """Say that nothing follows, and read what is left.

    Servers count a connection that is reset as an error.
    """
    with suppress(OSError):
        sock.settimeout(1)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1024):
            pass


def name_in(parts: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """The name that people know a certificate's subject or issuer by; "-" if it has none."""
    names = dict(part[0] for part in parts)
    return names.get("commonName") or names.get("organizationName") or "-"


def printable(text: str) -> str:
    """The text without control characters.

    The text comes from a certificate that anybody may have made. By control characters its author
    could overwrite what a terminal shows.
    """
    return "".join(character for character in text if character.isprintable())
