"""The commands that a generated service must have in supervisord.conf, Procfile and render.yaml.

They stand here once more, since a test that took them from the template could not notice a change.
Their options stand in gunicorn.conf.py, in settings.py and in operations/consumer.py.
"""

GUNICORN = "gunicorn config.wsgi"
WORKER = "celery -A config worker"
# Where no supervisord.conf names the signal, this turns TERM into a soft shutdown.
ALONE = "env REMAP_SIGTERM=SIGQUIT "
BEAT = "celery -A config beat"
MIGRATE = "python manage.py migrate --noinput"
BUILD = (
    "pip install --require-hashes -r requirements.txt && python manage.py collectstatic --noinput"
)
SUPERVISE = "python -m operations.supervise -c supervisord.conf"
