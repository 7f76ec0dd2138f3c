"""DATABASE_URL, read strictly: what Django or PostgreSQL would refuse later, or drop, is refused.

PostgreSQL's client library refuses a wrong option when the first query is made, which costs 88
lines of traceback. django-environ replaced some options by others.
"""

import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from redis_connection.context import FILES_OF_CAS
from redis_connection.errors import InvalidSetting

from .environment import FALSE, TRUE
from .url_parts import Parts, decode, no_host, read_host, split, split_scheme

POSTGRES = ("postgres", "postgresql", "psql", "pgsql")
LONGEST_NAME = 63  # bytes; PostgreSQL cuts longer ones

# Options that Django reads, and not PostgreSQL's client library: Django's name for each.
OPTIONS_OF_DJANGO = {
    "conn_max_age": "CONN_MAX_AGE",
    "conn_health_checks": "CONN_HEALTH_CHECKS",
    "disable_server_side_cursors": "DISABLE_SERVER_SIDE_CURSORS",
}
# Options with few right values. PostgreSQL's client library would refuse others with the first
# query.
CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow", "require"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
}
NUMBERS = (
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
)
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
SYSTEM = "system"  # the value of sslrootcert that means the CAs of the system


def read_database_url(variable: str, given: str) -> dict[str, Any]:
    """An entry of Django's DATABASES. Raises InvalidSetting, which shows nothing of the URL."""
    scheme, rest = split_scheme(given)
    if scheme == "sqlite":
        return sqlite(read_path(variable, rest))
    if scheme in POSTGRES:
        return postgres(variable, split(variable, rest))
    raise InvalidSetting(
        f"{variable} starts with neither postgres:// nor sqlite://: nothing else is installed."
    )


def sqlite(name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "OPTIONS": {
            # Web and worker write to one file. Each locks it at the start of a transaction, and
            # waits up to 20 s until the other one is done.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }


def read_path(variable: str, rest: str) -> str:
    """The path of the file, or :memory:. An absolute one begins with a fourth slash."""
    if rest in ("", "/", ":memory:", "/:memory:"):
        return ":memory:"
    if "?" in rest or "#" in rest:
        raise InvalidSetting(
            f"{variable} has a ? or # in it: SQLite has no options here, and in a path it is"
            " percent-encoded (%3F, %23)."
        )
    if not rest.startswith("/") or rest.endswith("/"):
        raise InvalidSetting(
            f"{variable} needs the path of a file, as in sqlite:////srv/db.sqlite3: an absolute one"
            " begins with a fourth slash."
        )
    return decode(variable, rest.removeprefix("/"))


def postgres(variable: str, parts: Parts) -> dict[str, Any]:
    options = read_options(variable, parts.query)
    socket, separator, name = parts.path.rpartition("/")
    hosts = parts.hosts
    if socket.startswith("/") and not hosts:
        hosts = [(socket, None)]  # the form postgres:////run/postgresql/NAME
    elif separator:
        raise InvalidSetting(f"{variable} has a / in the name of its database: end it in /NAME.")
    given = {
        "user": parts.user,
        "password": parts.password,
        "host": ",".join(host for host, _ in hosts),
        "port": ",".join(str(port or "") for _, port in hosts).strip(","),
        "dbname": name,
    }
    if len(hosts) > 1 and given["port"]:
        given["port"] = ",".join(str(port or "") for _, port in hosts)
    for option in given.keys() & options.keys():
        if given[option]:
            raise InvalidSetting(
                f"{variable} has {option} twice, before and after its '?': remove one of them."
            )
        given[option] = str(options.pop(option))
    check_place(variable, given, options)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "USER": given["user"],
        "PASSWORD": given["password"],
        "HOST": given["host"],
        "PORT": given["port"],
        "CONN_MAX_AGE": 60,  # seconds
        "CONN_HEALTH_CHECKS": True,
    }
    for name, setting in OPTIONS_OF_DJANGO.items():
        if name in options:
            database[setting] = options.pop(name)
    # Seconds. The default waits for more than two minutes.
    return database | {"OPTIONS": {"connect_timeout": 5} | options}


def check_place(variable: str, given: dict[str, str], options: dict[str, Any]) -> None:
    """Raise InvalidSetting unless it is said where the database is, and what it is called."""
    if "service" in options:
        return  # a file of the client library says it
    if not given["host"] and not options.get("hostaddr"):
        raise InvalidSetting(
            f"{variable} needs a host; that of a Unix socket is the percent-encoded path of its"
            " folder, as in postgres://USER@%2Frun%2Fpostgresql/NAME."
        )
    if not given["host"].startswith("/"):
        for host in given["host"].split(",") if given["host"] else []:
            read_host(variable, f"[{host}]" if ":" in host else host)
    if not all(port.isdecimal() for port in given["port"].split(",") if port):
        raise no_host(variable)
    if not given["dbname"] or len(given["dbname"].encode()) > LONGEST_NAME:
        raise InvalidSetting(
            f"{variable} needs the name of a database of at most {LONGEST_NAME} bytes: end it in"
            " /NAME."
        )


def read_options(variable: str, query: str) -> dict[str, Any]:
    """The options behind the "?", those of Django in small letters."""
    from psycopg import pq  # here, since most of a development needs no PostgreSQL

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, separator="&"):
        if name.lower() in OPTIONS_OF_DJANGO:
            name = name.lower()
            found[name] = option_of_django(variable, name, value)
        elif name in ("ssl", "tls"):
            raise InvalidSetting(
                f"{variable} has {name} among its options, which PostgreSQL does not know: write"
                " sslmode=verify-full&sslrootcert=system."
            )
        elif name not in known:
            raise InvalidSetting(
                f"{variable} has an option after its '?' that PostgreSQL's client does not know:"
                " remove it. Those of other libraries, as pgbouncer or schema, do nothing here."
            )
        elif name in found:
            raise InvalidSetting(f"{variable} has {name} twice: remove one of them.")
        else:
            found[name] = option_of_postgres(variable, name, value)
    check_certificates(variable, found)
    return found


def option_of_django(variable: str, name: str, value: str) -> int | bool | None:
    if name == "conn_max_age":
        if value.lower() == "none":
            return None
        if value.isdecimal() and value.isascii():
            return int(value)
        raise InvalidSetting(f"{variable} needs a number of seconds for conn_max_age, or None.")
    if value.lower() not in TRUE + FALSE:
        raise InvalidSetting(f"{variable} needs true or false for {name}.")
    return value.lower() in TRUE


def option_of_postgres(variable: str, name: str, value: str) -> int | str:
    if name == "client_encoding":
        raise InvalidSetting(f"{variable} has client_encoding, which Django sets: remove it.")
    if name in CHOICES and value not in CHOICES[name]:
        raise InvalidSetting(f"{variable} needs one of {', '.join(CHOICES[name])} for {name}.")
    if name in NUMBERS:
        if not (value.isdecimal() and value.isascii()):
            raise InvalidSetting(f"{variable} needs a whole number for {name}.")
        return int(value)
    is_file = name in FILES and value != SYSTEM
    if is_file and not os.access(value, os.R_OK):
        raise InvalidSetting(f"{variable} names a file as {name} that cannot be read.")
    return value


def check_certificates(variable: str, options: dict[str, Any]) -> None:
    """Raise InvalidSetting unless a server can be verified where that is asked for.

    With sslrootcert=system the client library asks its own OpenSSL, and that of psycopg-binary
    knows no CAs. So the file is named that holds the CAs of the system (D-88).
    """
    if options.get("sslrootcert") == SYSTEM:
        if options.setdefault("sslmode", "verify-full") != "verify-full":
            raise InvalidSetting(
                f"{variable} has sslrootcert=system, which PostgreSQL takes with"
                " sslmode=verify-full only."
            )
        options["sslrootcert"] = cas_of_the_system()
    elif str(options.get("sslmode")).startswith("verify-") and not has_root_certificate(options):
        raise InvalidSetting(
            f"{variable} has sslmode={options['sslmode']} without a CA: add &sslrootcert=system, or"
            " the path of the CA's certificate in place of `system`."
        )


def has_root_certificate(options: dict[str, Any]) -> bool:
    """Whether the URL, or what PostgreSQL's client library reads besides, names one."""
    if "sslrootcert" in options or os.environ.get("PGSSLROOTCERT"):
        return True
    return Path("~/.postgresql/root.crt").expanduser().exists()


def cas_of_the_system() -> str:
    """The file in which the system has them, as far as one is known."""
    for file in (ssl.get_default_verify_paths().cafile, *FILES_OF_CAS):
        if file and os.access(file, os.R_OK):
            return file
    return SYSTEM
