"""Sending one verification e-mail that this process has claimed."""

import logging

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.db.models.functions import Now
from django.template.loader import render_to_string

from . import outcomes, smtp
from .links import verification_link
from .mail_errors import ServerUnavailable, describe, is_refused_for_good, without_addresses
from .mail_server import MailServer
from .models import VerificationEmail

logger = logging.getLogger(__name__)

State = VerificationEmail.State

# An e-mail that the mail server took so many times without an answer is not sent again.
MAX_UNANSWERED = 2


def deliver(email: VerificationEmail, server: MailServer) -> None:
    """Send an e-mail that this process has claimed, and save what became of it.

    Raises ServerUnavailable or SoftTimeLimitExceeded once the e-mail is postponed, and
    django.db.Error if the outcome cannot be saved.
    """
    try:
        server.send(message_of(email))
    except (ServerUnavailable, SoftTimeLimitExceeded) as error:
        outcomes.postpone(email, error)
        raise
    except smtp.AnswerMissing as error:
        try_again_once(email, error)
    except Exception as error:
        # E-mail backends have errors of their own, so this cannot name them all.
        if is_refused_for_good(error):
            close_unsent(email, State.REFUSED, error)
        else:
            outcomes.postpone(email, error)
    else:
        close_sent(email)


def message_of(email: VerificationEmail) -> EmailMessage:
    """The message with the link, from settings.DEFAULT_FROM_EMAIL to the user."""
    context = {
        "user": email.user,
        "domain": email.domain,
        "link": verification_link(email.user, email.domain),
    }
    return EmailMessage(
        subject=f"Confirm your e-mail address for {email.domain}",
        body=render_to_string("authentication/verification_email.txt", context),
        to=[email.user.email],
    )


def try_again_once(email: VerificationEmail, error: Exception) -> None:
    """Postpone an e-mail that the mail server took without an answer; close it the second time.

    Nobody knows whether such an e-mail was sent. Two of them are better than none, and enough.
    """
    unanswered = email.unanswered + 1
    if unanswered < MAX_UNANSWERED:
        outcomes.postpone(email, error, unanswered=unanswered)
    else:
        close_unsent(email, State.POSSIBLY_SENT, error, unanswered=unanswered)


def close_sent(email: VerificationEmail) -> None:
    this = VerificationEmail.objects.filter(pk=email.pk)
    outcomes.close(this, State.SENT, sent_at=Now(), last_error="")
    logger.info("verification e-mail of user %s sent", email.user_id)


def close_unsent(email: VerificationEmail, state: str, error: Exception, **values: int) -> None:
    description = describe(error)
    this = VerificationEmail.objects.filter(pk=email.pk)
    outcomes.close(this, state, last_error=description, **values)
    logger.warning(
        "verification e-mail of user %s %s, not tried again: %s",
        email.user_id,
        state,
        without_addresses(description),
    )
