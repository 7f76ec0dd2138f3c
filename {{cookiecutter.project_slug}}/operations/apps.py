from importlib import import_module

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "operations"

    def ready(self):
        import_module("{{ cookiecutter.project_slug }}.checks")
