from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from .models import DeafWorker, PutAsideMessage


class ReadOnly(admin.ModelAdmin):
    """Rows that the service writes: people may read and delete them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(PutAsideMessage)
class PutAsideMessageAdmin(ReadOnly):
    list_display = ["at", "queue", "reason", "worker"]
    ordering = ["-at"]


@admin.register(DeafWorker)
class DeafWorkerAdmin(ReadOnly):
    list_display = ["at", "worker", "detail"]
    ordering = ["-at"]
