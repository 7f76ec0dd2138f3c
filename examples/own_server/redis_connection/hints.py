"""What the error texts of redis-py, kombu, OpenSSL and Redis mean, and what to do about them."""

import re
from typing import NamedTuple


class Hint(NamedTuple):
    """What to do (`text`) about an error whose text matches `pattern`, in upper or lower case."""

    pattern: str
    text: str


# Hints that follow from what was seen, not from an error's text

UNVERIFIED = (
    "Set REDIS_CERT_REQS=required. Unless a public CA issued the certificate, set REDIS_CA_CERTS"
    " as well, to what `manage.py doctor --certificate` prints."
)
PLAINTEXT = "Use a rediss:// URL and unset REDIS_ALLOW_PLAINTEXT."
HOST = (
    "Correct the host in the URL. If it is a private name, it is known only inside the network of"
    " its provider."
)
NAME_SERVER = "The name server did not answer: try again, and look at this machine's network."
TLS = "The port speaks TLS: use rediss://."
NOT_TLS = (
    "The port does not speak TLS: use the server's TLS port or, inside a private network, redis://."
)
FULL = (
    "The server ends every connection at once. Either it has none left (close some clients, or"
    " take a larger plan), or its allow list lacks this machine, or nothing runs behind its load"
    " balancer."
)
CA_EXPIRED = (
    "A CA has expired, either in REDIS_CA_CERTS or among the certificates that the server sends:"
    " renew it there."
)
EXPIRED = "Renew the server's certificate."
CONNECTIONS = "Close some clients, use fewer connections, or take a larger plan."
ENDED = "The server ended the connection. Is it restarting? Its log tells more."
UNKNOWN = (
    "This is not one of the known causes: read the text, the log of the server, and settings.py."
)

COMPARE = (
    "compare your server's certificate with the one that `manage.py doctor --certificate` prints."
)

# The first hint whose pattern is found counts, so what is special stands before what is general:
# - "self-signed certificate in" (a chain whose root is unknown) before "self-signed certificate"
#   (of the server itself),
# - the alerts of TLS that are known by name before "_CERTIFICATE", the end of many more,
# - a SELECT that is refused before any "unknown command",
# - a server without a password before "AuthenticationError", the class of that error in redis-py,
# - what only says that nothing more came (time-outs, "closed by") at the end: the same text may
#   hold a reason, too.
HINTS = (
    # Certificates
    Hint(
        "not issued by REDIS_CA_CERTS|self-signed certificate in",
        (
            "REDIS_CA_CERTS must hold the CA that signed this certificate. If it does, another"
            f" server answers: {COMPARE}"
        ),
    ),
    Hint(
        "self-signed certificate",
        (
            "Set REDIS_CA_CERTS to what `manage.py doctor --certificate` prints. If it is set"
            " already, the server has a new certificate or another server answers: compare the"
            " fingerprints first."
        ),
    ),
    Hint(
        "local issuer",
        (
            "Set REDIS_CA_CERTS to the CA of this certificate. If it is a public CA, install"
            " ca-certificates instead. If the CA is there, the server does not send the CA between"
            f" it and the certificate, or another server answers: {COMPARE}"
        ),
    ),
    Hint(
        "certificate is not valid for",
        "Use one of the host names that `manage.py doctor --certificate` prints.",
    ),
    Hint(
        "certificate has expired",
        EXPIRED,
    ),
    Hint(
        "certificate purpose",
        "Issue the server a certificate for servers (serverAuth).",
    ),
    Hint(
        "not yet valid",
        "Compare the clock of this machine with the clock of the server.",
    ),
    # Alerts that a server sends
    Hint(
        "PROTOCOL_VERSION",
        "The server speaks only TLS 1.1 or older: switch TLS 1.2 on there.",
    ),
    Hint(
        "CERTIFICATE_REQUIRED",
        "The server asks for REDIS_CLIENT_CERT and REDIS_CLIENT_KEY: set them.",
    ),
    Hint(
        "HANDSHAKE_FAILURE",
        (
            "Either the server asks for REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or it has no cipher"
            " in common with this machine."
        ),
    ),
    Hint(
        "UNKNOWN_CA",
        "The server does not know the CA of REDIS_CLIENT_CERT.",
    ),
    Hint(
        "CERTIFICATE_EXPIRED",
        "Renew the certificate in REDIS_CLIENT_CERT.",
    ),
    Hint(
        "_CERTIFICATE",
        (
            "The server refuses REDIS_CLIENT_CERT. Is it a certificate for clients (clientAuth),"
            " and not revoked?"
        ),
    ),
    Hint(
        "No such file",
        "The file of REDIS_CA_CERTS, REDIS_CLIENT_CERT or REDIS_CLIENT_KEY is gone: restore it.",
    ),
    # What Redis, or what stands in its place, answers
    Hint(
        "Protocol Error",
        "What answers there is not Redis: correct the host and the port.",
    ),
    Hint(
        "DB index|command .SELECT|SELECT is not",
        "End the URL in /0, the database that every server has.",
    ),
    Hint(
        "unknown command|is not available",
        (
            "The service needs Redis 6 or newer, with every command that the ACL in docs/redis.md"
            " names."
        ),
    ),
    Hint(
        "protected mode",
        (
            "Give Redis a password (requirepass, or an ACL user with `user default off`). Without"
            " a password it serves only its own machine."
        ),
    ),
    Hint(
        "no password is set|any password",
        "The server has no password: set one there, or remove it from the URL.",
    ),
    Hint(
        "allowlist",
        "Add this machine's address to the allow list in your provider's console.",
    ),
    Hint(
        "AuthenticationError",
        "Put the right USER:PASSWORD@, percent-encoded, before the URL's host.",
    ),
    Hint(
        "no permissions",
        "Allow this command to the user in the URL: docs/redis.md has the ACL that is needed.",
    ),
    # Clusters
    Hint(
        "same slot",
        (
            "Put the braces back into REDIS_PREFIX in settings.py: in a cluster they keep all keys"
            " in one slot."
        ),
    ),
    Hint(
        "MovedError",
        "Celery cannot use a cluster of several shards: take a Redis without cluster mode.",
    ),
    Hint(
        "ClusterDown",
        "The cluster is not complete: look at it in your provider's console.",
    ),
    # States of a server
    Hint(
        "max number of clients|exceeded",
        CONNECTIONS,
    ),
    Hint(
        "loading the dataset",
        "The server has just started and is reading its data: wait.",
    ),
    Hint(
        "MISCONF",
        (
            "The server cannot save its data, and takes no task until it can: look at its disk and"
            " its log."
        ),
    ),
    Hint(
        "used memory >",
        "The memory is full, and no task is taken: free some, or take a larger plan.",
    ),
    Hint(
        "read only replica|MasterDownError",
        "This server is a replica: use the host of the primary.",
    ),
    Hint(
        "not enough good replicas",
        "The server takes no write until enough of its replicas are well: look at them.",
    ),
    # The network
    Hint(
        "connection refused",
        "Nothing listens there: start Redis, or correct the host and the port.",
    ),
    Hint(
        "No route|unreachable",
        (
            "No route leads there from this machine. Is the host in a private network, or reachable"
            " by IPv6 only?"
        ),
    ),
    Hint(
        "timed out|timeout",
        (
            "Nobody answered in time: look at the host, the port, the firewall, the allow list and"
            " the load of the server."
        ),
    ),
    Hint(
        "closed by",
        ENDED,
    ),
)


def hint_for(text: str) -> str:
    """What to do about an error text; empty if the text is not known."""
    for hint in HINTS:
        if re.search(hint.pattern, text, re.IGNORECASE):
            return hint.text
    return ""


def hint_for_error(error: Exception) -> str:
    """What to do about an error; UNKNOWN if it is not known."""
    # redis-py strips the code of some errors (MOVED, CLUSTERDOWN) off their text. Only the name of
    # the class tells it then.
    return hint_for(f"{type(error).__name__} {error}") or UNKNOWN
