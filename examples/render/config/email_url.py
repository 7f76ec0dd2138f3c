"""EMAIL_URL and DEFAULT_FROM_EMAIL, read strictly: what would fail at the first e-mail is refused.

So is what weakens the connection without a word. The query of a URL, as in the `?tls=True` of
another library, would be dropped, and the password sent in plain text.
"""

from dataclasses import dataclass, field
from email.utils import getaddresses

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from redis_connection.errors import InvalidSetting
from redis_connection.url import is_private

from .url_parts import Parts, decode, split, split_scheme

# Django's own does not tell whether a server that hung up has the mail.
SMTP = "authentication.smtp.EmailBackend"
WITHOUT_A_SERVER = {
    "consolemail": "django.core.mail.backends.console.EmailBackend",
    "memorymail": "django.core.mail.backends.locmem.EmailBackend",
    "dummymail": "django.core.mail.backends.dummy.EmailBackend",
}
TO_A_FOLDER = "django.core.mail.backends.filebased.EmailBackend"

# The usual port of each way to speak SMTP.
PLAIN, STARTTLS, TLS = "smtp", "smtp+tls", "smtp+ssl"
USUAL_PORT = {PLAIN: 25, STARTTLS: 587, TLS: 465}
# smtps:// means either of them, depending on who has written it. The port tells.
MEANT_BY_PORT = {25: STARTTLS, 465: TLS, 587: STARTTLS, 2525: STARTTLS}
# Ports of which it is known how a conversation begins there.
TLS_FROM_THE_START = (465,)
PLAIN_AT_THE_START = (25, 587)
NOT_SMTP = (80, 110, 143, 443, 993, 995)


@dataclass(frozen=True)
class Mail:
    """Django's settings EMAIL_*."""

    backend: str
    host: str = "localhost"
    port: int = 25
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    use_tls: bool = False
    use_ssl: bool = False
    folder: str | None = None  # of filemail://

    @property
    def is_sent(self) -> bool:
        return self.backend == SMTP


CONSOLE = Mail(WITHOUT_A_SERVER["consolemail"])


def read_email_url(variable: str, given: str) -> Mail:
    """Raises InvalidSetting, which names the variable and shows nothing of the URL."""
    scheme, rest = split_scheme(given)
    if scheme in WITHOUT_A_SERVER:
        if rest.strip("/"):
            raise InvalidSetting(
                f"{variable} names more than {scheme}:// needs: remove what follows."
            )
        return Mail(WITHOUT_A_SERVER[scheme])
    if scheme == "filemail":
        return Mail(TO_A_FOLDER, folder=read_folder(variable, rest))
    if scheme not in (*USUAL_PORT, "smtps"):
        raise InvalidSetting(
            f"{variable} does not start with smtp+tls:// (as for port 587), smtp+ssl:// (465) or"
            " smtp://: write one of them, and then USER:PASSWORD@HOST:PORT."
        )
    parts = split(variable, rest)
    check_form(variable, parts)
    check_account(variable, parts)
    [(host, given_port)] = parts.hosts
    way = way_to_speak(variable, scheme, given_port)
    port = given_port or USUAL_PORT[way]
    check_port(variable, way, port)
    if way == PLAIN and parts.password and not is_private(host):
        raise InvalidSetting(
            f"{variable} is plain smtp:// to a host that is not known to be private: anyone on the"
            " path reads the password. Write smtp+tls:// (port 587) or smtp+ssl:// (port 465)."
        )
    return Mail(
        SMTP,
        host=host,
        port=port,
        user=parts.user,
        password=parts.password,
        use_tls=way == STARTTLS,
        use_ssl=way == TLS,
    )


def read_folder(variable: str, rest: str) -> str:
    """The path of a folder. An absolute one begins with a fourth slash."""
    if not rest.startswith("/") or not rest.strip("/") or "?" in rest or "#" in rest:
        raise InvalidSetting(
            f"{variable} needs the path of a folder, as in filemail:////srv/mail: an absolute one"
            " begins with a fourth slash, and ? and # are percent-encoded (%3F, %23)."
        )
    return decode(variable, rest.removeprefix("/"))


def check_form(variable: str, parts: Parts) -> None:
    """Raise InvalidSetting unless the URL has one host, and nothing behind it."""
    if parts.query:
        raise InvalidSetting(
            f"{variable} has options after its '?', which nobody reads: remove them. TLS is asked"
            " for by smtp+tls:// (port 587) or smtp+ssl:// (port 465)."
        )
    if parts.path:
        raise InvalidSetting(
            f"{variable} has a path after its host, which nobody reads: remove it."
        )
    if len(parts.hosts) != 1 or parts.hosts[0][0].startswith("/"):
        raise InvalidSetting(f"{variable} needs one host, as in smtp+tls://USER:PASSWORD@HOST:587.")


def check_account(variable: str, parts: Parts) -> None:
    """Raise InvalidSetting if nobody could log in with the account."""
    if bool(parts.user) != bool(parts.password):
        missing = "a password" if parts.user else "a user name"
        raise InvalidSetting(
            f"{variable} lacks {missing}, so it would not log in: give both, or neither."
        )
    account = parts.user + parts.password
    if not account.isascii():
        raise InvalidSetting(
            f"{variable} has a character in its user name or password that no SMTP log-in carries:"
            " choose a password of ASCII characters."
        )
    if not account.isprintable():
        raise InvalidSetting(
            f"{variable} has a control character, as a line break, in its user name or password:"
            " copy it again."
        )


def way_to_speak(variable: str, scheme: str, port: int | None) -> str:
    if scheme != "smtps":
        return scheme
    if port in MEANT_BY_PORT:
        return MEANT_BY_PORT[port]
    raise InvalidSetting(
        f"{variable} starts with smtps://, which means two things: write smtp+ssl:// (TLS from the"
        " start, port 465) or smtp+tls:// (STARTTLS, port 587)."
    )


def check_port(variable: str, way: str, port: int) -> None:
    """Raise InvalidSetting for a port at which a server would speak otherwise."""
    if port in NOT_SMTP:
        raise InvalidSetting(f"{variable} names a port that is not for sending e-mail: give 587.")
    if way != TLS and port in TLS_FROM_THE_START:
        raise InvalidSetting(
            f"{variable} names port {port}, which speaks TLS from the start: write smtp+ssl://."
        )
    if way == TLS and port in PLAIN_AT_THE_START:
        raise InvalidSetting(
            f"{variable} names port {port}, which begins in plain text: write smtp+tls://."
        )


def read_address(variable: str, given: str) -> str:
    """One address, as a@example.com or Name <a@example.com>. Raises InvalidSetting."""
    found = getaddresses([given])
    try:
        [(_, address)] = found
        validate_email(address)
        if not given.isprintable() or not (given == address or given.endswith(f"<{address}>")):
            raise ValueError
    except (ValueError, ValidationError):
        raise InvalidSetting(
            f"{variable} is not one e-mail address: write service@example.com, or"
            " Name <service@example.com>."
        ) from None
    return given
