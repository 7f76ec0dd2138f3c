"""The verification e-mail: promised in the database, sent by the worker, at least once."""

import logging
from datetime import timedelta
from functools import partial

from celery import shared_task
from django.conf import settings
from django.core import signing
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import F, Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError

from .models import User, VerificationEmail

logger = logging.getLogger(__name__)

SALT = "authentication.verify"
LINK_VALID_FOR = timedelta(days=1)
SWEEP_AFTER = timedelta(seconds=60)
# A worker that died while sending gives its row back once no task can still be running.
CLAIMED_FOR = timedelta(seconds=settings.CELERY_TASK_TIME_LIMIT)


def request_verification(user: User, domain: str) -> bool:
    """Promise an e-mail with a link to `domain`; False if one was promised within a minute.

    Call it in the transaction that saves the user. The e-mail survives a Redis that is down:
    `housekeeping` sends what the queue lost.
    """
    now = timezone.now()
    if VerificationEmail.objects.filter(user=user, requested_at__gt=now - SWEEP_AFTER).exists():
        return False
    promise = {"domain": domain, "requested_at": now}
    VerificationEmail.objects.update_or_create(user=user, sent_at=None, defaults=promise)
    transaction.on_commit(partial(queue, user.pk, domain), robust=True)
    return True


def queue(user_id: int, domain: str):
    """Send the task, or leave it to housekeeping when the broker cannot be reached."""
    try:
        send_verification_email.delay(user_id, domain)
    except OperationalError as error:
        logger.warning("verification e-mail of user %s not queued yet: %s", user_id, error)


@shared_task
def send_verification_email(user_id: int, domain: str):
    """Mail the user a link to verify the e-mail address, unless that is done already.

    Idempotent: an e-mail is sent once for each row, and a row is made if there is none. Only a
    worker that dies between sending and saving that it has sent makes a second one.
    """
    user = User.unverified().filter(pk=user_id).first()
    row = user and claim(user, domain)
    if not row:
        logger.info("no verification e-mail to send to user %s (any more, or just now)", user_id)
        return
    values = {"user": user, "domain": row.domain, "link": link(user, row.domain)}
    text = render_to_string("authentication/verification_email.txt", values)
    try:
        send_mail(f"Confirm your e-mail address for {row.domain}", text, None, [user.email])
    except OSError as error:  # smtplib's errors are OSErrors too
        logger.warning("verification e-mail of user %s will be tried again: %s", user_id, error)
        return
    VerificationEmail.objects.filter(pk=row.pk).update(sent_at=timezone.now())
    logger.info("verification e-mail of user %s sent", user_id)


def claim(user: User, domain: str) -> VerificationEmail | None:
    """The user's pending row, for this process alone, or None; the first one is made if needed."""
    now = timezone.now()
    rows = VerificationEmail.objects.filter(user=user)
    if not rows.exists():
        rows.get_or_create(user=user, sent_at=None, defaults={"domain": domain})
    free = rows.filter(Q(attempted_at=None) | Q(attempted_at__lt=now - CLAIMED_FOR), sent_at=None)
    row = free.first()
    # The update repeats the condition: of two processes that saw the row, one changes it.
    return row if row and free.filter(pk=row.pk).update(attempted_at=now) else None


def link(user: User, domain: str) -> str:
    token = signing.dumps([user.pk, user.email], salt=SALT)
    scheme = "https" if settings.SECURE_SSL_REDIRECT else "http"
    return f"{scheme}://{domain}{reverse('verify', args=[token])}"


def user_of(token: str) -> User | None:
    """The unverified user whom the link was sent to, or None if it is forged, used or too old."""
    try:
        user_id, email = signing.loads(token, salt=SALT, max_age=LINK_VALID_FOR)
    except signing.BadSignature:
        return None
    return User.unverified().filter(pk=user_id, email=email).first()


def queue_pending():
    """Queue again what has waited for over a minute: after 1, 2, 4, … minutes, for a day."""
    now = timezone.now()
    overdue = (now - LINK_VALID_FOR, now - SWEEP_AFTER)
    rows = VerificationEmail.objects.filter(sent_at=None, requested_at__range=overdue)
    for row in rows.order_by(F("attempted_at").asc(nulls_first=True))[:100]:
        tried = row.attempted_at or row.requested_at
        if now - tried >= tried - row.requested_at:
            send_verification_email.delay(row.user_id, row.domain)
