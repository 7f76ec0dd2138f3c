"""`/healthz` for the platform's restarts, `/readyz` for its monitoring."""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from . import probes

CACHED_FOR = 5  # seconds; the page is public
DEADLINE = 4  # seconds; a name server can take longer than any socket timeout

logger = logging.getLogger(__name__)


def live(request: HttpRequest) -> HttpResponse:
    """200 while the process serves. No dependencies: a Redis outage must not restart the web."""
    return HttpResponse("ok\n", content_type="text/plain")


def ready(request: HttpRequest) -> JsonResponse:
    """200 when database, broker and heartbeat are well, else 503; the reasons are in the log."""
    try:
        states = latest().result(timeout=DEADLINE)
    except TimeoutError:
        states = dict.fromkeys(probes.READY, "no answer")
    healthy = all(state == "ok" for state in states.values())
    return JsonResponse({"ready": healthy} | states, status=200 if healthy else 503)


def middleware(get_response):
    """Before all others: health checks come without TLS and for any host name."""
    pages = {"/healthz": live, "/readyz": ready}
    return lambda request: pages.get(request.path_info, get_response)(request)


_thread = ThreadPoolExecutor(max_workers=1)
_lock = threading.Lock()
_asked: tuple[float, Future] | None = None


def latest() -> Future:
    """The states of the probes, asked for in one thread at most every CACHED_FOR seconds."""
    global _asked
    with _lock:
        now = time.monotonic()
        if _asked is None or (_asked[1].done() and now - _asked[0] > CACHED_FOR):
            _asked = (now, _thread.submit(ask))
        return _asked[1]


def ask() -> dict[str, str]:
    try:
        # One by one: none depends on another.
        results = [next(probes.run({name: probe})) for name, probe in probes.READY.items()]
    finally:
        connection.close()
    for result in results:
        if result.state == "fail":
            logger.warning("not ready: %s: %s %s", result.name, result.seen, result.fix)
    return {result.name: result.state for result in results}
