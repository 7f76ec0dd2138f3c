"""Certificates of every kind a client must accept or refuse, made on the spot."""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """A leaf on disk: `chain` (PEM, leaf first) and its `key` (PEM, readable by the owner only)."""

    chain: Path
    key: Path


class Authority:
    """A certificate authority: `pem` is the file a client trusts, `name` what issuer lines show."""

    def __init__(self, folder, name):
        """Make a new one; its files go to `folder`, which must exist."""
        self.name = name
        self._folder = Path(folder)
        self._ca = trustme.CA(organization_name=name)
        self._issued = 0
        self.pem = self._folder / f"{_file_name(name)}-ca.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(self, *hosts, expired=False):
        """A leaf for `hosts` (names or addresses; localhost and 127.0.0.1 when none are given)."""
        hosts = hosts or LOCAL
        now = datetime.datetime.now(datetime.UTC)
        leaf = self._ca.issue_cert(
            *hosts,
            common_name=hosts[0],
            not_before=now - datetime.timedelta(days=2),
            not_after=now + datetime.timedelta(days=-1 if expired else 30),
        )
        self._issued += 1
        stem = f"{_file_name(self.name)}-{self._issued}"
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return _write(self._folder, stem, chain, leaf.private_key_pem.bytes())


def self_signed(folder, common_name, *hosts):
    """A certificate that is its own CA; without `hosts` it has a CN only, as Heroku's.

    It has the extensions of `openssl req -x509`, so it can also be pinned as a CA.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return _write(
        Path(folder),
        f"self-signed-{_file_name(common_name)}",
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _general_name(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _file_name(text):
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _write(folder, stem, chain, key):
    certificate = Certificate(folder / f"{stem}.pem", folder / f"{stem}.key")
    certificate.chain.write_bytes(chain)
    with open(
        certificate.key, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)
    ) as file:
        file.write(key)
    return certificate
