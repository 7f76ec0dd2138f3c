from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "operations"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (to import it registers them)
