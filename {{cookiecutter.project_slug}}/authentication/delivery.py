"""Sending what is promised: who may try which row and when, and what becomes of it.

Every time that is compared is the database's: `Now()`.
"""

import logging
import re
import smtplib
import time
import uuid
from contextlib import suppress
from datetime import timedelta

from billiard.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import Error, close_old_connections, connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.template.loader import render_to_string

from . import smtp
from .links import LINK_VALID_FOR, link
from .models import Lease, User, VerificationEmail

logger = logging.getLogger(__name__)

State = VerificationEmail.State

# A worker that died while sending gives its row back once no task can still be running.
CLAIMED_FOR = timedelta(seconds=settings.CELERY_TASK_TIME_LIMIT)
BACK_OFF = [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 15)]  # then 15 each time
UNANSWERED_MAX = 2  # mails that a server took without an answer
SAVE_PAUSES = (1, 3)  # seconds before the second and the third try to save an outcome
SWEEP = "sweep"
# Two workers may have one name. A worker's processes are forked after this line, and share it.
THIS_RUN = uuid.uuid4().hex[:12]
SLICE = 10  # seconds; less than CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT
BATCH = 100  # rows read at once
AUTHENTICATION_REQUIRED = 530  # RFC 4954 and RFC 3207: before log-in, or before STARTTLS

PENDING = Q(closed_at=None)
DUE = PENDING & Q(due_at__lte=Now())
CLAIMED = PENDING & ~Q(claimed_by="") & Q(due_at__gt=Now())
# What the task of a request may try: it comes before the sweep may, but does not cut a back-off.
FREE = DUE | (PENDING & Q(attempts=0))


def claimant(worker: str | None) -> str:
    """What claims are held by: this run of a worker. Another worker may have the same name."""
    return f"{worker or 'here'} {THIS_RUN}"


class ServerUnavailable(Exception):
    """The mail server fails for every mail: not reached, or it refuses the log-in or the sender."""


class MailServer:
    """A connection of the e-mail backend, kept open over many mails, opened again after an error.

    A context manager, which closes the connection.
    """

    def __init__(self):
        self.backend = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def send(self, message: EmailMessage):
        """Raises ServerUnavailable, SoftTimeLimitExceeded, or what the backend raises."""
        reused = self.backend is not None
        if not reused:
            self.open()
        try:
            self.backend.send_messages([message])
        except Exception as error:
            self.close()
            if not fails_for_all(error):
                raise
            if not reused:
                raise ServerUnavailable(words_of(error)) from error
            # Many servers end a connection after so many mails.
            self.send(message)

    def open(self):
        try:
            backend = get_connection()
            backend.open()
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            raise ServerUnavailable(words_of(error)) from error
        self.backend = backend

    def close(self):
        backend, self.backend = self.backend, None
        if backend is not None:
            with suppress(Exception):  # it may be broken already
                backend.close()


def fails_for_all(error: Exception) -> bool:
    """Whether the mail server would answer every other mail like this one."""
    whole = (smtplib.SMTPSenderRefused, smtplib.SMTPHeloError, smtp.EndedEarly)
    return isinstance(error, whole) or answer_of(error)[0] == AUTHENTICATION_REQUIRED


def answer_of(error: Exception) -> tuple[int, str]:
    """Code and text of an SMTP answer; 0 and no text if the error is none."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(error.recipients.values()), (0, b""))
    elif isinstance(error, smtplib.SMTPResponseException):
        code, text = error.smtp_code, error.smtp_error
    else:
        return 0, ""
    return code, text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def refused_for_good(error: Exception) -> bool:
    kinds = (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)
    return isinstance(error, kinds) and 500 <= answer_of(error)[0] <= 599


def words_of(error: Exception) -> str:
    """The error in one line; PostgreSQL stores no NUL, and a log line must not be broken."""
    code, text = answer_of(error)
    words = f"{code} {text}" if code else f"{type(error).__name__}: {error}"
    return "".join(c for c in " ".join(words.split()) if c.isprintable())[:500]


def without_addresses(words: str) -> str:
    """For the log: servers repeat the address that they refuse."""
    return re.sub(r"[^\s<>:;,\"'()]+@[^\s<>:;,\"'()]+", "<address>", words)


def claim(pk: int, condition: Q, worker: str) -> VerificationEmail | None:
    """The row, for this worker alone, or None if it does not fulfil the condition (any more).

    A row that turns out to have nothing to send is closed.
    """
    row = VerificationEmail.objects.filter(pk=pk)
    claim = {"claimed_by": worker, "due_at": Now() + CLAIMED_FOR, "attempts": F("attempts") + 1}
    # The update repeats the condition: of two processes that saw the row, one changes it.
    if not row.filter(condition).update(**claim):
        return None
    # Read after the claim: the user may have verified a moment ago.
    claimed = row.filter(user__in=addressees()).select_related("user").first()
    if claimed is None:
        close(row, State.NOT_NEEDED)
    return claimed


def addressees() -> QuerySet:
    return User.unverified().exclude(email="")


def close_what_is_in_vain(rows: QuerySet):
    """Close the rows that have nothing to send, and those older than a day."""
    given_up = close(rows.filter(requested_at__lte=Now() - LINK_VALID_FOR), State.GIVEN_UP)
    if given_up:
        logger.warning("given up after a day: %s verification e-mails", given_up)
    close(rows.exclude(user__in=addressees()), State.NOT_NEEDED)


def close(rows: QuerySet, state: State, **values) -> int:
    """The number of rows that were pending and are closed now. Raises django.db.Error."""
    return save(rows.filter(PENDING), closed_at=Now(), claimed_by="", state=state, **values)


def postpone(row: VerificationEmail, error: Exception, **values):
    """Give the claim up, unless it ended and another worker has one. Raises django.db.Error."""
    mine = {"pk": row.pk, "claimed_by": row.claimed_by, "attempts": row.attempts}
    pause = BACK_OFF[min(row.attempts, len(BACK_OFF)) - 1]
    values |= {"claimed_by": "", "due_at": Now() + pause, "last_error": words_of(error)}
    save(VerificationEmail.objects.filter(PENDING, **mine), **values)
    words = without_addresses(words_of(error))
    minutes = pause // timedelta(minutes=1)
    message = "verification e-mail of user %s will be tried again in %s min: %s"
    logger.warning(message, row.user_id, minutes, words)


def save(rows: QuerySet, **values) -> int:
    """Update, three times if the database is away: what was sent must not be sent again."""
    for pause in SAVE_PAUSES:
        try:
            return rows.update(**values)
        except (Error, SoftTimeLimitExceeded) as error:
            logger.warning("not saved, trying again in %s s: %s", pause, words_of(error))
            drop_broken_connection()
            time.sleep(pause)
    return rows.update(**values)


def drop_broken_connection():
    """Django opens a new one for the next query. A transaction is lost with its connection."""
    if not connection.in_atomic_block:
        close_old_connections()


def message_to(row: VerificationEmail) -> EmailMessage:
    values = {"user": row.user, "domain": row.domain, "link": link(row.user, row.domain)}
    text = render_to_string("authentication/verification_email.txt", values)
    subject = f"Confirm your e-mail address for {row.domain}"
    return EmailMessage(subject, text, None, [row.user.email])


def deliver(row: VerificationEmail, server: MailServer):
    """Send the mail of a claimed row, and save what became of it.

    Raises ServerUnavailable or SoftTimeLimitExceeded, with the claim given up, and django.db.Error.
    """
    this = VerificationEmail.objects.filter(pk=row.pk)
    try:
        server.send(message_to(row))
    except (ServerUnavailable, SoftTimeLimitExceeded) as error:
        postpone(row, error)
        raise
    except smtp.AnswerMissing as error:
        unanswered = row.unanswered + 1
        if unanswered < UNANSWERED_MAX:
            postpone(row, error, unanswered=unanswered)
            return
        words = words_of(error)
        close(this, State.POSSIBLY_SENT, last_error=words, unanswered=unanswered)
        message = "verification e-mail of user %s possibly sent, not tried again: %s"
        logger.warning(message, row.user_id, without_addresses(words))
    except Exception as error:  # backends have errors of their own
        if not refused_for_good(error):
            postpone(row, error)
            return
        words = words_of(error)
        close(this, State.REFUSED, last_error=words)
        message = "verification e-mail of user %s refused, not tried again: %s"
        logger.warning(message, row.user_id, without_addresses(words))
    else:
        close(this, State.SENT, sent_at=Now(), last_error="")
        logger.info("verification e-mail of user %s sent", row.user_id)


def sweep_is_missing() -> bool:
    """Whether something is due and no sweep is running."""
    running = Lease.objects.filter(name=SWEEP, until__gt=Now())
    return VerificationEmail.objects.filter(DUE).exists() and not running.exists()


def sweep(worker: str, ticket: str = "") -> str:
    """Send what is due for about SLICE seconds; a ticket for the next slice, or "" at the end.

    Without a ticket it begins a new chain of slices. While one is running, of all chains, it does
    nothing: one lease is for all, and a ticket is good for one slice, even if its message comes
    twice. A chain whose worker died is replaced when its lease ends, after CLAIMED_FOR.

    It takes the rows in the order of `due_at`, and an attempt that fails sets `due_at` to a time
    after all that is due. So the rows before any row are a finite set, to which none is added:
    nobody's rows can keep another's waiting for ever.

    If the mail server fails for all, the chain ends. The row that was tried is postponed; the
    others stay due. Raises django.db.Error.
    """
    ticket = take_lease(worker, ticket)
    if not ticket:
        return ""
    try:
        more = send_what_is_due(worker)
    except ServerUnavailable as error:
        logger.warning("the sweep ends, for the mail server fails: %s", error)
        more = False
    except SoftTimeLimitExceeded:
        more = True  # the row that took so long is postponed
    return pass_lease_on(ticket, more)


def send_what_is_due(worker: str) -> bool:
    """Whether more is due when the slice ends."""
    due = VerificationEmail.objects.filter(DUE)
    ends = time.monotonic() + SLICE
    with MailServer() as server:
        while True:
            close_what_is_in_vain(due)
            batch = list(due.order_by("due_at", "pk").values_list("pk", flat=True)[:BATCH])
            if not batch:
                return False
            for pk in batch:
                row = claim(pk, DUE, worker)
                if row:
                    deliver(row, server)
                if time.monotonic() >= ends:
                    return due.exists()


def take_lease(worker: str, ticket: str) -> str:
    """A new ticket, which is good until the slice ends, or "" if another chain is running."""
    lease, _ = Lease.objects.get_or_create(name=SWEEP)
    mine = Q(until__lte=Now())
    if ticket:
        mine |= Q(ticket=ticket)
    taken = {"ticket": uuid.uuid4().hex, "worker": worker, "until": Now() + CLAIMED_FOR}
    if Lease.objects.filter(mine, pk=lease.pk).update(**taken):
        return taken["ticket"]
    return ""


def pass_lease_on(ticket: str, more: bool) -> str:
    """The ticket for the next slice; "" if there is none, or the lease was lost."""
    following = uuid.uuid4().hex if more else ""
    until = Now() + CLAIMED_FOR if more else Now()
    held = Lease.objects.filter(name=SWEEP, ticket=ticket)
    passed = held.update(ticket=following, worker="", until=until)
    return following if passed else ""


def end_chain(ticket: str):
    """Free the lease of a chain whose next slice could not be queued."""
    Lease.objects.filter(name=SWEEP, ticket=ticket).update(ticket="", until=Now())
