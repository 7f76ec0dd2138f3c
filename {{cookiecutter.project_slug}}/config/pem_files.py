"""Certificates and keys from the environment: paths of PEM files, or PEM text."""

import re
import ssl
from pathlib import Path

from redis_connection import context, pem

from .environment import Environment, Refused


def check_pins(ca_certs: str):
    """Refused unless REDIS_CA_CERTS can stand in for the host name."""
    try:
        context.pins_in(pem.text_of(ca_certs))
    except context.NoPin as error:
        raise Refused(
            f"REDIS_CA_CERTS {error}, which signs for anybody: where the host name is not checked,"
            " give the server's own certificate or a CA of your own."
        ) from None


def from_environment(env: Environment) -> tuple[str, str, str]:
    """CA, client certificate and key, each as a path or as PEM text ("" if not given), or Refused.

    Celery would retry with a missing or wrong file for ever, and not name it.
    """
    ca_certs, ca = _file(env, "REDIS_CA_CERTS", pem.CERTIFICATE, "certificate")
    certfile, cert = _file(env, "REDIS_CLIENT_CERT", pem.CERTIFICATE, "certificate")
    keyfile, key = _file(env, "REDIS_CLIENT_KEY", pem.KEY, "private key")
    if bool(certfile) != bool(keyfile):
        raise Refused("REDIS_CLIENT_CERT and REDIS_CLIENT_KEY go together: set both or neither.")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    shown = ca
    try:
        if ca_certs:
            text = pem.text_of(ca_certs)
            pem.certificates_in(text)
            tls.load_verify_locations(cadata=text)
        shown = f"{cert} with {key}"
        if certfile:
            trust = context.Trust(certfile=certfile, keyfile=keyfile)
            context.load_client_certificate(tls, trust)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Refused(f"{key} is not the key of {cert}: give the two of one pair.") from None
        reason = (error.reason or "damaged PEM").lower().replace("_", " ")
        raise Refused(f"{shown} cannot be used ({reason}): copy it again, whole.") from None
    except ValueError:
        raise Refused(f"{shown} cannot be used (damaged PEM): copy it again, whole.") from None
    return ca_certs, certfile, keyfile


def _file(env: Environment, name: str, wanted: re.Pattern, kind: str) -> tuple[str, str]:
    """The path or text ("" if not given), and the variable as messages show it."""
    given = env.text(name).strip("\"'")  # `docker run --env-file` keeps quotes
    if not given:
        return "", name
    if pem.is_text(given):
        shown, text = name, pem.text_of(given)
    else:
        # Anything else could be a key without its first line.
        known = given.endswith((".pem", ".crt", ".cer", ".key")) or Path(given).exists()
        shown = f"{name} ({given})" if known and given.isprintable() else name
        try:
            text = pem.text_of(given)
        except OSError as error:
            raise Refused(
                f"{shown} cannot be read: {error.strerror}. Give the path of a PEM file, or its"
                " text."
            ) from None
    if re.search("BEGIN ENCRYPTED|4,ENCRYPTED", text):
        raise Refused(f"{shown} is encrypted: give the key that `openssl pkey` makes of it.")
    if not wanted.search(text):
        raise Refused(f"{shown} holds no {kind} in PEM form, with its BEGIN and END lines.")
    return given, shown
