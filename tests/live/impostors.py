"""The bad servers of the refusal matrix: what they are, and which services meet which of them."""

from tests.answers import ROWS
from tests.support.certificates import self_signed
from tests.support.tls_front import TLSFront

# {kind of bad server: what the log says of it}
WRONG_CERTIFICATE = {
    "another CA": "unable to get local issuer certificate",
    "self-signed": "self-signed certificate",
    "wrong host": "certificate is not valid for 'localhost'",
    # The host is not compared where the certificate is pinned: there the pin refuses it.
    "public CA, another host": (
        "certificate is not valid for 'localhost'"
        "|the server's certificate was not issued by REDIS_CA_CERTS"
    ),
    "expired": "certificate has expired",
    "not yet valid": "certificate is not yet valid",
}
NO_SECURE_CONNECTION = {
    "TLS 1.1 only": "PROTOCOL_VERSION",
    # Whichever comes first: Redis answers in plain text, ends the connection, or waits for more.
    "plain port": "WRONG_VERSION_NUMBER|EOF occurred|reset by peer|closed|[Tt]ime",
    "no client certificate": "CERTIFICATE_REQUIRED",
}
KINDS = WRONG_CERTIFICATE | NO_SECURE_CONNECTION

STRICT = ("required", "optional")
TRIES = 3  # connections that a bad server sees at least: of the worker, of .delay(), of /readyz
MATRIX = [(provider, strictness) for provider in ROWS for strictness in STRICT]

DAYS = {"expired": (-3, -1), "not yet valid": (1, 30)}
HEROKU = "ec2-1-2-3-4.compute-1.amazonaws.com"


def pinned_itself(row):
    """Whether REDIS_CA_CERTS holds the server's own certificate, there being no CA."""
    return row["ca"] == "self_signed"


def public(row):
    """Whether the right certificate is one of the system's CAs (plain rows: once they get TLS)."""
    return row["ca"] in ("system", "none")


def accepted(row):
    """The kinds that are no bad servers for this row, because it does not compare the host name.

    The pinned CA or certificate says which server is the right one, whatever its name.
    """
    return () if row["check_hostname"] else ("wrong host",)


def refused(row):
    """The kinds that a verifying service of this row refuses."""
    left_out = set(accepted(row))
    if public(row):
        # Its right CA is a public one: "public CA, another host" is the same certificate.
        left_out.add("wrong host")
    return [kind for kind in KINDS if kind not in left_out]


VERIFYING = "bad servers, services that verify"


def counts():
    """{what docs/security.md says was tried: how many, by the tables above}"""
    return {
        VERIFYING: sum(len(refused(ROWS[key])) for key, _ in MATRIX),
        "right servers by another name, pinned": sum(len(accepted(ROWS[key])) for key, _ in MATRIX),
        "bad certificates, `cert_strictness=none`": len(ROWS) * len(WRONG_CERTIFICATE),
        "the other kinds, `cert_strictness=none`": len(ROWS) * len(NO_SECURE_CONNECTION),
    }


def certificate(kind, row, certificates, folder):
    """What a server of this kind shows to a service of this row; its files go to `folder`."""
    if kind == "another CA":
        return certificates.stranger.issue()
    if kind == "self-signed":
        return self_signed(folder, "localhost", "localhost")
    if kind == "public CA, another host":
        return certificates.public.issue("attacker.example")
    if pinned_itself(row):
        # Never for the host in the URL; but for the days it is the right one.
        return self_signed(folder, HEROKU, days=DAYS.get(kind, (-1, 30)))
    authority = certificates.public if public(row) else certificates.own
    if kind == "wrong host":
        return authority.issue("other.example")
    return authority.issue(days=DAYS.get(kind, (-2, 30)))


def settings(kind, row, strictness, shown, certificates):
    """What makes a service verify that was rendered not to, where no CA vouches for the server.

    It pins the certificate that is `shown`, where that is a variant of the right one.
    """
    if strictness == "none" or not pinned_itself(row):
        return {}
    stranger = kind in ("another CA", "self-signed", "public CA, another host")
    pinned = certificates.herokus if stranger else shown
    return {"REDIS_CERT_REQS": strictness, "REDIS_CA_CERTS": str(pinned.chain)}


def front(kind, shown, server, certificates):
    """A server of this kind on loopback, not yet started: it passes everything on to `server`."""
    if kind == "plain port":
        return TLSFront(server.socket)
    return TLSFront(
        server.socket,
        shown.chain,
        shown.key,
        outdated=kind == "TLS 1.1 only",
        client_ca=certificates.own.pem if kind == "no client certificate" else None,
    )
