"""How long a connection waits, and how it notices that the server is no longer there."""

import socket

# Seconds for a connection and for each answer. Without a limit, a web request would wait for ever
# where packets are dropped.
TIMEOUT = 5

# The same for asyncio, where waiting blocks nobody. Channels waits for a message 5 s at a time.
ASYNCIO_TIMEOUT = 15

# Seconds of silence after which a PING is sent before the next command. The shortest idle timeout
# of all providers is 150 s.
HEALTH_CHECK_INTERVAL = 25

# The kernel gives up on a silent server after 20 s. That has to be sooner than Celery's polling
# interval and the health check together: otherwise kombu may take a message from a connection that
# is lost already.
_TCP_OPTIONS = {
    "TCP_KEEPIDLE": 30,  # seconds
    "TCP_KEEPINTVL": 5,  # seconds
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 20_000,  # milliseconds
}

KEEPALIVE = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        # macOS lacks some of them.
        getattr(socket, name): value
        for name, value in _TCP_OPTIONS.items()
        if hasattr(socket, name)
    },
}

# For redis-py, and for kombu's transport options.
OPTIONS = KEEPALIVE | {
    "socket_timeout": TIMEOUT,
    "socket_connect_timeout": TIMEOUT,
    "health_check_interval": HEALTH_CHECK_INTERVAL,
}
