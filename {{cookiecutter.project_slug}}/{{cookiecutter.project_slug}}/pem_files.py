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


@functools.cache
def path_of(text: str) -> str:
    """A path, given a path or PEM text (with real or literal `\\n` or `\\r\\n`)."""
    if "-----BEGIN" not in text:
        return text
    text = text.replace("\\r", "").replace("\\n", "\n")
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
    ca_certs, ca = _file(env, "REDIS_CA_CERTS", CERTIFICATE, "certificate")
    certfile, cert = _file(env, "REDIS_CLIENT_CERT", CERTIFICATE, "certificate")
    keyfile, key = _file(env, "REDIS_CLIENT_KEY", KEY, "private key")
    if bool(certfile) != bool(keyfile):
        raise Refused("REDIS_CLIENT_CERT and REDIS_CLIENT_KEY go together: set both or neither.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    shown = ca
    try:
        if ca_certs:
            context.load_verify_locations(ca_certs)
        shown = f"{cert} with {key}"
        if certfile:
            context.load_cert_chain(certfile, keyfile, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Refused(f"{key} is not the key of {cert}: give the two of one pair.") from None
        reason = (error.reason or "damaged PEM").lower().replace("_", " ")
        raise Refused(f"{shown} cannot be used ({reason}): copy it again, whole.") from None
    return ca_certs, certfile, keyfile


def _file(env: Environment, name: str, wanted: re.Pattern, kind: str) -> tuple[str, str]:
    """The path ("" if not given), and the variable as messages show it."""
    given = env.text(name).strip("\"'")  # `docker run --env-file` keeps quotes
    if not given:
        return "", name
    # Anything else could be a key without its first line.
    known = given.endswith((".pem", ".crt", ".cer", ".key")) or os.path.exists(given)
    shown = f"{name} ({given})" if known and given.isprintable() else name
    path = path_of(given)
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
    return path, shown
