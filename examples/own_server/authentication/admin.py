from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest

from .models import User, VerificationEmail


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    # Django's own form to add a user does not ask for an e-mail address.
    add_fieldsets = [
        (None, {"fields": ["username", "email", "usable_password", "password1", "password2"]})
    ]
    list_display = [*DjangoUserAdmin.list_display, "is_active", "verified_at"]


@admin.register(VerificationEmail)
class VerificationEmailAdmin(admin.ModelAdmin):
    list_display = ["user", "domain", "requested_at", "attempts", "state_in_words"]
    list_filter = ["state"]
    list_select_related = ["user"]
    search_fields = ["user__username", "user__email"]
    ordering = ["-requested_at"]
    actions = ["send_again"]
    readonly_fields = [field.name for field in VerificationEmail._meta.fields]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description="state", ordering="state")
    def state_in_words(self, email: VerificationEmail) -> str:
        if email.last_error:
            return f"{email.state}: {email.last_error}"
        return email.state

    @admin.action(description="Send again", permissions=["change"])
    def send_again(self, request: HttpRequest, emails: QuerySet[VerificationEmail]) -> None:
        """Try the e-mails once more that were closed without being sent."""
        reopened = 0
        left_alone = 0
        for email in emails:
            if reopen(email):
                reopened += 1
            else:
                left_alone += 1
        if reopened:
            self.message_user(
                request,
                f"{reopened} will be sent within two minutes,"
                " unless the user has confirmed the address by then.",
            )
        if left_alone:
            self.message_user(
                request,
                f"{left_alone} left as they are: sent already, still waiting,"
                " or the user has a newer one that is waiting.",
                messages.WARNING,
            )


def reopen(email: VerificationEmail) -> bool:
    """Make an e-mail that was not sent pending again, as if it had just been requested.

    Return False if that is not possible: the e-mail was sent, it is still pending, or its user has
    another one that is pending.
    """
    unsent = VerificationEmail.objects.filter(pk=email.pk, closed_at__isnull=False, sent_at=None)
    try:
        with transaction.atomic():
            reopened = unsent.update(
                state=VerificationEmail.State.WAITING,
                requested_at=Now(),
                due_at=Now(),
                closed_at=None,
                claimed_by="",
                attempts=0,
                unanswered=0,
                last_error="",
            )
    except IntegrityError:
        # A user has at most one pending e-mail. The database refuses a second.
        return False
    return reopened > 0
