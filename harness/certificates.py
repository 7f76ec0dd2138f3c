"""Certificates of every kind that a client must accept or refuse, made on the spot."""

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
    """A server's certificate on disk: `chain` (PEM, leaf first) and `key` (PEM, mode 0600)."""

    chain: Path
    key: Path


class Authority:
    """A certificate authority: `pem` is the file a client trusts, `name` what issuer lines show."""

    def __init__(self, folder, name, parent=None, days=None):
        """Make a new authority, below `parent` if that is given. Its files go to `folder`.

        It is valid from the first to the second of `days`, counted from now, if they are given.
        """
        self.name = name
        self._folder = Path(folder)
        if days:
            own = self_signed(folder, name, days=days)
            self._ca = trustme.CA.from_pem(own.chain.read_bytes(), own.key.read_bytes())
        elif parent:
            self._ca = parent._ca.create_child_ca()
        else:
            self._ca = trustme.CA(organization_name=name)
        self._issued = 0
        self.pem = self._folder / f"{_file_name(name)}-ca.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(self, *hosts, expired=False, days=(-2, 30)):
        """Issue a leaf for `hosts`, names or addresses; for localhost and 127.0.0.1 by default.

        It is valid from the first to the second of `days`, counted from now.
        """
        hosts = hosts or LOCAL
        now = datetime.datetime.now(datetime.UTC)
        leaf = self._ca.issue_cert(
            *hosts,
            common_name=hosts[0],
            not_before=now + datetime.timedelta(days=days[0]),
            not_after=now + datetime.timedelta(days=-1 if expired else days[1]),
        )
        self._issued += 1
        stem = f"{_file_name(self.name)}-{self._issued}"
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return _write(self._folder, stem, chain, leaf.private_key_pem.bytes())

    def issue_nameless(self, common_name, purpose=None):
        """Issue a leaf that has a CN and no other name, as Google Memorystore's. It fits no host.

        With `purpose`, an ExtendedKeyUsageOID, the certificate may be used for that only.
        """
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        ca_key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if purpose:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        leaf = builder.sign(ca_key, hashes.SHA256())
        stem = f"{_file_name(self.name)}-{_file_name(common_name)}"
        return _write(self._folder, stem, _pem(leaf), _key_pem(key))


def self_signed(folder, common_name, *hosts, days=(-1, 30), extensions=True):
    """Make a certificate that signs itself. Without `hosts` it has a CN only, as Heroku's has.

    It has the `extensions` of `openssl req -x509`, or none at all, and is valid from the first to
    the second of `days`, counted from now.
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
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
    )
    if extensions:
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
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
        _pem(certificate),
        _key_pem(key),
    )


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
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
