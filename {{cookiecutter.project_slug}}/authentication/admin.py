from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from .models import User, VerificationEmail

admin.site.register(User, UserAdmin)


@admin.register(VerificationEmail)
class VerificationEmailAdmin(admin.ModelAdmin):
    list_display = ("user", "domain", "requested_at", "sent_at")
    list_filter = ("sent_at",)
    readonly_fields = ("requested_at", "attempted_at", "sent_at")
