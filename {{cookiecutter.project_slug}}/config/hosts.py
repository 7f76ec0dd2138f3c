"""ALLOWED_HOSTS, read strictly: an entry that no request can match would answer 400 to everybody.

The platform's health check asks for no host, so it could not see that.
"""

import ipaddress
import re
from dataclasses import dataclass

from redis_connection.errors import InvalidSetting

LONGEST_NAME = 253  # characters, of any name in DNS

# What Django takes for a host in a request (`django.http.request.host_validation_re`), with labels
# as in DNS. A dot before it means the domain with all its subdomains.
NAME = re.compile(r"\.?[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9][a-z0-9-]{0,62})*")
ENTRY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+?)\.?(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Host:
    """An entry: what Django compares with a request's host, and a port if one was given."""

    name: str
    port: int | None = None

    @property
    def origin(self) -> str | None:
        """From where forms are sent, if that is not the usual port of https."""
        return f"https://{self.name}:{self.port}" if self.port not in (None, 80, 443) else None


def read_host(variable: str, given: str) -> Host:
    """Raises InvalidSetting, which shows nothing of the entry."""
    if given == "*":
        raise InvalidSetting(
            f"{variable} has a *, so whoever sends a request would choose the host of links: write"
            " the names of this service."
        )
    if given.startswith("*."):
        raise InvalidSetting(
            f"{variable} has a *: write .example.com for a domain with all its subdomains."
        )
    found = ENTRY.fullmatch(given.lower())
    if not found or not is_host(found["host"]):
        raise InvalidSetting(
            f"{variable} has an entry that is no host name: write names only, separated by commas,"
            " as in example.com,www.example.com; an IPv6 address in brackets, as [::1]."
        )
    port = int(found["port"]) if found["port"] else None
    if port is not None and (found["host"].startswith(".") or not 1 <= port <= 65535):
        raise InvalidSetting(
            f"{variable} has a port that cannot be: it stands behind one name, as in"
            " example.com:8443, and is at most 65535."
        )
    return Host(found["host"], port)


def read_development_host(variable: str, given: str) -> Host:
    """As read_host(), but all hosts may be allowed, as for a telephone in the same network."""
    return Host("*") if given == "*" else read_host(variable, given)


def is_host(text: str) -> bool:
    if text.startswith("["):
        try:
            return ipaddress.ip_address(text.strip("[]")).version == 6
        except ValueError:
            return False
    return len(text) <= LONGEST_NAME and bool(NAME.fullmatch(text))
