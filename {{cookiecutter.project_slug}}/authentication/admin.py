from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest

from .models import User, VerificationEmail


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    # Django's own form to add a user asks for no e-mail address.
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
    def state_in_words(self, row: VerificationEmail) -> str:
        return f"{row.state}: {row.last_error}" if row.last_error else row.state

    @admin.action(description="Send again", permissions=["change"])
    def send_again(self, request: HttpRequest, rows: QuerySet):
        """Open those again that are closed and were not sent."""
        opened = 0
        for row in rows:
            opened += open_again(row)
        if opened:
            words = f"{opened} will be sent within two minutes, if the user still has to verify."
            self.message_user(request, words)
        if left := len(rows) - opened:
            words = f"{left} left as they are: sent, waiting, or another one of the user waits."
            self.message_user(request, words, messages.WARNING)


def open_again(row: VerificationEmail) -> int:
    """1 if the row is pending again, else 0."""
    fresh = {"requested_at": Now(), "due_at": Now(), "claimed_by": "", "last_error": ""}
    fresh |= {"attempts": 0, "unanswered": 0, "closed_at": None, "state": row.State.WAITING}
    unsent = VerificationEmail.objects.filter(pk=row.pk, closed_at__isnull=False, sent_at=None)
    try:
        with transaction.atomic():
            return unsent.update(**fresh)
    except IntegrityError:  # the user has another pending one
        return 0
