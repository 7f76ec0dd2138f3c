"""What becomes of a verification e-mail: it is closed, or postponed to another attempt."""

import logging
import time
from datetime import timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error, close_old_connections, connection
from django.db.models.functions import Now

from .links import LINK_VALID_FOR
from .mail_errors import describe, without_addresses
from .models import User, VerificationEmail, VerificationEmailQuerySet

logger = logging.getLogger(__name__)

State = VerificationEmail.State

# The waits after the first failed attempts of an e-mail. The last one is for all further attempts.
RETRY_DELAYS = [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 15)]
# Seconds before the second and the third try to save an outcome.
SAVE_PAUSES = (1, 3)


def retry_delay(attempts: int) -> timedelta:
    """How long an e-mail waits for its next attempt, after so many attempts that failed.

    It waits 1, 2, 4 and 8 minutes after the first four, and 15 minutes after every later one. One
    day after the request there is no next attempt: `close_pointless` gives the e-mail up.
    """
    number = min(attempts, len(RETRY_DELAYS))
    return RETRY_DELAYS[number - 1]


def postpone(email: VerificationEmail, error: Exception, **values: Any) -> None:
    """Give the claim up, and let the e-mail wait for its next attempt.

    If the claim has ended and another worker has claimed the e-mail since, that claim stays. Raises
    django.db.Error.
    """
    delay = retry_delay(email.attempts)
    description = describe(error)
    this_claim = VerificationEmail.objects.pending().filter(
        pk=email.pk, claimed_by=email.claimed_by, attempts=email.attempts
    )
    save(this_claim, claimed_by="", due_at=Now() + delay, last_error=description, **values)
    logger.warning(
        "verification e-mail of user %s will be tried again in %s min: %s",
        email.user_id,
        delay // timedelta(minutes=1),
        without_addresses(description),
    )


def close(emails: VerificationEmailQuerySet, state: str, **values: Any) -> int:
    """Close those that are still pending; return their number. Raises django.db.Error."""
    return save(emails.pending(), closed_at=Now(), claimed_by="", state=state, **values)


def close_pointless(emails: VerificationEmailQuerySet) -> None:
    """Close the e-mails that would come a day late, and those that nobody needs any more."""
    too_old = emails.filter(requested_at__lte=Now() - LINK_VALID_FOR)
    given_up = close(too_old, State.GIVEN_UP)
    if given_up:
        logger.warning("%s verification e-mails given up after a day", given_up)
    close(emails.exclude(user__in=User.awaiting_verification_email()), State.NOT_NEEDED)


def save(emails: VerificationEmailQuerySet, **values: Any) -> int:
    """Update the e-mails; return their number. Raises django.db.Error after the third failure.

    It tries three times over 4 seconds, in case the database is away for a moment. An e-mail that
    was sent and is not saved as sent would be sent again.
    """
    for pause in SAVE_PAUSES:
        try:
            return emails.update(**values)
        except (Error, SoftTimeLimitExceeded) as error:
            logger.warning("not saved, trying again in %s s: %s", pause, describe(error))
            drop_broken_connection()
            time.sleep(pause)
    return emails.update(**values)


def drop_broken_connection() -> None:
    """Let Django open a new connection for the next query, if this one is broken.

    Within a transaction the connection stays, because the transaction would be lost with it.
    """
    if not connection.in_atomic_block:
        close_old_connections()
