"""The doctor's reader of unverified certificates, compared with another reader."""

import datetime
import ipaddress
import ssl
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from harness.answers import SERVICE
from harness.pin_chains import Chains


@pytest.fixture(scope="module")
def ours():
    """The module redis_connection.x509 of the unrendered service."""
    sys.path.insert(0, str(SERVICE))
    try:
        from redis_connection import x509 as ours
    finally:
        sys.path.remove(str(SERVICE))
    yield ours
    # Other tests import a changed module by this name.
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis_connection"]:
        del sys.modules[name]


def expected(der):
    """Return what `cryptography` reads, in the form that ssl uses."""
    found = x509.load_der_x509_certificate(der)
    shown = {NameOID.COMMON_NAME: "commonName", NameOID.ORGANIZATION_NAME: "organizationName"}
    end = found.not_valid_after_utc
    try:
        names = found.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        names = ()
    kinds = {x509.DNSName: "DNS", x509.IPAddress: "IP Address"}
    return {
        **{
            which: tuple(
                ((shown[part.oid], part.value),)
                for part in getattr(found, which)
                if part.oid in shown
            )
            for which in ("subject", "issuer")
        },
        "notAfter": end.timestamp(),
        "subjectAltName": tuple(
            (kinds[type(name)], str(name.value)) for name in names if type(name) in kinds
        ),
    }


def read(ours, der):
    found = ours.fields_of(der)
    return found | {"notAfter": ssl.cert_time_to_seconds(found["notAfter"])}


def certificate(names, hosts, days):
    """Return a certificate (DER) with these parts of its name, these hosts and this last day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in names])
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    end = now + datetime.timedelta(days=days)
    builder = builder.not_valid_before(end - datetime.timedelta(days=1)).not_valid_after(end)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_all_chains_of_the_pins_are_read_as_others_read_them(ours):
    chains = Chains()
    pems = {cert.pem for chain in chains.servers.values() for cert in chain}
    assert len(pems) > 50
    for pem in pems:
        der = ssl.PEM_cert_to_DER_cert(pem)
        assert read(ours, der) == expected(der)


@pytest.mark.parametrize("days", [-3000, 3, 20_000], ids=["expired", "soon", "after 2050"])
@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (x509.DNSName("redis.example.com"), x509.DNSName("*.example.com")),
        (x509.IPAddress(ipaddress.ip_address("10.0.0.1")),),
        (x509.IPAddress(ipaddress.ip_address("fd00::1")), x509.RFC822Name("a@example.com")),
    ],
    ids=["no names", "hosts", "IPv4", "IPv6 and e-mail"],
)
def test_names_and_ends(ours, hosts, days):
    names = [
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.ORGANIZATION_NAME, "Größe GmbH"),
        (NameOID.COMMON_NAME, "redis"),
    ]
    der = certificate(names, hosts, days)
    assert read(ours, der) == expected(der)


def test_what_is_no_certificate_has_no_fields(ours):
    whole = certificate([(NameOID.COMMON_NAME, "redis")], (), 3)
    for length in range(0, len(whole), 7):
        assert ours.fields_of(whole[:length]) in ({}, ours.fields_of(whole))
    assert ours.fields_of(b"") == ours.fields_of(b"\x30") == ours.fields_of(b"text") == {}
