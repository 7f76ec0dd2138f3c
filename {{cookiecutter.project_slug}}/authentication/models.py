from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower, Now


class User(AbstractUser):
    """A person who registered: inactive until the link in the verification e-mail was followed."""

    email = models.EmailField("e-mail address")
    verified_at = models.DateTimeField(null=True, blank=True, editable=False)

    @classmethod
    def unverified(cls) -> models.QuerySet:
        """Who still has to verify; whoever has logged in was made inactive by somebody else."""
        return cls.objects.filter(verified_at=None, is_active=False, last_login=None)

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                condition=~models.Q(email=""),
                name="unique_email",
                violation_error_message="A user with that e-mail address already exists.",
            )
        ]


class VerificationEmail(models.Model):
    """One e-mail that was promised: Redis may lose its task, this row stays.

    A row is pending until `closed_at` is set. A pending row is claimed while `claimed_by` names a
    worker and `due_at` lies ahead. Every time is the database's: the clocks of two machines differ.
    """

    class State(models.TextChoices):
        WAITING = "waiting"
        SENT = "sent"
        POSSIBLY_SENT = "possibly sent"
        REFUSED = "refused"
        NOT_NEEDED = "not needed"
        GIVEN_UP = "given up"

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    # Kept because a later attempt has no request to take it from.
    domain = models.CharField(max_length=255)
    requested_at = models.DateTimeField("requested", db_default=Now())
    # When the sweep may try it; for a claimed row, when the claim ends.
    due_at = models.DateTimeField("due", db_default=Now())
    attempts = models.PositiveIntegerField(default=0)
    # How often the mail server took the whole message and ended without an answer.
    unanswered = models.PositiveIntegerField(default=0)
    claimed_by = models.CharField(max_length=255, default="", blank=True)
    sent_at = models.DateTimeField("sent", null=True, blank=True)
    closed_at = models.DateTimeField("closed", null=True, blank=True)
    state = models.CharField(max_length=20, choices=State, default=State.WAITING)
    # What the mail server said last; it may hold the user's address.
    last_error = models.TextField(default="", blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user"],
                condition=models.Q(closed_at=None),
                name="one_pending_verification_email",
            ),
            models.CheckConstraint(
                condition=models.Q(state="waiting", closed_at=None)
                | (~models.Q(state="waiting") & models.Q(closed_at__isnull=False)),
                name="verification_email_waits_until_closed",
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at", "id"],
                condition=models.Q(closed_at=None),
                name="pending_by_due_at",
            )
        ]

    def __str__(self):
        return f"to {self.user} ({self.state})"


class Lease(models.Model):
    """Who alone may do what `name` says until `until`, by the database's clock."""

    name = models.CharField(max_length=80, primary_key=True)
    # A random text that only the holder knows.
    ticket = models.CharField(max_length=32, default="")
    worker = models.CharField(max_length=255, default="", blank=True)
    until = models.DateTimeField(db_default=Now())

    def __str__(self):
        return f"{self.name} until {self.until:%Y-%m-%d %H:%M:%S} by {self.worker}"
