"""Real servers, certificates, processes and a browser, for the demo and the live tests.

Standard library only, but for `certificates` (trustme) and `service` (cookiecutter, PyYAML).
"""
