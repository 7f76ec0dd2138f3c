"""What the error texts of redis-py, kombu and Redis mean, and what to do about them."""

import re

ANOTHER = "another server answers: compare with `manage.py doctor --certificate`."
UNVERIFIED = (
    "Set REDIS_CERT_REQS=required, and REDIS_CA_CERTS unless a public CA issued the certificate:"
    " `manage.py doctor --certificate` prints it."
)
PLAINTEXT = "Use a rediss:// URL and unset REDIS_ALLOW_PLAINTEXT."
HOST = "Correct the URL's host; a private name is known in its provider's network only."
NAME_SERVER = "The name server did not answer: try again, and look at this machine's network."
ENDED = "The server ended the connection: is it restarting? Its log tells more."
UNKNOWN = "This is none of the known causes: read the text, the server's log, and settings.py."

# The first pattern that is found in the text counts.
CAUSES = {
    "not issued by REDIS_CA_CERTS|self-signed certificate in": "REDIS_CA_CERTS must hold the CA"
    f" that signed this certificate. If it does, {ANOTHER}",
    "self-signed certificate": "Put it into REDIS_CA_CERTS: `manage.py doctor --certificate`. If"
    " one is there, the server's was renewed or another server answers: compare the two.",
    "local issuer": "Give the CA of this certificate as REDIS_CA_CERTS; for a public one install"
    f" ca-certificates. If it is there, the server sends no CA between the two, or {ANOTHER}",
    "certificate is not valid for": "Use a host that `manage.py doctor --certificate` names.",
    "certificate has expired": "Renew the server's certificate.",
    "certificate purpose": "Issue the server a certificate for servers (serverAuth).",
    "not yet valid": "Compare the clocks of this machine and the server.",
    "PROTOCOL_VERSION": "The server speaks only TLS 1.1 or older: switch TLS 1.2 on there.",
    "CERTIFICATE_REQUIRED": "The server asks for REDIS_CLIENT_CERT and REDIS_CLIENT_KEY: set them.",
    "HANDSHAKE_FAILURE": "The server asks for REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or shares no"
    " cipher with this machine.",
    "UNKNOWN_CA": "The server does not know the CA of REDIS_CLIENT_CERT.",
    "CERTIFICATE_EXPIRED": "Renew the certificate in REDIS_CLIENT_CERT.",
    "_CERTIFICATE": "REDIS_CLIENT_CERT is refused: is it for clients (clientAuth), not revoked?",
    "No such file": "REDIS_CA_CERTS, REDIS_CLIENT_CERT or REDIS_CLIENT_KEY is gone: restore it.",
    "Protocol Error": "Something else than Redis answers there: correct host and port.",
    "DB index|command .SELECT|SELECT is not": "End the URL in /0, the database of every server.",
    "unknown command|is not available": "Redis 6 or newer is needed, with every command"
    " that the ACL in the README names.",
    "protected mode": "Give Redis a password (requirepass, or an ACL user with `user default off`):"
    " without one it serves its own machine only.",
    "no password is set|any password": "The server has no password: set one, or remove the URL's.",
    "allowlist": "Add this machine's address to the allow list in your provider's console.",
    "AuthenticationError": "Put the right USER:PASSWORD@, percent-encoded, before the URL's host.",
    "no permissions": "Allow it to the user of the URL: the README has the ACL that is needed.",
    "same slot": "A cluster needs the braces in the prefix of settings.py: they make it one slot.",
    "MovedError": "Celery cannot use a cluster of several shards: take one without cluster mode.",
    "ClusterDown": "The cluster is not whole: look at it in your provider's console.",
    "max number of clients|exceeded": "Close some clients or use less, or take a larger plan.",
    "loading the dataset": "The server starts, and reads its data: wait.",
    "MISCONF": "The server cannot save its data, and takes no task: look at its disk and log.",
    "used memory >": "Memory is full, and no task is taken: free some, or take a larger plan.",
    "read only replica|MasterDownError": "Use the host of the primary: this one is a replica.",
    "not enough good replicas": "The server waits for its replicas: look at them.",
    "connection refused": "Nothing listens there: start Redis, or correct host and port.",
    "No route|unreachable": "No way leads there from here: is it a private network, or IPv6 only?",
    "timed out|timeout": "Nobody answers: look at host, port, firewall, allow list, and load.",
    "closed by": ENDED,
}

# Most are of a connection that ended without a word: these need a closer look.
OPAQUE = re.compile("(?i)EOF|reset by|pipe|closed by|time(d )?out|wrong_v|record|has expired")
TLS = "The port speaks TLS: use rediss://."
NOT_TLS = "The port does not speak TLS: use the server's TLS port, or, inside a private network, redis://."
FULL = (
    "The server ends every connection at once: it has none left (close some clients, or take a"
    " larger plan), its allow list lacks this machine, or nothing runs behind its load balancer."
)
NO_HEARTBEAT = (
    "See that worker and beat run, and read their logs. If the worker is there and takes no tasks,"
    " restart the worker."
)
DEAF = "It was started anew each time. If tasks wait now, restart the worker, and read its log."
CLOCK = (
    "Set the clocks of both machines (NTP): by a wrong clock tasks with `expires` are dropped,"
    " tasks with `eta` run too early or late, and certificates are refused."
)
OVERDUE = "Read the worker's log: does housekeeping run, and is there a sweep?"
FAILING = "Each is tried again within 15 minutes. If all fail, see that EMAIL_URL is right."
UNSENT = "Look at them in the admin, under verification emails. “Send again” there tries once more."
PUT_ASIDE = (
    "Look at them in the admin, under put aside messages. If a task is unknown, deploy web and"
    " worker with the same code."
)
CA_EXPIRED = "A CA has expired, in REDIS_CA_CERTS or in what the server sends: renew it there."


def fix_of(text: str) -> str:
    """What to do about an error text; empty if it is not known."""
    return next((fix for part, fix in CAUSES.items() if re.search(part, text, re.I)), "")
