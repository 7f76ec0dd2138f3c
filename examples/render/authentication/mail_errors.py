"""What the errors of a mail server mean for the e-mail at hand, and for all others."""

import re
import smtplib

from . import smtp

# A mail server gives this code before a log-in, or before STARTTLS (RFC 4954, RFC 3207).
AUTHENTICATION_REQUIRED = 530
MAX_CHARACTERS = 500  # of an error in the database and in the log


class ServerUnavailable(Exception):
    """The mail server cannot be reached, or it refuses our log-in or our sender address.

    Every other e-mail would fail in the same way.
    """


def fails_for_all(error: Exception) -> bool:
    """Whether every other e-mail would fail like this one."""
    kinds = (smtplib.SMTPSenderRefused, smtplib.SMTPHeloError, smtp.EndedEarly)
    if isinstance(error, kinds):
        return True
    code, _ = smtp_answer(error)
    return code == AUTHENTICATION_REQUIRED


def is_refused_for_good(error: Exception) -> bool:
    """Whether the mail server refuses this recipient or this content, now and later."""
    if not isinstance(error, (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)):
        return False
    code, _ = smtp_answer(error)
    return 500 <= code <= 599


def smtp_answer(error: Exception) -> tuple[int, str]:
    """The code and the text that the mail server answered, or 0 and "" if it did not answer."""
    code: int
    text: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        # Each e-mail has one recipient.
        code, text = next(iter(error.recipients.values()), (0, b""))
    elif isinstance(error, smtplib.SMTPResponseException):
        code, text = error.smtp_code, error.smtp_error
    else:
        return 0, ""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return code, str(text)


def describe(error: Exception) -> str:
    """The error in one line, at most MAX_CHARACTERS long.

    Only printable characters remain: PostgreSQL cannot store NUL, and a line of the log must stay
    one line.
    """
    code, text = smtp_answer(error)
    words = f"{code} {text}" if code else f"{type(error).__name__}: {error}"
    line = " ".join(words.split())
    printable = "".join(character for character in line if character.isprintable())
    return printable[:MAX_CHARACTERS]


def without_addresses(text: str) -> str:
    """The text without e-mail addresses, for the log: servers repeat the one that they refuse."""
    return re.sub(r"[^\s<>:;,\"'()]+@[^\s<>:;,\"'()]+", "<address>", text)
