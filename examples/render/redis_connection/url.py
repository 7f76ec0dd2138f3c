"""A Redis URL, read strictly: what kombu or redis-py would misread is refused."""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .errors import InvalidSetting

# What may stand before "://", and what kombu and redis-py call it.
SCHEMES = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
}

# What people write who mean something else than one server of Redis, and what that is.
NOT_SUPPORTED = {
    re.compile(r"unix:|(redis|valkey)s?\+(socket|unix):", re.IGNORECASE): "Unix sockets are",
    re.compile(r"((redis|valkey)s?\+)?sentinels?:", re.IGNORECASE): "Sentinel is",
    re.compile(r"(redis|valkey)s?\+cluster:", re.IGNORECASE): "Redis clusters are",
    # The schemes and names that Celery takes for CELERY_RESULT_BACKEND.
    re.compile(
        r"(django-db|django-cache|rpc|cache|cache\+\w+|db\+[\w+]+|database|disabled|file"
        r"|mongodb|mongodb\+srv|elasticsearch|cassandra|couchbase|couchdb|cosmosdbsql|consul"
        r"|dynamodb|azureblockblob|arangodb|s3|gs)(:|$)",
        re.IGNORECASE,
    ): "other stores of results are",
}

# A host name or an address, in ASCII and in small letters, as urlsplit gives it. Some resolvers
# read other Unicode characters as a dot, so `evil\u3002com` would pass for a private name and lead
# to a public host.
HOST = re.compile(
    r"""
    [a-f0-9:.]* : [a-f0-9:.]*                # an IPv6 address
    | [a-z0-9_-]{1,63}                       # a name, or an IPv4 address
      ( \. [a-z0-9_-]{1,63} )*
      \.?
    """,
    re.VERBOSE,
)

PRIVATE_NETWORKS = [
    ipaddress.ip_network(block)
    for block in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1",
        "fc00::/7",
        "fe80::/10",
    )
]
# Names that only a private network has. The public DNS knows none of their last labels.
PRIVATE_DOMAINS = (
    ".internal",
    ".local",
    ".localhost",
    ".svc",
    ".flycast",
    ".lan",
    ".home",
    ".home.arpa",
    ".corp",
    ".intranet",
    ".private",
)


@dataclass(frozen=True)
class RedisURL:
    """A URL that kombu and redis-py read alike."""

    text: str = field(repr=False)  # with the password
    host: str
    database: int
    options: dict[str, str] = field(repr=False)  # what stood after the "?", which `text` lacks

    @property
    def encrypted(self) -> bool:
        return self.text.startswith("rediss:")


def read_url(variable: str, given: str) -> RedisURL:
    """The URL that stands in the environment variable `variable`.

    Raises InvalidSetting, which names the variable and shows nothing of the URL.
    """
    if not given:
        raise InvalidSetting(f"{variable} is not set: give the URL of your Redis.")
    if given.strip("\"'") != given:
        raise InvalidSetting(
            f"{variable} begins or ends with a quote: remove the quotes around the URL."
        )
    scheme, rest = split_scheme(variable, given)
    if re.search(r"\s", given):
        raise InvalidSetting(
            f"{variable} has a space or a line break in it: percent-encode it (%20, %0A)."
        )
    parts = split_rest(variable, scheme, rest)
    database = parts.path.strip("/")
    # kombu takes a semicolon for the end of the first of several URLs.
    account_and_host = parts.netloc.replace(";", "%3B")
    return RedisURL(
        text=f"{scheme}://{account_and_host}/{database}",
        host=parts.hostname or "",
        database=database_number(variable, database),
        options=dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def split_scheme(variable: str, given: str) -> tuple[str, str]:
    """The scheme as kombu and redis-py know it, and what follows its "://"."""
    scheme, separator, rest = given.partition("://")
    if separator and scheme.lower() in SCHEMES:
        return SCHEMES[scheme.lower()], rest
    for pattern, what in NOT_SUPPORTED.items():
        if pattern.match(given):
            raise InvalidSetting(
                f"{variable} cannot be used, {what} not supported: give the redis:// or rediss://"
                " URL of one Redis server."
            )
    if re.search(r"\s", scheme):
        cure = "give the URL alone"
    else:
        cure = "copy the URL for Redis clients again" if separator else "put one before it"
    raise InvalidSetting(
        f"{variable} does not start with redis:// or rediss:// (valkey:// and valkeys:// work"
        f" too): {cure}."
    )


def split_rest(variable: str, scheme: str, rest: str) -> SplitResult:
    """The parts of the URL, of which host and port can be used."""
    try:
        parts = urlsplit(f"{scheme}://{rest}")
    except ValueError:
        # The text of this error would quote the URL.
        raise no_host(variable) from None
    # The account stands before an @. An @ further behind means that the account ended too early, at
    # a character that has a meaning in a URL.
    if "@" in parts.path + parts.query + parts.fragment:
        raise InvalidSetting(
            f"{variable} has a raw / ? or # in its user name or password: percent-encode it"
            " (%2F, %3F, %23)."
        )
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise no_host(variable) from None
    if not host or port == 0 or not HOST.fullmatch(host):
        raise no_host(variable)
    return parts


def no_host(variable: str) -> InvalidSetting:
    return InvalidSetting(
        f"{variable} needs a host and, after a colon, a port between 1 and 65535; a [ or ] in a"
        " password is percent-encoded (%5B, %5D)."
    )


def database_number(variable: str, text: str) -> int:
    """The number of the database at the end of a URL; 0 where none is given."""
    if not text:
        return 0
    if not re.fullmatch("[0-9]{1,5}", text):
        raise InvalidSetting(
            f"{variable} ends in something other than the number of a database: end it in /0."
        )
    return int(text)


def check_database(variable: str, url: RedisURL, databases: int) -> None:
    """Raise InvalidSetting unless a server with so many databases has that of the URL."""
    if url.database >= databases:
        known = "0 only" if databases == 1 else f"0 to {databases - 1}"
        raise InvalidSetting(
            f"{variable} ends in a database that is not there: REDIS_DATABASES says {known}."
        )


def check_options(variable: str, url: RedisURL, cert_reqs: str) -> None:
    """Raise InvalidSetting if the URL has options: each client would obey other ones (D-17)."""
    others = dict(url.options)
    # Some providers' consoles add this option to the URL. It does no harm where it says what
    # REDIS_CERT_REQS says.
    repeated = others.pop("ssl_cert_reqs", cert_reqs)
    contradicts = repeated.lower().removeprefix("cert_") != cert_reqs
    if others or contradicts:
        raise InvalidSetting(
            f"{variable} has options after its '?', which would win over"
            f" REDIS_CERT_REQS={cert_reqs}: remove them. Certificates are set by REDIS_CA_CERTS,"
            " REDIS_CLIENT_CERT and REDIS_CLIENT_KEY."
        )


def is_private(host: str) -> bool:
    """Whether the name or address is known to be a private one. Nothing is looked up.

    Not so those of VPNs such as Tailscale: carriers use 100.64.0.0/10 between their customers, and
    names below ts.net are in the public DNS (D-86).
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # 134744072 and 0x08080808 are addresses, too.
        is_name = host[0].isalpha()
        return is_name and ("." not in host or host.endswith(PRIVATE_DOMAINS))
    return any(address in network for network in PRIVATE_NETWORKS)
