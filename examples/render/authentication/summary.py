"""What the doctor says about the verification e-mails."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, F, Q
from django.db.models.functions import Now

from .mail_errors import without_addresses
from .models import VerificationEmail

State = VerificationEmail.State

OVERDUE_AFTER = timedelta(minutes=5)
LOOK_BACK = timedelta(days=1)


@dataclass(frozen=True)
class Summary:
    """How many e-mails wait, and how many went wrong."""

    waiting: int  # to be sent
    overdue: int  # of those waiting: due for more than OVERDUE_AFTER
    failing: int  # of those waiting: the last attempt failed
    refused: int  # within LOOK_BACK: refused, given up, or possibly sent
    reason: str  # what the mail server said about the latest that fails or was refused, or ""


def summarize_emails() -> Summary:
    """Count the e-mails. Raises django.db.Error."""
    pending = Q(closed_at=None)
    overdue = pending & Q(due_at__lt=Now() - OVERDUE_AFTER)
    failing = pending & ~Q(last_error="")
    refused = Q(
        state__in=[State.REFUSED, State.GIVEN_UP, State.POSSIBLY_SENT],
        closed_at__gt=Now() - LOOK_BACK,
    )
    counts = VerificationEmail.objects.aggregate(
        waiting=Count("pk", filter=pending),
        overdue=Count("pk", filter=overdue),
        failing=Count("pk", filter=failing),
        refused=Count("pk", filter=refused),
    )
    with_reason = VerificationEmail.objects.filter(failing | refused).exclude(last_error="")
    # Those that still fail come first: they have no `closed_at`.
    latest = with_reason.order_by(F("closed_at").desc(nulls_first=True), "-due_at").first()
    reason = ""
    if latest is not None:
        reason = without_addresses(latest.last_error)
    return Summary(**counts, reason=reason)
