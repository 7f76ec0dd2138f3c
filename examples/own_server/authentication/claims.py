"""Claims: of all tasks and sweeps of all workers, one at a time sends a verification e-mail."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from . import outcomes
from .mail_errors import describe
from .models import Lease, User, VerificationEmail, VerificationEmailQuerySet

logger = logging.getLogger(__name__)

# A claim ends when no task can be running any more. So the e-mail of a worker that died while
# sending it is tried again.
CLAIM_DURATION = timedelta(seconds=settings.CELERY_TASK_TIME_LIMIT)

# Two workers may have the same name, so claims also carry this. A worker forks its processes after
# this line has run, so they all share it.
THIS_RUN = uuid.uuid4().hex[:12]

# Milliseconds that each statement of give_back_claims() may wait for a lock.
GIVE_BACK_TIMEOUT = 3000


def claimant(hostname: str | None) -> str:
    """The name by which this run of a worker claims e-mails. Another worker never has the same.

    `hostname` is the worker's, or None for a task that is called directly.
    """
    return f"{hostname or 'here'} {THIS_RUN}"


def claim(pk: int, candidates: VerificationEmailQuerySet, worker: str) -> VerificationEmail | None:
    """Claim the e-mail for this worker alone, if it is still one of the candidates.

    Return None if it is not: another worker was faster. Return None as well if its user no longer
    needs it, and close it.
    """
    # The update asks for the candidates again. Of two processes that have read the row, only the
    # first one changes it.
    changed = candidates.filter(pk=pk).update(
        claimed_by=worker,
        due_at=Now() + CLAIM_DURATION,
        attempts=F("attempts") + 1,
    )
    if not changed:
        return None
    # The user is looked at after the claim, because the address may have been verified just now.
    claimed = VerificationEmail.objects.filter(pk=pk)
    needed = claimed.filter(user__in=User.awaiting_verification_email())
    email = needed.select_related("user").first()
    if email is None:
        outcomes.close(claimed, VerificationEmail.State.NOT_NEEDED)
    return email


def give_back_claims(worker: str) -> int:
    """Free the e-mails that a worker's processes had claimed, and return how many there were.

    Call it when these processes have ended. The next worker can then send the e-mails at once. An
    error of the database is logged and not raised, because the claims end by themselves.
    """
    try:
        outcomes.drop_broken_connection()
        with impatient_transaction():
            claimed = VerificationEmail.objects.pending().filter(claimed_by=worker)
            count = claimed.update(due_at=Now(), claimed_by="")
            Lease.objects.filter(worker=worker).update(until=Now(), worker="")
    except Error as error:
        logger.warning(
            "claims of %s not given back, they end by themselves: %s", worker, describe(error)
        )
        return 0
    if count:
        logger.info("%s verification e-mails given back by %s", count, worker)
    return count


@contextmanager
def impatient_transaction() -> Iterator[None]:
    """A transaction in which no statement waits longer than GIVE_BACK_TIMEOUT."""
    if connection.vendor == "sqlite":
        # SQLite waits for its lock when the transaction begins, so this stands before it.
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {GIVE_BACK_TIMEOUT}")
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {GIVE_BACK_TIMEOUT}")
        yield
