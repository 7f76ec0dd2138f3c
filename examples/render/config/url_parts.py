"""The parts of DATABASE_URL and EMAIL_URL, read as strictly as those of the Redis URL."""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from redis_connection.errors import InvalidSetting
from redis_connection.url import HOST

HOST_AND_PORT = re.compile(r"(\[.*\]|[^:]*)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Parts:
    """A URL of the form SCHEME://USER:PASSWORD@HOST:PORT/PATH?QUERY, decoded but for its query."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    hosts: list[tuple[str, int | None]]
    path: str
    query: str = field(repr=False)


def split_scheme(given: str) -> tuple[str, str]:
    """The scheme in small letters, empty if there is none, and what follows its "://"."""
    scheme, separator, rest = given.partition("://")
    return (scheme.lower(), rest) if separator else ("", given)


def split(variable: str, rest: str) -> Parts:
    """The parts of what follows "SCHEME://". Raises InvalidSetting, which shows nothing of it."""
    if re.search(r"\s", rest):
        raise InvalidSetting(
            f"{variable} has a space or a line break in it: percent-encode it (%20, %0A)."
        )
    before_query, _, query = rest.partition("?")
    authority, _, path = before_query.partition("/")
    # An @ behind the hosts means that the account ended too early, at a character that has a
    # meaning in a URL.
    if "#" in rest or "@" in path + query:
        raise InvalidSetting(
            f"{variable} has a raw / ? or # in its user name or password: percent-encode it"
            " (%2F, %3F, %23)."
        )
    account, _, hosts = authority.rpartition("@")
    user, _, password = account.partition(":")
    return Parts(
        user=decode(variable, user),
        password=decode(variable, password),
        hosts=[read_host(variable, host) for host in hosts.split(",")] if hosts else [],
        path=decode(variable, path),
        query=query,
    )


def decode(variable: str, text: str) -> str:
    """The text without its percent-encoding."""
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        raise InvalidSetting(
            f"{variable} has characters that are not UTF-8: percent-encode its UTF-8 form."
        ) from None
    if "\0" in decoded:
        raise InvalidSetting(f"{variable} has a zero byte (%00) in it, which no program can send.")
    return decoded


def read_host(variable: str, text: str) -> tuple[str, int | None]:
    """A host with its port, or the folder of a Unix socket, as %2Frun%2Fpostgresql."""
    found = HOST_AND_PORT.fullmatch(text)
    if not found:
        raise no_host(variable)
    host = decode(variable, found[1])
    if not host.startswith("/"):
        host = found[1].removeprefix("[").removesuffix("]").lower()
        in_brackets = found[1].startswith("[")
        if not HOST.fullmatch(host) or in_brackets != (":" in host):
            raise no_host(variable)
    port = int(found[2]) if found[2] else None
    if port is not None and not 1 <= port <= 65535:
        raise no_host(variable)
    return host, port


def no_host(variable: str) -> InvalidSetting:
    return InvalidSetting(
        f"{variable} needs a host and, after a colon, a port between 1 and 65535; a : / @ [ or ] in"
        " a password is percent-encoded (%3A, %2F, %40, %5B, %5D)."
    )
