"""Certificates and keys in PEM form: given as the path of a file, or as the text itself."""

import os
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PRIVATE_KEY = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----")

# Bytes that a pipe takes before somebody reads from it. Linux takes four times as many.
PIPE_CAPACITY = 16 * 1024


def is_text(given: str) -> bool:
    """Whether it is PEM text. Otherwise it is the path of a file."""
    return "-----BEGIN" in given


def text_of(given: str) -> str:
    r"""The PEM text, of a path or of the text itself.

    The text may have its line breaks as `\n` or `\r\n` in two or four characters, as some hosts
    store it. Raises OSError if the file cannot be read.
    """
    if is_text(given):
        return given.replace("\\r", "").replace("\\n", "\n") + "\n"
    path = Path(given)
    if path.exists() and not path.is_file():
        # To read a pipe or a device may never end.
        raise OSError(0, "it is not a file")
    return path.read_text(encoding="ascii", errors="replace")


def certificates_in(text: str) -> list[bytes]:
    """Each certificate of the text, as DER. Raises ValueError if one is damaged."""
    return [ssl.PEM_cert_to_DER_cert(certificate) for certificate in CERTIFICATE.findall(text)]


@contextmanager
def readable(text: str) -> Iterator[str]:
    """A path from which the text can be read once.

    OpenSSL takes client certificates and their keys from a path only. The text is not written to a
    disk, so a process that is killed leaves no key behind (D-21).
    """
    data = text.encode("ascii", "replace")
    try:
        descriptor = in_memory(data)
    except (AttributeError, OSError):
        # macOS has no memfd_create, and a sandbox may forbid it.
        descriptor = in_a_pipe(data)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def in_memory(data: bytes) -> int:
    """The descriptor of a file that exists in memory only."""
    descriptor = os.memfd_create("pem")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor


def in_a_pipe(data: bytes) -> int:
    """The descriptor of the end of a pipe from which the data can be read."""
    reading_end, writing_end = os.pipe()
    if len(data) <= PIPE_CAPACITY:
        fill(writing_end, data)
    else:
        # To write so much waits until somebody reads.
        threading.Thread(target=fill, args=(writing_end, data), daemon=True).start()
    return reading_end


def fill(writing_end: int, data: bytes) -> None:
    # Whoever reads may stop before the end.
    with suppress(BrokenPipeError), open(writing_end, "wb") as file:
        file.write(data)
