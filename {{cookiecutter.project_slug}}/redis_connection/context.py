"""The SSL context of a connection: it trusts what its policy trusts, and nothing else.

OpenSSL then refuses a wrong server inside the handshake, before anything is sent. A context is made
once and shared by all connections: making one reads the system's CAs, which takes 17 ms of CPU.
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

from . import pem, x509

logger = logging.getLogger(__name__)

NOT_ISSUED = "the server's certificate was not issued by REDIS_CA_CERTS"

# OpenSSL's numbers (openssl/x509_vfy.h), for which the ssl module has no names.
CHECK_SELF_SIGNED = 0x4000  # X509_V_FLAG_CHECK_SS_SIGNATURE
# X509_V_ERR_*: no issuer was found, or the end of the chain is not trusted, or did not sign itself.
# Not a server's own self-signed certificate (18), of which OpenSSL says so in plain words.
UNTRUSTED = (2, 7, 19, 20, 21)

# Where distributions keep the CAs of the system. Python itself may look elsewhere, or nowhere.
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
    """Whom a connection believes, and how it shows who it is. Each file: a path, or PEM text."""

    cert_reqs: str = "required"  # or optional, or none
    check_hostname: bool = True
    ca_certs: str = field(default="", repr=False)
    certfile: str = field(default="", repr=False)
    keyfile: str = field(default="", repr=False)

    @property
    def verified(self) -> bool:
        return self.cert_reqs != "none"

    @property
    def pinned(self) -> bool:
        """Whether nothing but REDIS_CA_CERTS is trusted, for it stands in for the host name."""
        return self.verified and not self.check_hostname


# For a server that no policy names: the CAs of the system, and the host name.
SYSTEM = Trust()


def make_context(trust: Trust) -> ssl.SSLContext:
    """A new context. OSError (ssl.SSLError, too) or ValueError if a file cannot be used."""
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
        # The certificate of the server may be given, too.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A CA that a plain `openssl req` has made lacks what the strict rules ask for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def trusting_the_pins(trust: Trust) -> ssl.SSLContext:
    """REDIS_CA_CERTS and no other CA, whatever the server's host name."""
    # Unlike create_default_context() it begins with no CA at all, and without the strict rules.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    pins = pins_in(pem.text_of(trust.ca_certs))
    context.load_verify_locations(cadata=b"".join(pins))
    context.verify_flags |= CHECK_SELF_SIGNED
    if not all(cas_among(pins).values()):
        # One is the certificate of a server. Where all are CAs, a chain has to end in a root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def load_client_certificate(context: ssl.SSLContext, trust: Trust):
    certificate, key = pem.text_of(trust.certfile), pem.text_of(trust.keyfile)
    with pem.readable(certificate) as certfile, pem.readable(key) as keyfile:
        context.load_cert_chain(certfile, keyfile, password="")


_contexts: dict[Trust, tuple[ssl.SSLContext, tuple]] = {}
_unreadable: dict[Trust, tuple] = {}  # the state of the files that was complained of


def context_of(trust: Trust) -> ssl.SSLContext:
    """The context, made anew if a file has changed: a renewed CA counts from the next connection.

    A file that cannot be used any more is logged once, and what it held stays trusted. OSError if
    there is no context yet.
    """
    now = state_of_files(trust)
    context, before = _contexts.get(trust, (None, None))
    if context and (before == now or _unreadable.get(trust) == now):
        return context
    try:
        # Two threads may both make one. A lock here could be held for ever in a forked process.
        made = make_context(trust)
    except (OSError, ValueError) as error:
        if context is None:
            raise
        _unreadable[trust] = now
        text = "a certificate or key has changed and cannot be used, the old one stays: %s"
        logger.error(text, error)
        return context
    _contexts[trust] = made, now
    return made


def state_of_files(trust: Trust) -> tuple:
    """What differs after any of the files was changed or replaced."""
    return tuple(
        state_of(given)
        for given in (trust.ca_certs, trust.certfile, trust.keyfile)
        if given and not pem.is_text(given)
    )


def state_of(path: str) -> tuple | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def wrap(trust: Trust, sock, host: str) -> ssl.SSLSocket:
    """The socket after the handshake; OSError if the server is not trusted."""
    try:
        return context_of(trust).wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        name_the_pin(trust, error)
        raise


def name_the_pin(trust: Trust, error: ssl.SSLCertVerificationError):
    """Say in OpenSSL's error which variable it is about."""
    if trust.pinned and error.verify_code in UNTRUSTED:
        error.strerror = f"{error.strerror}: {NOT_ISSUED}"
        error.args = (error.args[0], error.strerror)


# Pins: certificates that are trusted in place of the host name


class NoPin(ValueError):
    """None of the certificates can stand in for the host name, or one of them signs for anybody."""


def pins_in(text: str) -> list[bytes]:
    """The certificates (DER) of the PEM text that are pins: those of servers, and of root CAs.

    A CA between root and server is none. It often comes along with the server's certificate, and
    may sign for anybody. NoPin if none is left, or if one is a public CA.
    """
    found = cas_among(pem.certificates_in(text))
    pins = [der for der, ca in found.items() if ca is None or is_root(der, ca)]
    if not pins:
        raise NoPin("holds a CA between root and server only")
    keys = {x509.public_key_of(der) for der in pins if found[der]}
    if keys and not keys_of_the_system():
        raise NoPin("holds a CA, and no list of public CAs is on this machine to compare it with")
    if keys & keys_of_the_system():
        raise NoPin("holds a public CA")
    return pins


def cas_among(certificates: list[bytes]) -> dict[bytes, dict | None]:
    """{DER: the fields of a CA as in SSLSocket.getpeercert(), or None if it is no CA}."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for der in certificates:
        context.load_verify_locations(cadata=der)
    # Both lists have the CAs only, in one order.
    cas = dict(zip(context.get_ca_certs(True), context.get_ca_certs(), strict=True))
    return {der: cas.get(der) for der in certificates}


def is_root(der: bytes, fields: dict) -> bool:
    """Whether the CA names itself as its issuer.

    That it also has signed itself, OpenSSL tries in the handshake (CHECK_SELF_SIGNED).
    """
    try:
        return fields["subject"] == fields["issuer"] and x509.names_itself_as_issuer(der)
    except (ValueError, IndexError):
        return False


@functools.cache
def keys_of_the_system() -> set[bytes]:
    """The keys of all CAs that a client on this machine could trust; empty if no list is found.

    Not their certificates: a CA may be issued anew, with the same key.
    """
    paths = ssl.get_default_verify_paths()
    files = {paths.cafile, paths.openssl_cafile, *FILES_OF_CAS} - {None, ""}
    # Not paths.capath, which is None where there are several.
    given = os.environ.get(paths.openssl_capath_env, "").split(os.pathsep)
    folders = {"/etc/ssl/certs", paths.openssl_capath, *given}
    candidates = [Path(file) for file in files]
    for folder in filter(None, folders):
        candidates += entries_of(Path(folder))
    found = {x509.public_key_of(der) for der in ssl.create_default_context().get_ca_certs(True)}
    return found.union(*map(keys_in_file, filter(Path.is_file, candidates)))


def entries_of(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


# OpenSSL's own form has more behind the certificate: for which purposes it is trusted.
IN_STORES = re.compile("-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----(.+?)-----END", re.DOTALL)


def keys_in_file(file: Path) -> set[bytes]:
    """The key of each certificate that is not damaged, in any form that OpenSSL reads."""
    found = set()
    with contextlib.suppress(OSError):
        for encoded in IN_STORES.findall(file.read_text("ascii", "replace")):
            with contextlib.suppress(ValueError, IndexError):
                found.add(x509.public_key_of(base64.b64decode(encoded)))
    return found
