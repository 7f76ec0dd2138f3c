"""Certificates and keys from the environment, as files: redis-py reads no other form."""

import atexit
import functools
import os
import ssl
import tempfile
from pathlib import Path

from .environment import Refused


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


def check(ca_certs: str, certfile: str, keyfile: str):
    """Refuse files that are missing or wrong: Celery would retry for ever and not name them."""
    if bool(certfile) != bool(keyfile):
        raise Refused("REDIS_CLIENT_CERT and REDIS_CLIENT_KEY go together: set both or neither.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    given = f"REDIS_CA_CERTS ({ca_certs[:200].splitlines()[0]})" if ca_certs else ""
    try:
        if ca_certs:
            context.load_verify_locations(ca_certs)
        given = "REDIS_CLIENT_CERT with REDIS_CLIENT_KEY"
        if certfile:
            context.load_cert_chain(certfile, keyfile, password="")
    except ssl.SSLError as error:
        raise Refused(f"{given} is not usable PEM: {error.reason or 'damaged'}.") from None
    except OSError as error:
        raise Refused(f"{given} is neither PEM text nor a file: {error.strerror}.") from None
