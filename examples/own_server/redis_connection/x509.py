"""What Python's ssl module does not tell of a certificate.

It tells nothing of one that was not verified, nor whether a CA is the end of its chain.
"""

import datetime
import ipaddress
from typing import Any, NamedTuple

SUBJECT_KEY_IDENTIFIER = b"\x55\x1d\x0e"  # 2.5.29.14
AUTHORITY_KEY_IDENTIFIER = b"\x55\x1d\x23"  # 2.5.29.35
SUBJECT_ALT_NAME = b"\x55\x1d\x11"  # 2.5.29.17
PARTS_OF_NAMES = {b"\x55\x04\x03": "commonName", b"\x55\x04\x0a": "organizationName"}
HOSTS = DNS, ADDRESS = 0x82, 0x87  # tags of the names of hosts
RSA_PSS = bytes.fromhex("2a864886f70d01010a")  # 1.2.840.113549.1.1.10


class Certificate(NamedTuple):
    """Parts of a certificate (RFC 5280, 4.1 and 4.2.1), as DER without tag and length."""

    number: bytes
    issuer: bytes  # its name
    validity: bytes
    subject: bytes
    signature: bytes  # the OID of how it was signed
    key: bytes
    extensions: dict[bytes, bytes]  # {OID: value}


def names_itself_as_issuer(der: bytes) -> bool:
    """Whether its key and number are those that it names as its issuer's; names are not compared.

    OpenSSL asks the same before it calls a certificate self-signed, and tries the signature only of
    those. ValueError or IndexError if it cannot be read.
    """
    own = read(der)
    subject = first(own.extensions.get(SUBJECT_KEY_IDENTIFIER, b"\x04\x00"))
    # Each of three parts may be missing: the key of the issuer, the name of its own, its number.
    issuer = dict(elements(first(own.extensions.get(AUTHORITY_KEY_IDENTIFIER, b"\x30\x00"))))
    names = dict(elements(issuer.get(0xA1, b"")))
    return (
        makes(first(first(own.key)), own.signature)
        and issuer.get(0x80, subject) == subject
        and (not names or first(names.get(0xA4, b"\x30\x00")) == own.issuer)
        and issuer.get(0x82, own.number) == own.number
    )


def public_key_of(der: bytes) -> bytes:
    """Its key, with the kind of it. ValueError or IndexError if it cannot be read."""
    return read(der).key


def makes(key: bytes, signature: bytes) -> bool:
    """Whether a key of this kind makes such signatures; both are OIDs."""
    if key == RSA_PSS:  # which makes no other ones, while any RSA key makes these
        return signature == RSA_PSS
    # What both have in common: RSA, EC, DSA or Ed25519.
    return signature[:5] == key[:5]


def read(der: bytes) -> Certificate:
    parts = elements(first(first(der)))
    if parts[0][0] == 0xA0:  # the version
        del parts[0]
    number, signature, issuer, validity, subject, key = (content for _, content in parts[:6])
    extensions = {}
    for tag, content in parts[6:]:
        if tag == 0xA3:
            for _, extension in elements(first(content)):
                (_, identifier), *_, (_, value) = elements(extension)
                extensions[identifier] = value
    return Certificate(number, issuer, validity, subject, first(signature), key, extensions)


def fields_of(der: bytes) -> dict[str, Any]:
    """Some fields of a certificate, as `SSLSocket.getpeercert()` has them; {} if it cannot be read.

    Of the names of its subject and issuer those that people are shown; the names of hosts; its end.
    """
    try:
        found = read(der)
        hosts = elements(first(found.extensions.get(SUBJECT_ALT_NAME, b"\x30\x00")))
        return {
            "subject": name_of(found.subject),
            "issuer": name_of(found.issuer),
            "notAfter": time_of(*elements(found.validity)[1]),
            "subjectAltName": tuple(host_of(tag, name) for tag, name in hosts if tag in HOSTS),
        }
    except (ValueError, IndexError):
        return {}


def name_of(der: bytes) -> tuple[tuple[tuple[str, str], ...], ...]:
    parts = (elements(first(part)) for _, part in elements(der))
    return tuple(
        ((PARTS_OF_NAMES[kind], text.decode(errors="replace")),)
        for (_, kind), (_, text) in parts
        if kind in PARTS_OF_NAMES
    )


def time_of(tag: int, text: bytes) -> str:
    year = "%y" if tag == 0x17 else "%Y"
    moment = datetime.datetime.strptime(text.decode(), f"{year}%m%d%H%M%SZ")
    return f"{moment:%b} {moment.day:2} {moment:%H:%M:%S %Y} GMT"


def host_of(tag: int, name: bytes) -> tuple[str, str]:
    if tag == DNS:
        return "DNS", name.decode()
    return "IP Address", str(ipaddress.ip_address(name))


def first(der: bytes) -> bytes:
    """The content of the first element."""
    return elements(der)[0][1]


def elements(der: bytes) -> list[tuple[int, bytes]]:
    """[(tag, content)] of all elements that stand one after the other."""
    found = []
    while der:
        size, start = der[1], 2
        if size > 0x7F:  # then it is the number of bytes that have the size
            start += size - 0x80
            size = int.from_bytes(der[2:start])
        found.append((der[0], der[start : start + size]))
        der = der[start + size :]
    return found
