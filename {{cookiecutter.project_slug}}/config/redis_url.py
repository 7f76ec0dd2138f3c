"""A Redis URL, read strictly: what kombu or redis-py would misread is refused in one line."""

import re
from urllib.parse import parse_qsl, urlsplit

from .environment import Refused

SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss"}
# Plain ASCII: to a resolver the one character of an ideographic full stop is a dot.
HOST = re.compile(r"[a-f0-9:.]*:[a-f0-9:.]*|[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


def read_url(name: str, text: str, cert_reqs: str, databases: int) -> tuple[str, str]:
    """The URL as Celery and redis-py understand it, and its host; Refused tells only `name`."""
    if text.strip("\"'") != text:
        raise Refused(f"{name} begins or ends with a quote: remove the quotes around the URL.")
    given, separator, rest = text.partition("://")
    scheme = SCHEMES.get(given.lower())
    if not separator or scheme is None:
        raise Refused(
            f"{name} does not start with redis:// or rediss:// (valkey:// and valkeys:// work too):"
            f" {'copy the URL for Redis clients again' if separator else 'put one before it'}."
        )
    if re.search(r"\s", text):
        raise Refused(f"{name} has a space or a line break in it: percent-encode it (%20, %0A).")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        if "@" in parts.path + parts.query + parts.fragment:
            raise Refused(
                f"{name} has a raw / ? or # in its user name or password: percent-encode it"
                " (%2F, %3F, %23)."
            )
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or not HOST.fullmatch(host):
        raise Refused(
            f"{name} needs a host and, after a colon, a port between 1 and 65535; a [ or ] in a"
            " password is percent-encoded (%5B, %5D)."
        )
    database = parts.path.strip("/")
    if database and (not re.fullmatch("[0-9]{1,5}", database) or int(database) >= databases):
        known = f"0 to {databases - 1}" if databases > 1 else "0 only"
        raise Refused(f"{name} ends in a database that is not there: REDIS_DATABASES says {known}.")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    asked = options.pop("ssl_cert_reqs", cert_reqs)
    if options or asked.lower().removeprefix("cert_") != cert_reqs:
        raise Refused(
            f"{name} has options after its '?', which would win over REDIS_CERT_REQS={cert_reqs}:"
            " remove them. Certificates are set by REDIS_CA_CERTS, REDIS_CLIENT_CERT and _KEY."
        )
    # kombu would split the URL at a semicolon.
    return f"{scheme}://{parts.netloc.replace(';', '%3B')}/{database}", host
