from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone


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
    """One e-mail that was promised, kept until it is sent: Redis may lose its task, this row stays.

    `domain` is kept because a later attempt has no request to take it from.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    domain = models.CharField(max_length=255)
    requested_at = models.DateTimeField(default=timezone.now)
    attempted_at = models.DateTimeField(null=True, editable=False)
    sent_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user"],
                condition=models.Q(sent_at=None),
                name="one_pending_verification_email",
            )
        ]

    def __str__(self):
        return f"to {self.user} ({'sent' if self.sent_at else 'pending'})"
