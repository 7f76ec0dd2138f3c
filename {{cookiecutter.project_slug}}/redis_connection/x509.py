"""What Python's ssl module does not tell of a certificate: whether it is the end of a chain."""

from typing import NamedTuple

SUBJECT_KEY_IDENTIFIER = b"\x55\x1d\x0e"  # 2.5.29.14
AUTHORITY_KEY_IDENTIFIER = b"\x55\x1d\x23"  # 2.5.29.35


class Certificate(NamedTuple):
    """Parts of a certificate (RFC 5280, 4.1 and 4.2.1), as DER without tag and length."""

    number: bytes
    signature: bytes  # the OID of how it was signed
    key: bytes  # the OID of the kind of its key
    extensions: dict[bytes, bytes]  # {OID: value}


def names_itself_as_issuer(der: bytes) -> bool:
    """Whether its key and number are those that it names as its issuer's; names are not compared.

    OpenSSL asks the same before it calls a certificate self-signed, and tries the signature only of
    those. ValueError or IndexError if it cannot be read.
    """
    own = read(der)
    if kind_of(own.signature) != kind_of(own.key):
        return False
    issuer = dict(elements(first(own.extensions.get(AUTHORITY_KEY_IDENTIFIER, b"\x30\x00"))))
    subject = first(own.extensions.get(SUBJECT_KEY_IDENTIFIER, b"\x04\x00"))
    # By the tags 0 and 2; the issuer's name has 1. Each may be missing.
    return issuer.get(0x80, subject) == subject and issuer.get(0x82, own.number) == own.number


def kind_of(identifier: bytes) -> bytes:
    """What the OIDs of a key and of its signatures have in common: RSA, EC, DSA or Ed25519."""
    return identifier[:5]


def read(der: bytes) -> Certificate:
    parts = elements(first(first(der)))
    if parts[0][0] == 0xA0:  # the version
        del parts[0]
    (_, number), (_, signature), _, _, _, (_, key), *rest = parts
    extensions = {}
    for tag, content in rest:
        if tag == 0xA3:
            for _, extension in elements(first(content)):
                (_, identifier), *_, (_, value) = elements(extension)
                extensions[identifier] = value
    return Certificate(number, first(signature), first(first(key)), extensions)


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
