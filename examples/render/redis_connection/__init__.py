"""The connection to Redis, as the template cookiecutter-rediss ships it.

Read it, and leave it as it is: `cruft update` renews it. It uses redis-py and kombu, and imports
nothing of this project: neither its settings nor Celery. Only its texts name the variables,
commands and pages of this project.

What is given:

- url: a Redis URL, read strictly, and which hosts are private.
- credentials: the files with certificates and keys, judged. pem: their text. x509: what Python's
  ssl does not tell of a certificate.
- errors: what a wrong setting raises.
- policy: what one Redis URL means for every client. It is where all of the above comes together.

What connects:

- timeouts: how long a connection waits.
- context: the SSL context, which trusts what a policy trusts and nothing else.
- connection: redis-py's connections with that context. aio: the same for asyncio.
- transport: kombu's transport over these connections.
- internals: every private name of redis-py and kombu that is needed for it.

What explains:

- handshake: a TLS handshake without a client, to see what a server shows.
- diagnosis: what is wrong with a connection. hints: what to do about it.
"""
