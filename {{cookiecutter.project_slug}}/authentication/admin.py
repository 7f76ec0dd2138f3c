from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin

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
    list_display = ["user", "domain", "requested_at", "sent_at"]
