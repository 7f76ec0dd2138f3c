"""The bad servers of the refusal matrix, and what a service is told of them."""

from tests.support.certificates import self_signed
from tests.support.refusals import pinned_itself, public
from tests.support.tls_front import TLSFront

DAYS = {"expired": (-3, -1), "not yet valid": (1, 30)}
HEROKU = "ec2-1-2-3-4.compute-1.amazonaws.com"


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
