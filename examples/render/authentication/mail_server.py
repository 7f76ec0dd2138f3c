"""One connection to the mail server, which carries many e-mails."""

from contextlib import suppress
from types import TracebackType

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend

from .mail_errors import ServerUnavailable, describe, fails_for_all


class MailServer:
    """A connection to the mail server: opened by the first e-mail, and again after an error.

    Use it as a context manager, which closes the connection at the end.
    """

    def __init__(self) -> None:
        self.backend: BaseEmailBackend | None = None

    def __enter__(self) -> "MailServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, message: EmailMessage) -> None:
        """Send the message.

        Raises ServerUnavailable, SoftTimeLimitExceeded, or whatever the e-mail backend raises.
        """
        backend = self.backend
        is_new = backend is None
        if backend is None:
            backend = connect()
            self.backend = backend
        try:
            backend.send_messages([message])
            return
        except Exception as error:
            self.close()
            if not fails_for_all(error):
                raise
            if is_new:
                raise ServerUnavailable(describe(error)) from error
        # Many mail servers end a connection after a number of e-mails. If that was the reason, the
        # e-mail goes through over a new connection.
        self.send(message)

    def close(self) -> None:
        """Close the connection, if there is one."""
        backend = self.backend
        self.backend = None
        if backend is None:
            return
        # The connection may be broken. Then there is nothing left to close.
        with suppress(Exception):
            backend.close()


def connect() -> BaseEmailBackend:
    """An open e-mail backend, logged in. Raises ServerUnavailable or SoftTimeLimitExceeded."""
    try:
        backend = get_connection()
        backend.open()
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        raise ServerUnavailable(describe(error)) from error
    return backend
