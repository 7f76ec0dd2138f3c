"""Certificates and keys in PEM form: given as the path of a file, or as its text."""

import os
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PIPE = 16 * 1024  # bytes that a pipe takes before somebody reads; on Linux four times as many
KEY = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----")


def is_text(given: str) -> bool:
    return "-----BEGIN" in given


def text_of(given: str) -> str:
    r"""The PEM text, given a path or the text itself (with real or literal `\n` or `\r\n`).

    Raises OSError if the file cannot be read.
    """
    if is_text(given):
        return given.replace("\\r", "").replace("\\n", "\n") + "\n"
    path = Path(given)
    if path.exists() and not path.is_file():
        raise OSError(0, "it is no file")  # reading a pipe or a device may never end
    return path.read_text(encoding="ascii", errors="replace")


def certificates_in(text: str) -> list[bytes]:
    """Each certificate of the text, as DER; ValueError if one is damaged."""
    return [ssl.PEM_cert_to_DER_cert(pem) for pem in CERTIFICATE.findall(text)]


@contextmanager
def readable(text: str) -> Iterator[str]:
    """A path to read the text from once. No file is made, so none can be left behind.

    OpenSSL takes certificates of clients and their keys from a path only.
    """
    data = text.encode("ascii", "replace")
    try:
        descriptor = in_memory(data)
    except (AttributeError, OSError):  # macOS has no such thing, and a sandbox may forbid it
        descriptor = in_a_pipe(data)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def in_memory(data: bytes) -> int:
    descriptor = os.memfd_create("pem")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor


def in_a_pipe(data: bytes) -> int:
    descriptor, end = os.pipe()
    if len(data) <= PIPE:
        fill(end, data)
    else:
        threading.Thread(target=fill, args=(end, data), daemon=True).start()
    return descriptor


def fill(end: int, data: bytes):
    with suppress(BrokenPipeError), open(end, "wb") as file:  # whoever reads may stop before
        file.write(data)
