"""What Python's ssl module does not tell of a certificate: whether it is the end of a chain."""

from typing import NamedTuple

SUBJECT_KEY_IDENTIFIER = b"\x55\x1d\x0e"  # 2.5.29.14
AUTHORITY_KEY_IDENTIFIER = b"\x55\x1d\x23"  # 2.5.29.35
RSA_PSS = bytes.fromhex("2a864886f70d01010a")  # 1.2.840.113549.1.1.10


class Certificate(NamedTuple):
    """Parts of a certificate (RFC 5280, 4.1 and 4.2.1), as DER without tag and length."""

    number: bytes
    issuer: bytes  # its name
    signature: bytes  # the OID of how it was signed
    key: bytes  # the OID of the kind of its key
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
        makes(own.key, own.signature)
        and issuer.get(0x80, subject) == subject
        and (not names or first(names.get(0xA4, b"\x30\x00")) == own.issuer)
        and issuer.get(0x82, own.number) == own.number
    )


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
    (_, number), (_, signature), (_, issuer), _, _, (_, key), *rest = parts
    extensions = {}
    for tag, content in rest:
        if tag == 0xA3:
            for _, extension in elements(first(content)):
                (_, identifier), *_, (_, value) = elements(extension)
                extensions[identifier] = value
    return Certificate(number, issuer, first(signature), first(first(key)), extensions)


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


def without_what_follows(der: bytes) -> bytes:
    """The first element, with its tag and length."""
    content = first(der)
    return der[: der.index(content) + len(content)]
