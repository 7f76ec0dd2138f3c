"""`/healthz` for the platform's restarts, `/readyz` for its monitoring."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from django.http import HttpRequest, HttpResponse, JsonResponse

from . import readiness

KEPT_FOR = 5  # seconds; the page is public, and each question costs commands of Redis
DEADLINE = 4  # seconds; a name server may take longer than any time-out of a socket

Answer = TypeVar("Answer")


class HealthMiddleware:
    """Answers the health pages, and passes on every other request.

    It stands before all other middleware. A platform asks for its health pages by plain HTTP and
    under any host name, such as an IP address. SecurityMiddleware would redirect these requests to
    https://, and CommonMiddleware would refuse a host that is not in ALLOWED_HOSTS (D-48).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info == "/healthz":
            return live(request)
        if request.path_info == "/readyz":
            return ready(request)
        return self.get_response(request)


class CachedAnswer(Generic[Answer]):
    """The answer of a slow function, which is called at most once every `seconds`.

    The function runs in a thread of its own, one call at a time. However many requests come, and
    however long the function takes, no request waits longer than `deadline` (in seconds).
    """

    def __init__(self, ask: Callable[[], Answer], *, seconds: float, deadline: float) -> None:
        self.ask = ask
        self.seconds = seconds
        self.deadline = deadline
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.lock = threading.Lock()
        self.asked_at = 0.0
        self.future: Future[Answer] | None = None

    def get(self) -> Answer:
        """The answer, or what the function raised; TimeoutError after the deadline."""
        return self.latest().result(timeout=self.deadline)

    def latest(self) -> Future[Answer]:
        """The call that is running, or that ended lately; otherwise a new one."""
        with self.lock:
            if self.future is None or self.is_outdated(self.future):
                self.asked_at = time.monotonic()
                self.future = self.thread.submit(self.ask)
            return self.future

    def is_outdated(self, future: Future[Answer]) -> bool:
        return future.done() and time.monotonic() - self.asked_at > self.seconds


readiness_states = CachedAnswer(readiness.states, seconds=KEPT_FOR, deadline=DEADLINE)


def live(request: HttpRequest) -> HttpResponse:
    """200 while the process serves.

    It depends on nothing else: the platform must not restart the web because Redis is down.
    """
    return HttpResponse("ok\n", content_type="text/plain")


def ready(request: HttpRequest) -> JsonResponse:
    """200 when database, broker and heartbeat are well, else 503. The reasons are in the log."""
    try:
        states = readiness_states.get()
    except TimeoutError:
        states = {step.name: "no answer" for step in readiness.steps()}
    healthy = all(state == "ok" for state in states.values())
    return JsonResponse({"ready": healthy} | states, status=200 if healthy else 503)
