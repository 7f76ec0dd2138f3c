"""Real servers, certificates, processes and a browser, for the demo and the live tests.

It needs the standard library only, except for `certificates` (trustme) and `service` (cookiecutter,
PyYAML).
"""
