"""The refusal matrix: the kinds of bad servers, and which services meet which of them."""

from harness.answers import ROWS
from harness.policy_classes import CLASSES, STRICT

# {kind of bad server: what the log must say of it}
WRONG_CERTIFICATE = {
    "another CA": "unable to get local issuer certificate",
    "self-signed": "self-signed certificate",
    "wrong host": "certificate is not valid for 'localhost'",
    # Where the certificate is pinned, the host is not compared, and the pin refuses it.
    "public CA, another host": (
        "certificate is not valid for 'localhost'"
        "|the server's certificate was not issued by REDIS_CA_CERTS"
    ),
    "expired": "certificate has expired",
    "not yet valid": "certificate is not yet valid",
}
NO_SECURE_CONNECTION = {
    "TLS 1.1 only": "PROTOCOL_VERSION",
    # One of three things comes first: Redis answers in plain text, hangs up, or waits for more.
    "plain port": "WRONG_VERSION_NUMBER|EOF occurred|reset by peer|closed|[Tt]ime",
    "no client certificate": "CERTIFICATE_REQUIRED",
}
KINDS = WRONG_CERTIFICATE | NO_SECURE_CONNECTION

# The connections that a bad server sees at least: of the worker, of .delay(), of /readyz.
TRIES = 3


def public(row):
    """Return whether a public CA signs the right certificate; for plain rows, if TLS comes."""
    return row["ca"] in ("system", "none")


def accepted(row):
    """Return the kinds that this row accepts, because it does not compare the host name.

    The pinned CA or certificate says which server is the right one, whatever its name.
    """
    return () if row["check_hostname"] else ("wrong host",)


def refused(row):
    """Return the kinds that a verifying service of this row refuses."""
    left_out = set(accepted(row))
    if public(row):
        # The right CA is a public one, so "public CA, another host" is the same certificate.
        left_out.add("wrong host")
    return [kind for kind in KINDS if kind not in left_out]


def met(kinds):
    """Return [(class, strictness, row, kind)] of those who meet a server of each of these kinds.

    `kinds` is a function of a row, such as `refused`. Only services that verify are among them.
    """
    return [
        (name, strictness, provider, kind)
        for name, each in CLASSES.items()
        for strictness, provider in each.met_by.items()
        if strictness in STRICT
        for kind in kinds(ROWS[provider])
    ]
