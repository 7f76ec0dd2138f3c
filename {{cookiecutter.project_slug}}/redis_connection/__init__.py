"""The connection to Redis, as the template cookiecutter-rediss ships it.

Read it, and leave it as it is: `cruft update` renews it. It knows redis-py and kombu, and nothing
of this project: neither its settings nor Celery.
"""
