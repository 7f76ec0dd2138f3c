"""The SSL context of a connection: it trusts what its policy trusts, and nothing else.

So OpenSSL refuses a wrong server inside the handshake, before anything is sent. A context is made
once for each policy and shared by all connections. To make one reads the CAs of the system, which
takes 17 ms of CPU (D-20).
"""

import base64
import contextlib
import functools
import logging
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any

from . import pem, x509

logger = logging.getLogger(__name__)

NOT_ISSUED = "the server's certificate was not issued by REDIS_CA_CERTS"

# A flag of OpenSSL for which the ssl module has no name: X509_V_FLAG_CHECK_SS_SIGNATURE.
CHECK_SELF_SIGNED = 0x4000
# Numbers of OpenSSL's errors (openssl/x509_vfy.h), for which the ssl module has no names either: no
# issuer was found, or the end of the chain is not trusted, or it did not sign itself. A server's
# own self-signed certificate (18) is not among them, since OpenSSL says that in plain words.
UNTRUSTED = (2, 7, 19, 20, 21)

# Where distributions keep the CAs of the system. Python itself may look elsewhere, or nowhere.
# pins_in() needs all of them, to tell a public CA from one of your own.
FILES_OF_CAS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL, Amazon Linux
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, Alpine
    "/opt/homebrew/etc/openssl@3/cert.pem",
    "/usr/local/etc/openssl@3/cert.pem",
)


@dataclass(frozen=True)
class Trust:
    """Whom a connection believes, and how it shows who it is.

    `cert_reqs` is required, optional or none. Each of the files is a path, or PEM text, or empty.
    """

    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str = field(default="", repr=False)
    certfile: str = field(default="", repr=False)
    keyfile: str = field(default="", repr=False)

    @property
    def verified(self) -> bool:
        return self.cert_reqs != "none"

    @property
    def pinned(self) -> bool:
        """Whether nothing but `ca_certs` is trusted, in place of the host name."""
        return self.verified and not self.check_hostname


# For a server that no policy names: the CAs of the system, and the host name.
SYSTEM = Trust()


def make_context(trust: Trust) -> ssl.SSLContext:
    """A new context. Raises OSError (of which ssl.SSLError is one) or ValueError for a bad file."""
    context = trusting_the_pins(trust) if trust.pinned else trusting_the_system(trust)
    context.verify_mode = ssl.VerifyMode[f"CERT_{trust.cert_reqs.upper()}"]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.certfile:
        load_client_certificate(context, trust)
    return context


def trusting_the_system(trust: Trust) -> ssl.SSLContext:
    """The CAs of the system and, beside them, those in REDIS_CA_CERTS."""
    context = ssl.create_default_context()
    context.check_hostname = trust.verified
    if trust.verified and trust.ca_certs:
        context.load_verify_locations(cadata=pem.text_of(trust.ca_certs))
        # The certificate of the server itself may be given, without the CA that signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A CA that a plain `openssl req` has made lacks what the strict rules ask for (D-23).
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def trusting_the_pins(trust: Trust) -> ssl.SSLContext:
    """REDIS_CA_CERTS and no other CA, whatever the server's host name."""
    # Unlike create_default_context(), this begins with no CA at all, and without the strict rules.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    pins = pins_in(pem.text_of(trust.ca_certs))
    context.load_verify_locations(cadata=b"".join(pins))
    context.verify_flags |= CHECK_SELF_SIGNED
    if not all(cas_among(pins).values()):
        # One of the pins is the certificate of a server. If all were CAs, a chain would have to
        # end in one of them.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def load_client_certificate(context: ssl.SSLContext, trust: Trust) -> None:
    certificate, key = pem.text_of(trust.certfile), pem.text_of(trust.keyfile)
    with pem.readable(certificate) as certfile, pem.readable(key) as keyfile:
        context.load_cert_chain(certfile, keyfile, password="")


# What differs after a file was changed or replaced; None for a file that is not there.
FileState = tuple[int, int, int] | None


@dataclass(frozen=True)
class Made:
    """A context, and the state that the files were in when it was made."""

    context: ssl.SSLContext
    files: tuple[FileState, ...]


contexts: dict[Trust, Made] = {}
# The states of files that could not be used, so that each is logged once.
unusable: dict[Trust, tuple[FileState, ...]] = {}


def context_of(trust: Trust) -> ssl.SSLContext:
    """The context of this process, made anew if a file has changed.

    So a renewed CA counts from the next connection on. If the new file cannot be used, that is
    logged once, and what the old one held stays trusted. Raises OSError or ValueError if there is
    no context yet.
    """
    files = state_of_files(trust)
    made = contexts.get(trust)
    if made and (made.files == files or unusable.get(trust) == files):
        return made.context
    try:
        # Two threads may both make one. A lock here could be held for ever in a forked process.
        context = make_context(trust)
    except (OSError, ValueError) as error:
        if made is None:
            raise
        unusable[trust] = files
        logger.error(
            "a certificate or key has changed and cannot be used, the old one stays: %s", error
        )
        return made.context
    contexts[trust] = Made(context, files)
    return context


def state_of_files(trust: Trust) -> tuple[FileState, ...]:
    states = []
    for given in (trust.ca_certs, trust.certfile, trust.keyfile):
        if given and not pem.is_text(given):
            states.append(state_of(given))
    return tuple(states)


def state_of(path: str) -> FileState:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def wrap(trust: Trust, sock: socket, host: str) -> ssl.SSLSocket:
    """The socket after the handshake. Raises OSError if the server is not trusted."""
    try:
        return context_of(trust).wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        name_the_pin(trust, error)
        raise


def name_the_pin(trust: Trust, error: ssl.SSLCertVerificationError) -> None:
    """Say in OpenSSL's error which variable it is about."""
    if trust.pinned and error.verify_code in UNTRUSTED:
        error.strerror = f"{error.strerror}: {NOT_ISSUED}"
        error.args = (error.args[0], error.strerror)


# Pins: certificates that are trusted in place of the host name


class NoPin(ValueError):
    """A text without a certificate that can stand in for the host name, or with a public CA."""


def pins_in(text: str) -> list[bytes]:
    """The certificates (DER) of the PEM text that are pins: those of servers, and of root CAs.

    A CA between root and server is not a pin. It often comes along with the certificate of a
    server, and may sign for anybody (D-19). Raises NoPin if nothing else is there, or if a pin is a
    public CA.
    """
    pins = []
    keys_of_cas = set()
    for der, fields_of_ca in cas_among(pem.certificates_in(text)).items():
        if fields_of_ca is None:
            pins.append(der)
        elif is_root(der, fields_of_ca):
            pins.append(der)
            keys_of_cas.add(x509.public_key_of(der))
    if not pins:
        raise NoPin("holds a CA between root and server only")
    if keys_of_cas and not keys_of_the_system():
        raise NoPin("holds a CA, and no list of public CAs is on this machine to compare it with")
    if keys_of_cas & keys_of_the_system():
        raise NoPin("holds a public CA")
    return pins


def cas_among(certificates: list[bytes]) -> dict[bytes, dict[str, Any] | None]:
    """{DER: the fields of a CA as in SSLSocket.getpeercert(), or None if it is not a CA}."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for der in certificates:
        context.load_verify_locations(cadata=der)
    # Both lists have the CAs only, in the same order.
    cas = dict(zip(context.get_ca_certs(True), context.get_ca_certs(), strict=True))
    return {der: cas.get(der) for der in certificates}


def is_root(der: bytes, fields: dict[str, Any]) -> bool:
    """Whether the CA names itself as its issuer.

    OpenSSL tries in the handshake whether it has signed itself, too (CHECK_SELF_SIGNED).
    """
    try:
        return fields["subject"] == fields["issuer"] and x509.names_itself_as_issuer(der)
    except (ValueError, IndexError):
        return False


@functools.cache
def keys_of_the_system() -> set[bytes]:
    """The keys of all CAs that a client on this machine could trust; empty if no list is found.

    These are keys and not certificates, since a CA may be issued anew with the same key.
    """
    found = set()
    for der in ssl.create_default_context().get_ca_certs(True):
        found.add(x509.public_key_of(der))
    for file in files_of_the_system():
        if file.is_file():
            found |= keys_in_file(file)
    return found


def files_of_the_system() -> list[Path]:
    """Files in which a list of CAs may be. Not all of them exist."""
    paths = ssl.get_default_verify_paths()
    files = [*FILES_OF_CAS, paths.cafile, paths.openssl_cafile]
    # paths.capath is None where several folders are given.
    given = os.environ.get(paths.openssl_capath_env, "").split(os.pathsep)
    folders = ["/etc/ssl/certs", paths.openssl_capath, *given]
    found = [Path(file) for file in files if file]
    for folder in folders:
        if folder:
            found += entries_of(Path(folder))
    return found


def entries_of(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


# OpenSSL's own form (TRUSTED) has more behind the certificate: for which purposes it is trusted.
IN_STORES = re.compile("-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----(.+?)-----END", re.DOTALL)


def keys_in_file(file: Path) -> set[bytes]:
    """The key of each certificate that is not damaged, in any form that OpenSSL reads."""
    found = set()
    with contextlib.suppress(OSError):
        for encoded in IN_STORES.findall(file.read_text("ascii", "replace")):
            with contextlib.suppress(ValueError, IndexError):
                found.add(x509.public_key_of(base64.b64decode(encoded)))
    return found
