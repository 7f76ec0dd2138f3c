"""The connection to Redis, as the template cookiecutter-rediss ships it.

Read it, and leave it as it is: `cruft update` renews it. It knows redis-py and kombu, and nothing
of this project: neither its settings nor Celery.

- url: which hosts are private.
- pem: certificates and keys, from files or as text. x509: whether a CA is the end of a chain.
- context: the SSL context, which trusts what a policy trusts and nothing else.
- connection, aio: redis-py's connection classes with that context. aio is for asyncio.
- policy: what one Redis URL means for every client.
- transport: kombu's transport over these connections.
- handshake, diagnosis, hints: what is wrong with a connection, and what to do about it.

Every private name of redis-py and kombu is in connection, aio or transport. The service's
tests/test_connection.py and tests/test_transport.py ask living objects whether each still works.
"""
