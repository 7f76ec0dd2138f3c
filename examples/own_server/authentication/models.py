from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now


class User(AbstractUser):
    """Somebody who registered; inactive until the link in the verification e-mail is followed."""

    email = models.EmailField("e-mail address")
    verified_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                condition=~Q(email=""),
                name="unique_email",
                violation_error_message="A user with that e-mail address already exists.",
            )
        ]

    @classmethod
    def unverified(cls) -> "models.QuerySet[User]":
        """Users who registered and still have to confirm their e-mail address.

        A user who has logged in before is left out: staff must have made that account inactive,
        and a verification link must not open it again.
        """
        return cls.objects.filter(verified_at=None, is_active=False, last_login=None)

    @classmethod
    def awaiting_verification_email(cls) -> "models.QuerySet[User]":
        """Unverified users who have an address to send the e-mail to."""
        return cls.unverified().exclude(email="")


class VerificationEmailQuerySet(models.QuerySet):
    """What the tasks and the sweep look for. All times are compared by the database's clock."""

    def pending(self) -> "VerificationEmailQuerySet":
        """E-mails that are still to be sent."""
        return self.filter(closed_at=None)

    def due(self) -> "VerificationEmailQuerySet":
        """Pending e-mails that the sweep may try now.

        A new e-mail is due 60 seconds after its request, because its own task sends it sooner.
        After a failed attempt it is due when `outcomes.retry_delay` is over: after 1, 2, 4, 8, and
        then every 15 minutes. A claimed e-mail is due when its claim ends, 90 seconds after it
        began: by then the worker that claimed it has died.
        """
        return self.pending().filter(due_at__lte=Now())

    def free_for_task(self) -> "VerificationEmailQuerySet":
        """Pending e-mails that the task of a request may try now: those due, and those untried.

        The task of a request comes before the e-mail is due, so it may try one that is untried.
        After a failed attempt it has to wait as the sweep does.
        """
        return self.pending().filter(Q(due_at__lte=Now()) | Q(attempts=0))

    def claimed(self) -> "VerificationEmailQuerySet":
        """Pending e-mails that a worker is sending now."""
        return self.pending().exclude(claimed_by="").filter(due_at__gt=Now())

    def unclaimed(self) -> "VerificationEmailQuerySet":
        """Pending e-mails that no worker is sending now."""
        return self.pending().filter(Q(claimed_by="") | Q(due_at__lte=Now()))


class VerificationEmail(models.Model):
    """An e-mail with a verification link that a user was promised.

    Redis may lose the task that is to send it. This row stays, and the sweep finds it.

    The e-mail is pending until `closed_at` is set. While a worker sends it, it is claimed:
    `claimed_by` names the worker, and `due_at` is the end of the claim. All times come from the
    database's clock, because the clocks of two machines differ.
    """

    class State(models.TextChoices):
        WAITING = "waiting"
        SENT = "sent"
        POSSIBLY_SENT = "possibly sent"
        REFUSED = "refused"
        NOT_NEEDED = "not needed"
        GIVEN_UP = "given up"

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    # The host in the link. Only the web request knows it, and later attempts need it.
    domain = models.CharField(max_length=255)
    requested_at = models.DateTimeField("requested", db_default=Now())
    # When the sweep may try the e-mail. While the e-mail is claimed, this is the end of the claim.
    due_at = models.DateTimeField("due", db_default=Now())
    attempts = models.PositiveIntegerField(default=0)
    # How often the mail server took the whole message and hung up without an answer.
    unanswered = models.PositiveIntegerField(default=0)
    claimed_by = models.CharField(max_length=255, default="", blank=True)
    sent_at = models.DateTimeField("sent", null=True, blank=True)
    closed_at = models.DateTimeField("closed", null=True, blank=True)
    state = models.CharField(max_length=20, choices=State, default=State.WAITING)
    # What the mail server said last. It may contain the user's address.
    last_error = models.TextField(default="", blank=True)

    objects = VerificationEmailQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user"],
                condition=Q(closed_at=None),
                name="one_pending_verification_email",
            ),
            models.CheckConstraint(
                condition=Q(state="waiting", closed_at=None)
                | (~Q(state="waiting") & Q(closed_at__isnull=False)),
                name="verification_email_waits_until_closed",
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at", "id"],
                condition=Q(closed_at=None),
                name="pending_by_due_at",
            )
        ]

    def __str__(self) -> str:
        return f"to {self.user} ({self.state})"


class Lease(models.Model):
    """A right that one worker at a time has, such as to run the sweep. It ends by itself."""

    # What the worker may do.
    name = models.CharField(max_length=80, primary_key=True)
    # A random text that only the worker with the right knows.
    ticket = models.CharField(max_length=32, default="")
    worker = models.CharField(max_length=255, default="", blank=True)
    # When the right ends, by the database's clock.
    until = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.name} until {self.until:%Y-%m-%d %H:%M:%S} by {self.worker}"
