"""Django settings for this service.

https://docs.djangoproject.com/en/5.2/ref/settings/ and, for what starts with CELERY_,
https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

import os
import runpy
from pathlib import Path

import environ

from redis_connection import policy

from . import redis_tls
from .environment import Environment, Refused

# Its name in Redis; celery.py has it, too.
SERVICE_NAME = "{{ cookiecutter.project_slug }}"

BASE_DIR = Path(__file__).resolve().parent.parent

# What this service assumes of its Redis; an environment variable of the same name overrides it.
env = Environment(
    dotenv=BASE_DIR / ".env",
    defaults={
        "REDIS_CERT_REQS": "{{ cookiecutter.__cert_reqs }}",
        "REDIS_CHECK_HOSTNAME": "{{ cookiecutter.__check_hostname }}",
        "REDIS_ALLOW_PLAINTEXT": "{{ cookiecutter.__plaintext_hosts }}",
        "REDIS_DATABASES": "{{ cookiecutter.__databases }}",
        "REDIS_MAX_CONNECTIONS": "{{ cookiecutter.__max_connections }}",
        "CELERY_POLLING_INTERVAL": "{{ cookiecutter.__polling_interval }}",
        "CELERY_REMOTE_CONTROL": "{{ cookiecutter.__remote_control }}",
    },
)

# SECURITY WARNING: don't run with debug turned on in production!
DEBUG = env.boolean("DEBUG", "false")

DEFAULT_EXCEPTION_REPORTER_FILTER = "operations.debug.HideURLs"

# SECURITY WARNING: keep the secret key used in production secret!
SECRET_KEY = env.text("SECRET_KEY", "only-for-development" if DEBUG else "")
if not SECRET_KEY:
    raise Refused("SECRET_KEY is not set: give a long random text, or DEBUG=true for development.")

ALLOWED_HOSTS = env.list("ALLOWED_HOSTS") + env.list("RENDER_EXTERNAL_HOSTNAME")
if DEBUG:
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [f"https://{host}".replace("//.", "//*.") for host in ALLOWED_HOSTS]

# Application definition

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "authentication",
    "operations",
]

MIDDLEWARE = [
    "operations.health.middleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
if not DEBUG:  # runserver serves static files itself
    MIDDLEWARE.insert(2, "whitenoise.middleware.WhiteNoiseMiddleware")

ROOT_URLCONF = "config.urls"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

WSGI_APPLICATION = "config.wsgi.application"

# Database: SQLite unless DATABASE_URL says otherwise

SQLITE = f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
POSTGRES = "postgres://USER:PASSWORD@HOST:5432/NAME"
DATABASES = {"default": env.url("DATABASE_URL", SQLITE, environ.Env.db_url_config, POSTGRES)}
if DATABASES["default"]["ENGINE"].rpartition(".")[2] not in ("postgresql", "sqlite3"):
    raise Refused("DATABASE_URL is neither postgres:// nor sqlite://: nothing else is installed.")
DATABASES["default"] |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Web and worker write to one file: lock it at the start of a transaction, and wait for it.
    DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}
else:
    # Seconds; the default is over two minutes.
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Users

AUTH_USER_MODEL = "authentication.User"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# Internationalization

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"

# Static files (CSS, JavaScript, Images)

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if not DEBUG:
    STORAGES["staticfiles"]["BACKEND"] = "whitenoise.storage.CompressedManifestStaticFilesStorage"

# E-mail: written to the log unless EMAIL_URL says otherwise

SMTP = "smtp+tls://USER:PASSWORD@HOST:587"
_email = env.url("EMAIL_URL", "consolemail://", environ.Env.email_url_config, SMTP)
if _email["EMAIL_BACKEND"] == "django.core.mail.backends.smtp.EmailBackend":
    # Django's own does not tell whether a server that hung up has the mail.
    _email["EMAIL_BACKEND"] = "authentication.smtp.EmailBackend"
vars().update(_email)
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "webmaster@localhost")
EMAIL_TIMEOUT = 10  # seconds; smtplib's default is for ever

# HTTPS, behind the platform's proxy

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else env.integer("SECURE_HSTS_SECONDS", "3600")
# W005 and W021 ask for HSTS on all subdomains and in browsers' preload lists: that is a decision
# for the whole domain, not for one service on it.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
# W009 asks for 50 characters; the key that Render generates has 44, of 256 random bits.
if 44 <= len(SECRET_KEY) < 50:
    SILENCED_SYSTEM_CHECKS.append("security.W009")

# Logging: everything to stdout, in one format

LOG_LEVEL = env.text("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
    raise Refused("LOG_LEVEL is not one of: DEBUG, INFO, WARNING, ERROR, CRITICAL.")
LOG_FORMAT = "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s: %(message)s"
STDOUT = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": LOG_FORMAT}},
    "handlers": {"stdout": STDOUT},
    "root": {"handlers": ["stdout"], "level": LOG_LEVEL},
    # Django's own handlers would write a second time, or by e-mail.
    "loggers": {"django": {"handlers": [], "propagate": True}},
}


# Redis: one URL and one TLS policy for the broker, the results, the probes and your own clients

REDIS_URL_NAME = env.first_set("CELERY_BROKER_URL", "{{ cookiecutter.__url_env }}")
REDIS_URL_IS_SET = bool(env.text(REDIS_URL_NAME))
REDIS = redis_tls.from_environment(env, REDIS_URL_NAME, production=not DEBUG)
REDIS.register()

REDIS_MAX_CONNECTIONS = env.integer("REDIS_MAX_CONNECTIONS", "0")  # 0: not known

# One prefix lets services share a database; its braces keep all keys in one slot of a cluster.
REDIS_PREFIX = "{" + SERVICE_NAME + "}:"


# Celery. Every value that differs from Celery's default has its reason beside it.

for _name in ("BROKER_URL", "CELERY_BROKER", "RESULT_BACKEND"):
    if env.text(_name):  # `celery` reads it, and overwrites CELERY_BROKER_URL for its process
        raise Refused(f"{_name} would give the worker another Redis than the web's: unset it.")
# In variables, which Celery prefers: of a setting named CELERY_BROKER_URL, `celery inspect conf`
# and `celery report` would show the password.
os.environ["CELERY_BROKER_URL"] = REDIS.url
for _name in ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
    if _name in os.environ:
        os.environ[_name] = REDIS.url
CELERY_BROKER_USE_SSL = REDIS.celery()
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "global_keyprefix": REDIS_PREFIX,
    # With time-outs: a worker or a web request would else wait for ever on a connection that went
    # silent.
    **policy.OPTIONS,
    # Seconds until an unacknowledged task is given to another worker: above the time limits.
    "visibility_timeout": 3600,
    # One command per interval while idle: 10 where each is billed. A silent network drop may
    # cost a task sent within it, which is why housekeeping sends again.
    "polling_interval": env.integer("CELERY_POLLING_INTERVAL", minimum=1),
}
# A Redis that is down is waited for; a setting that is wrong was refused above.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# So is a Redis that answers but refuses, because it is full or a replica. By default
# that ends the worker.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# It pauses between two tries, and keeps a message that no task can be made of instead of ending.
CELERY_WORKER_CONSUMER = "operations.consumer:Consumer"
# gunicorn.conf.py says how many threads a web process has, and can be read without gunicorn.
WEB_THREADS: int = runpy.run_path(str(BASE_DIR / "gunicorn.conf.py"))["threads"]
# kombu's objects for connections, which share those to Redis. Remote control holds one and waits
# for a second: there must be more of them than threads that use it, or these wait for each other
# for ever. 10 is Celery's default, and Flower uses it in eight threads.
CELERY_BROKER_POOL_LIMIT = max(10, WEB_THREADS + 1)
# redis-py reopens a closed connection by itself; each retry here would add 10 s to a web request.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 0}

# Results are off: each costs 7 commands, and a dead backend blocks .delay(). With a backend set, a
# task asks for its own with @shared_task(ignore_result=False).
CELERY_TASK_IGNORE_RESULT = True
if env.text("CELERY_RESULT_BACKEND"):
    RESULTS = redis_tls.from_environment(env, "CELERY_RESULT_BACKEND", production=not DEBUG)
    if RESULTS.encrypted != REDIS.encrypted:
        raise Refused(f"CELERY_RESULT_BACKEND and {REDIS_URL_NAME} must both be rediss:// or not.")
    RESULTS.register()
    CELERY_RESULT_BACKEND = os.environ["CELERY_RESULT_BACKEND"] = RESULTS.url
    CELERY_REDIS_BACKEND_USE_SSL = RESULTS.celery()
    CELERY_REDIS_SOCKET_TIMEOUT = CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = policy.TIMEOUT
    CELERY_REDIS_BACKEND_HEALTH_CHECK_INTERVAL = policy.HEALTH_CHECK
    # The default is 19 s of retries inside .delay().
    RETRY = {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5}
    CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {
        "global_keyprefix": REDIS_PREFIX,
        "retry_policy": RETRY,
    }
else:
    os.environ.pop("CELERY_RESULT_BACKEND", None)  # to Celery a space is a backend

# Celery's default, pinned: a message with pickle in it could run code.
CELERY_ACCEPT_CONTENT = CELERY_RESULT_ACCEPT_CONTENT = ["json"]

# Acknowledge after the work and fetch one at a time: a restart then loses and strands no task.
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A task whose process died is retried three times, 180 s apart; requeueing it would never end.
CELERY_TASK_RETRY_ON_WORKER_LOST = True
# True would lose the running tasks when the connection breaks.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# Seconds; the default is no limit, and one stuck task holds its process for ever.
CELERY_TASK_SOFT_TIME_LIMIT = 60
CELERY_TASK_TIME_LIMIT = 90
# Seconds that running tasks get on a deploy; then they go back to the queue (supervisord.conf: 18).
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 12
# The default is one process per core of the host, often more than a small plan's memory holds.
CELERY_WORKER_CONCURRENCY = env.integer("CELERY_WORKER_CONCURRENCY", "2", minimum=1)
# `celery inspect ping` needs it; it costs commands, so it is off where they are billed.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = env.boolean("CELERY_REMOTE_CONTROL")

# In memory: the one entry is short, and a file would need a disk.
CELERY_BEAT_SCHEDULER = "celery.beat.Scheduler"
CELERY_BEAT_SCHEDULE = {
    "housekeeping": {"task": "operations.tasks.housekeeping", "schedule": 120},
}
# 0 comes first: operations.tasks take it, or they would wait behind a long queue.
CELERY_TASK_DEFAULT_PRIORITY = 3

# gunicorn reads WEB_CONCURRENCY itself, as its number of processes.
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", "1", minimum=1)
