"""POST `kind`, `number` and `seconds` to send one task: 200, or 500 where `.delay()` fails.

The kind "ping" asks the workers by remote control instead, from inside the request.
"""

from celery import current_app
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from . import tasks


@csrf_exempt
def send(request):
    kind, number = request.POST["kind"], int(request.POST["number"])
    if kind == "numbered":
        tasks.numbered.delay(number, float(request.POST["seconds"]))
    elif kind == "ping":
        answers = current_app.control.ping(timeout=float(request.POST["seconds"]))
        return HttpResponse(str(len(answers)), status=200 if answers else 503)
    elif kind == "unknown":
        current_app.send_task("no.such.task", [number])
    else:
        getattr(tasks, kind).delay(number)
    return HttpResponse("sent")


urlpatterns = [path("", send)]
