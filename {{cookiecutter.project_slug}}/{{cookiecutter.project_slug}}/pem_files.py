"""Certificates and keys from the environment, as files: redis-py reads no other form."""

import atexit
import functools
import os
import re
import ssl
import tempfile
from pathlib import Path

from .environment import Environment, Refused

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
KEY = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----")
# Nothing else is shown in a message: it could be a key without its first line.
PATH = re.compile(r"(/|[\w/~-]*\.)[\w./~-]{,200}")


@functools.cache
def path_of(text: str) -> str:
    """A path, given a path or PEM text (with real or literal `\\n`)."""
    text = text.replace("\\n", "\n")
    if "-----BEGIN" not in text:
        return text
    descriptor, path = tempfile.mkstemp(suffix=".pem")  # readable by this user alone
    with open(descriptor, "w", encoding="ascii", errors="replace") as file:
        file.write(text + "\n")
    owner = os.getpid()
    # Forked workers use the file too, so only the process that made it may remove it.
    atexit.register(lambda: os.getpid() == owner and Path(path).unlink(missing_ok=True))
    return path


def certificates_of(path: str) -> set[bytes]:
    """The certificates in the file, as DER."""
    text = Path(path).read_text(encoding="ascii", errors="replace")
    return {ssl.PEM_cert_to_DER_cert(pem) for pem in CERTIFICATE.findall(text)}


def hold_a_public_ca(path: str) -> bool:
    """Whether one of the certificates is a CA that the system trusts anyway."""
    system = ssl.create_default_context().get_ca_certs(binary_form=True)
    return not certificates_of(path).isdisjoint(system)


def from_environment(env: Environment) -> tuple[str, str, str]:
    """Paths of CA, client certificate and key ("" if not given), or Refused.

    Celery would retry with a missing or wrong file for ever, and not name it.
    """
    if bool(env.text("REDIS_CLIENT_CERT")) != bool(env.text("REDIS_CLIENT_KEY")):
        raise Refused("REDIS_CLIENT_CERT and REDIS_CLIENT_KEY go together: set both or neither.")
    ca_certs = _file(env, "REDIS_CA_CERTS", CERTIFICATE, "certificate")
    certfile = _file(env, "REDIS_CLIENT_CERT", CERTIFICATE, "certificate")
    keyfile = _file(env, "REDIS_CLIENT_KEY", KEY, "private key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    names = "REDIS_CA_CERTS"
    try:
        if ca_certs:
            context.load_verify_locations(ca_certs)
        names = "REDIS_CLIENT_CERT with REDIS_CLIENT_KEY"
        if certfile:
            context.load_cert_chain(certfile, keyfile, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = "REDIS_CLIENT_KEY is not the key of REDIS_CLIENT_CERT: give the two of one pair."
            raise Refused(text) from None
        reason = (error.reason or "damaged PEM").lower().replace("_", " ")
        raise Refused(f"{names} cannot be used ({reason}): copy it again, whole.") from None
    return ca_certs, certfile, keyfile


def _file(env: Environment, name: str, wanted: re.Pattern, kind: str) -> str:
    path = path_of(given := env.text(name))
    if not path:
        return ""
    shown = f"{name} ({given})" if PATH.fullmatch(given) else name
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError(0, "it is no file")  # reading a pipe or a device may never end
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise Refused(
            f"{shown} cannot be read: {error.strerror}. Give the path of a PEM file, or its text."
        ) from None
    if re.search("BEGIN ENCRYPTED|4,ENCRYPTED", text):
        raise Refused(f"{shown} is encrypted: give the key that `openssl pkey` makes of it.")
    if not wanted.search(text):
        raise Refused(f"{shown} holds no {kind} in PEM form, with its BEGIN and END lines.")
    return path
