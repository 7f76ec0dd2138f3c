"""Django's SMTP backend, which also tells how far a conversation came before it failed.

settings.py uses it instead of Django's own, which cannot tell an e-mail that the server may have
sent from one that the server never got.
"""

import smtplib
from typing import Any

from django.core.mail.backends import smtp

# Errors that carry an answer of the mail server. Any other OSError ended the conversation.
ANSWERS = (
    smtplib.SMTPResponseException,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPNotSupportedError,
)


class AnswerMissing(smtplib.SMTPServerDisconnected):
    """The server got the whole message and did not answer, so it may have sent the e-mail."""


class EndedEarly(smtplib.SMTPServerDisconnected):
    """The conversation ended before the recipient was named, so any other would end there, too."""


class ObservedSMTP(smtplib.SMTP):
    """An SMTP client whose sendmail() also raises AnswerMissing or EndedEarly."""

    recipient_was_named = False
    message_was_handed_over = False

    def sendmail(self, *args: Any, **options: Any) -> dict[str, tuple[int, bytes]]:
        self.recipient_was_named = False
        self.message_was_handed_over = False
        try:
            return super().sendmail(*args, **options)
        except Exception as error:
            # A task's soft time limit is among these errors: it can strike anywhere in here.
            if self.message_was_handed_over:
                if is_refusal_of_message(error):
                    raise
                raise AnswerMissing(f"no answer after the message: {error}") from error
            if is_end_of_conversation(error) and not self.recipient_was_named:
                raise EndedEarly(f"ended before the recipient was named: {error}") from error
            raise

    def rcpt(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        self.recipient_was_named = True
        return super().rcpt(*args, **options)

    def send(self, s: Any) -> None:
        super().send(s)
        # smtplib sends commands as str. The message is bytes, and goes out in one call.
        if isinstance(s, bytes) and s.endswith(b"\r\n.\r\n"):
            self.message_was_handed_over = True


def is_refusal_of_message(error: Exception) -> bool:
    """Whether the server answered the message, with a code that says no."""
    # smtplib gives the code -1 to an answer that it cannot read.
    return isinstance(error, smtplib.SMTPDataError) and error.smtp_code > 0


def is_end_of_conversation(error: Exception) -> bool:
    """Whether the connection broke, instead of carrying an answer that says no."""
    return isinstance(error, OSError) and not isinstance(error, ANSWERS)


class ObservedSMTPOverSSL(ObservedSMTP, smtplib.SMTP_SSL):
    """The same for a conversation that is encrypted from its start."""


class EmailBackend(smtp.EmailBackend):
    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        if self.use_ssl:
            return ObservedSMTPOverSSL
        return ObservedSMTP
