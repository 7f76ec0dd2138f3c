"""What the error texts of redis-py, kombu and Redis mean, and what to do about them."""

import re

CA = (
    "REDIS_CA_CERTS must hold the CA that signed this certificate. If it does, another server"
    " answers: compare with `manage.py doctor --certificate`."
)
PASSWORD = (
    "Put the right user name and password into the URL, percent-encoded, before the host:"
    " USER:PASSWORD@HOST."
)
UNVERIFIED = (
    "Set REDIS_CERT_REQS=required, and REDIS_CA_CERTS unless a public CA issued the certificate:"
    " `manage.py doctor --certificate` prints it."
)
SILENT = (
    "Nobody answers: look at host and port, the firewall and the allow list; or, where the steps"
    " before were ok, at the load of the server."
)
ENDED = "The server ended the connection: is it restarting? Its log tells more."

# The first part that is found in the text counts.
CAUSES = {
    "not issued by REDIS_CA_CERTS": CA,
    "self-signed certificate in": CA,
    "self-signed certificate": "Put it into REDIS_CA_CERTS: `manage.py doctor --certificate`. If"
    " one is there, the server's was renewed or another server answers: compare the two.",
    "local issuer": CA,
    "certificate is not valid for": "Use a name that the certificate holds as the URL's host:"
    " `manage.py doctor --certificate` lists them.",
    "certificate has expired": "Renew the server's certificate.",
    "not yet valid": "Compare the clocks of this machine and the server.",
    "PROTOCOL_VERSION": "The server speaks only TLS 1.1 or older: switch TLS 1.2 on there.",
    "CERTIFICATE_REQUIRED": "The server asks for a client certificate: set REDIS_CLIENT_CERT and"
    " REDIS_CLIENT_KEY.",
    "HANDSHAKE_FAILURE": "The server asks for a client certificate (set REDIS_CLIENT_CERT and"
    " REDIS_CLIENT_KEY), or shares no cipher.",
    "UNKNOWN_CA": "The server does not know the CA of REDIS_CLIENT_CERT.",
    "CERTIFICATE_EXPIRED": "Renew the certificate in REDIS_CLIENT_CERT.",
    "No such file": "REDIS_CA_CERTS, REDIS_CLIENT_CERT or REDIS_CLIENT_KEY is gone: restore it.",
    "Protocol Error": "Something else than Redis answers there: correct host and port.",
    "unknown command": "Redis 6 or newer is needed, with no command renamed that the ACL in the"
    " README names.",
    "Authentication required": PASSWORD,
    "username-password": PASSWORD,
    "no permissions": "Allow it to the user of the URL: the README has the ACL that is needed.",
    "DB index": "End the URL in /0, the database that every server has.",
    "SELECT is not allowed": "End the URL in /0: a cluster has no other database.",
    "same slot": "The server is a cluster: keep the braces in the prefix of settings.py, which hold"
    " all keys in one slot.",
    "MovedError": "The server is a cluster of several shards, which Celery cannot use: choose one"
    " without cluster mode.",
    "slot not served": "The cluster is not whole: look at it in your provider's console.",
    "max number of clients": "Close some clients, or take a larger plan.",
    "used memory >": "Memory is full, and no task is taken: delete what is not needed, or take"
    " a larger plan.",
    "read only replica": "Use the host of the primary: this one is a replica.",
    "MasterDownError": "Use the host of the primary: this one is a replica that has lost it.",
    "not enough good replicas": "The server waits for its replicas: look at them.",
    "connection refused": "Nothing listens there: start Redis, or correct host and port.",
    "timed out": SILENT,
    "timeout": SILENT,
    "closed by": ENDED,
}

# A connection that ended without a word: these need a closer look.
OPAQUE = re.compile("(?i)EOF|reset by|broken pipe|closed by|time(d )?out|wrong_version|record")
TLS = "The port speaks TLS: use rediss://."
NOT_TLS = "The port does not speak TLS: use the server's TLS port, or, inside a private network, redis://."
FULL = (
    "The server ends every connection at once: it has none left (close some clients, or take a"
    " larger plan), its allow list lacks this machine, or nothing runs behind its load balancer."
)


def without_arguments(text: str) -> str:
    """The text without the arguments that Redis repeats of a command it does not know."""
    return re.sub(",? with args beginning with:.*", "", text)


def fix_of(text: str) -> str:
    """What to do about an error text; empty if it is not known."""
    return next((fix for part, fix in CAUSES.items() if part.lower() in text.lower()), "")
