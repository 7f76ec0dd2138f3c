"""REDIS_CA_CERTS, REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, judged before anything connects.

Celery would try for ever to connect with a file that is missing or wrong, and would not name it.
Where the host name is not checked, the certificates in REDIS_CA_CERTS are pins: they alone are
trusted, in place of the host name.
"""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from . import context, pem
from .errors import InvalidSetting

USUAL_ENDINGS = (".pem", ".crt", ".cer", ".key")
# An encrypted key says so in its first line or, in the older form, in the line `Proc-Type:
# 4,ENCRYPTED` below it.
ENCRYPTED = re.compile("BEGIN ENCRYPTED|4,ENCRYPTED")


@dataclass(frozen=True)
class PEMFile:
    """What one variable gives: a path or the text of a PEM file."""

    variable: str
    given: str = field(repr=False)
    text: str = field(repr=False)

    def __str__(self) -> str:
        """How messages name it: by its variable and, where the value looks like one, its path."""
        return label(self.variable, self.given)


def label(variable: str, given: str) -> str:
    """The variable, and in brackets the path that it holds.

    What only might be a path is not shown: it could be a key that lacks its first line.
    """
    if pem.is_text(given) or not given.isprintable():
        return variable
    if given.endswith(USUAL_ENDINGS) or exists(given):
        return f"{variable} ({given})"
    return variable


def exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # as of a name that is too long for one
        return False


def read_certificates(variable: str, given: str) -> PEMFile:
    """Certificates that can be used. Raises InvalidSetting."""
    file = read(variable, given, pem.CERTIFICATE, "certificate")
    try:
        # OpenSSL alone would not do: it takes the certificates before a damaged one, and says
        # nothing of that one.
        pem.certificates_in(file.text)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=file.text)
    except (ssl.SSLError, ValueError) as error:
        raise unusable(str(file), error, file) from None
    return file


def read_client_certificate(certificate: str, key: str) -> tuple[PEMFile, PEMFile]:
    """A client certificate and the key that belongs to it. Raises InvalidSetting."""
    if not certificate or not key:
        raise InvalidSetting(
            "REDIS_CLIENT_CERT and REDIS_CLIENT_KEY go together: set both or neither."
        )
    certfile = read("REDIS_CLIENT_CERT", certificate, pem.CERTIFICATE, "certificate")
    keyfile = read("REDIS_CLIENT_KEY", key, pem.PRIVATE_KEY, "private key")
    trust = context.Trust(certfile=certificate, keyfile=key)
    try:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_client_certificate(tls, trust)
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise InvalidSetting(
                f"{keyfile} is not the key of {certfile}: give the two of one pair."
            ) from None
        raise unusable(f"{certfile} with {keyfile}", error, certfile, keyfile) from None
    return certfile, keyfile


def read(variable: str, given: str, wanted: re.Pattern[str], kind: str) -> PEMFile:
    """The file, if it holds something that looks like what is wanted. Raises InvalidSetting."""
    try:
        text = pem.text_of(given)
    except OSError as error:
        raise InvalidSetting(
            f"{label(variable, given)} cannot be read: {error.strerror}. Give the path of a PEM"
            " file, or its text."
        ) from None
    file = PEMFile(variable, given, text)
    if ENCRYPTED.search(text):
        raise InvalidSetting(f"{file} is encrypted: give the key that `openssl pkey` makes of it.")
    if not wanted.search(text):
        raise InvalidSetting(f"{file} holds no {kind} in PEM form, with its BEGIN and END lines.")
    return file


def unusable(what: str, error: Exception, *files: PEMFile) -> InvalidSetting:
    """The refusal of files, with OpenSSL's reason. No part of a file is shown."""
    for file in files:
        if len(file.text.strip().splitlines()) == 1:
            return InvalidSetting(
                f"{file} has lost its line ends: keep them, or write \\n in place of each."
            )
    reason = getattr(error, "reason", None) or "damaged PEM"
    words = reason.lower().replace("_", " ")
    return InvalidSetting(f"{what} cannot be used ({words}): copy it again, whole.")


def check_pins(ca_certs: PEMFile) -> None:
    """Raise InvalidSetting unless the certificates can stand in for the host name."""
    try:
        context.pins_in(ca_certs.text)
    except context.NoPin as error:
        # The error says what is there, as in "holds a public CA".
        raise InvalidSetting(
            f"{ca_certs.variable} {error}, which signs for anybody: where the host name is not"
            " checked, give the server's own certificate or a CA of your own."
        ) from None
