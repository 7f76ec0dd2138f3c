from django.contrib import admin

from .models import DeafWorker, PutAsideMessage


class ReadOnly(admin.ModelAdmin):
    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False


@admin.register(PutAsideMessage)
class PutAsideMessageAdmin(ReadOnly):
    list_display = ["at", "queue", "reason", "worker"]
    ordering = ["-at"]


@admin.register(DeafWorker)
class DeafWorkerAdmin(ReadOnly):
    list_display = ["at", "worker", "seen"]
    ordering = ["-at"]
