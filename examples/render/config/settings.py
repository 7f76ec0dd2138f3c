"""Django settings for this service.

https://docs.djangoproject.com/en/5.2/ref/settings/ and, for what starts with CELERY_,
https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

import runpy
from pathlib import Path

from redis_connection import timeouts

from .database_url import read_database_url, sqlite
from .email_url import CONSOLE, read_address, read_email_url
from .environment import NO_POLICY, Environment, overrule_celery_variables
from .hosts import read_development_host, read_host

# The name of this service in Redis. config/celery.py has it, too.
SERVICE_NAME = "my_service"

BASE_DIR = Path(__file__).resolve().parent.parent

# What this service assumes of its Redis. An environment variable of the same name overrides it
# (D-02).
env = Environment(
    dotenv=BASE_DIR / ".env",
    defaults={
        "REDIS_CERT_REQS": "required",
        "REDIS_CHECK_HOSTNAME": "true",
        "REDIS_ALLOW_PLAINTEXT": "",
        "REDIS_DATABASES": "16",
        "REDIS_MAX_CONNECTIONS": "50",
        "CELERY_POLLING_INTERVAL": "1",
        "CELERY_REMOTE_CONTROL": "true",
    },
)

# SECURITY WARNING: don't run with debug turned on in production!
DEBUG = env.boolean("DEBUG", "false")

DEFAULT_EXCEPTION_REPORTER_FILTER = "operations.redaction.HideURLs"

# SECURITY WARNING: keep the secret key used in production secret!
SECRET_KEY = env.text("SECRET_KEY", "only-for-development" if DEBUG else "")
if not SECRET_KEY:
    env.refuse("SECRET_KEY is not set: give a long random text, or DEBUG=true for development.")

# Render sets RENDER_EXTERNAL_HOSTNAME to the name under onrender.com.
hosts = [
    *env.all_parsed("ALLOWED_HOSTS", read_development_host if DEBUG else read_host),
    *env.all_parsed("RENDER_EXTERNAL_HOSTNAME", read_host),
]
ALLOWED_HOSTS = [host.name for host in hosts]
if DEBUG:
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]
elif not env.text("ALLOWED_HOSTS") and not env.text("RENDER_EXTERNAL_HOSTNAME"):
    # Every page would answer 400, but for the platform's health check (D-87).
    env.refuse("ALLOWED_HOSTS is not set: give the host names of this service.")

# Django takes forms from the host of the request by itself. It cannot know the port of a proxy that
# passes on the name alone: an entry as example.com:8443 says it.
CSRF_TRUSTED_ORIGINS = [host.origin for host in hosts if host.origin]

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

# In development, runserver serves the static files.
STATIC_FILES_MIDDLEWARE = [] if DEBUG else ["whitenoise.middleware.WhiteNoiseMiddleware"]

MIDDLEWARE = [
    "operations.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    *STATIC_FILES_MIDDLEWARE,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

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

# Database: a SQLite file, unless DATABASE_URL says otherwise

POSTGRES = "postgres://USER:PASSWORD@HOST:5432/NAME"
# A path, and no URL: the folder's name may hold characters that have a meaning in one.
SQLITE = sqlite(str(BASE_DIR / "db.sqlite3"))
DATABASES = {"default": env.parsed("DATABASE_URL", read_database_url, SQLITE)}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Users

AUTH_USER_MODEL = "authentication.User"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

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

# E-mail: written to the log, unless EMAIL_URL says otherwise

SMTP = "smtp+tls://USER:PASSWORD@HOST:587"
mail = env.parsed("EMAIL_URL", read_email_url, CONSOLE)
EMAIL_BACKEND = mail.backend
EMAIL_HOST = mail.host
EMAIL_PORT = mail.port
EMAIL_HOST_USER = mail.user
EMAIL_HOST_PASSWORD = mail.password
EMAIL_USE_TLS = mail.use_tls
EMAIL_USE_SSL = mail.use_ssl
EMAIL_FILE_PATH = mail.folder
EMAIL_TIMEOUT = 10  # seconds; by default smtplib waits for ever
DEFAULT_FROM_EMAIL = env.parsed("DEFAULT_FROM_EMAIL", read_address, "webmaster@localhost")
if mail.is_sent and not env.text("DEFAULT_FROM_EMAIL"):
    env.refuse(
        "DEFAULT_FROM_EMAIL is not set: give the address that e-mails come from, since EMAIL_URL"
        " sends them."
    )

# HTTPS, behind the platform's proxy

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = not DEBUG
SESSION_COOKIE_SECURE = not DEBUG
CSRF_COOKIE_SECURE = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else env.integer("SECURE_HSTS_SECONDS", "3600")
# W005 and W021 ask for HSTS on all subdomains and in the preload lists of browsers. That is a
# decision for the whole domain, and not for one service on it. W009 asks for 50 characters, while
# the key that Render generates has 44. operations.W011 judges keys in its place (D-45).
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W009", "security.W021"]

# Logging: everything to stdout, in one format

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "format": (
                "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s: %(message)s"
            ),
        },
    },
    "filters": {
        # Scanners send wrong hosts all day, each of which would cost fifteen lines.
        "one_line_for_clients": {"()": "operations.log_filters.OneLineForClients"},
    },
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "line",
            "filters": ["one_line_for_clients"],
        },
    },
    "root": {
        "handlers": ["stdout"],
        "level": env.choice("LOG_LEVEL", LOG_LEVELS, default="INFO"),
    },
    "loggers": {
        # Django's own handlers would write a second time, or send e-mails.
        "django": {"handlers": [], "propagate": True},
    },
}

# Redis: one URL and one TLS policy for the broker, the results, the probes and your own clients

# The variable in which the provider's URL is expected. CELERY_BROKER_URL wins over it.
PROVIDERS_URL_NAME = "REDIS_URL"
# The variable that counts. Messages name it.
REDIS_URL_NAME = "CELERY_BROKER_URL" if env.text("CELERY_BROKER_URL") else PROVIDERS_URL_NAME
REDIS_URL_IS_SET = bool(env.text(REDIS_URL_NAME))
REDIS = env.redis_policy(REDIS_URL_NAME, production=not DEBUG)
# Connections of this process to that server follow the policy, whoever opens them.
REDIS.register()

REDIS_MAX_CONNECTIONS = env.integer("REDIS_MAX_CONNECTIONS")  # of the plan; 0 if that is not known

# All keys begin with it, so services can share a database. Its braces keep all keys in one slot of
# a cluster.
REDIS_PREFIX = "{" + SERVICE_NAME + "}:"

# Celery. Every value that differs from Celery's default has its reason beside it.

# The command `celery` takes these two for CELERY_BROKER_URL. Other programs do not.
for name in ("BROKER_URL", "CELERY_BROKER"):
    if env.text(name):
        env.refuse(f"{name} would give the worker another Redis than the web's: unset it.")
if env.text("RESULT_BACKEND"):
    env.refuse(
        "RESULT_BACKEND would give the worker another store of results than the web's: unset it,"
        " and use CELERY_RESULT_BACKEND."
    )

# There is no setting CELERY_BROKER_URL. overrule_celery_variables(), below, says why.
CELERY_BROKER_USE_SSL = REDIS.celery()
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "global_keyprefix": REDIS_PREFIX,
    # Without the timeouts among them, a worker or a web request would wait for ever on a connection
    # that went silent.
    **timeouts.OPTIONS,
    # Seconds after which a task that was not acknowledged is given to another worker. It has to be
    # above all time limits.
    "visibility_timeout": 3600,
    # Seconds between two commands of an idle worker; 10 where each command is billed. If the
    # network goes silent, Redis may hand a task to a connection that is lost already, and the task
    # is lost with it. That is why housekeeping sends e-mails again.
    "polling_interval": env.integer("CELERY_POLLING_INTERVAL", minimum=1),
}

# The worker waits for a Redis that is down.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# It also waits for a Redis that answers but refuses, because it is full or has become a replica. By
# default that ends the worker (D-56).
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# While Redis refuses, this consumer pauses between two tries. It also puts aside a message that no
# task can be made of. At such a message Celery's own consumer would end the worker.
CELERY_WORKER_CONSUMER = "operations.consumer:Consumer"

# gunicorn.conf.py says how many threads a web process has; without it, gunicorn has one. It can be
# read without gunicorn.
WEB_THREADS: int = runpy.run_path(str(BASE_DIR / "gunicorn.conf.py")).get("threads", 1)
# How many of kombu's connection objects a process may have. They share two connections to Redis, so
# more of them cost nothing. A thread that uses remote control holds one and waits for a second. If
# all were held by such threads, these would wait for each other for ever. So there is one more than
# threads, and no less than Celery's default of 10, which Flower needs (D-49).
CELERY_BROKER_POOL_LIMIT = max(10, WEB_THREADS + 1)
# redis-py opens a closed connection again by itself. Each further try would add up to 10 s to a web
# request (D-46).
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 0}

# Results are off. Each costs seven commands, and a store that is down blocks .delay(). With
# CELERY_RESULT_BACKEND set, a task asks for its result by @shared_task(ignore_result=False).
CELERY_TASK_IGNORE_RESULT = True
RESULTS = None
if env.text("CELERY_RESULT_BACKEND") and not env.text("RESULT_BACKEND"):
    RESULTS = env.redis_policy("CELERY_RESULT_BACKEND", production=not DEBUG)
    if RESULTS.encrypted != REDIS.encrypted and NO_POLICY not in (REDIS, RESULTS):
        env.refuse(
            f"CELERY_RESULT_BACKEND and {REDIS_URL_NAME} must both be rediss:// or both redis://."
        )
    RESULTS.register()
    # Celery hides the password in this one when it shows its settings.
    CELERY_RESULT_BACKEND = RESULTS.url
    CELERY_REDIS_BACKEND_USE_SSL = RESULTS.celery()
    CELERY_REDIS_SOCKET_TIMEOUT = timeouts.TIMEOUT
    CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = timeouts.TIMEOUT
    CELERY_REDIS_BACKEND_HEALTH_CHECK_INTERVAL = timeouts.HEALTH_CHECK_INTERVAL
    CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {
        "global_keyprefix": REDIS_PREFIX,
        # By default .delay() retries for 19 s.
        "retry_policy": {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5},
    }

overrule_celery_variables(REDIS.url, RESULTS.url if RESULTS else None)

# Celery's default, said again: a message with pickle in it could run code.
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_ACCEPT_CONTENT = ["json"]

# Tasks are acknowledged after the work and fetched one at a time. So a restart loses no task, and
# none waits behind a long one in a process.
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A task whose process died is retried three times, 180 s apart. Requeueing it would never end.
CELERY_TASK_RETRY_ON_WORKER_LOST = True
# True would lose the running tasks when the connection breaks.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# Seconds. By default there is no limit, and one stuck task holds its process for ever.
CELERY_TASK_SOFT_TIME_LIMIT = 60
CELERY_TASK_TIME_LIMIT = 90
# Seconds that running tasks get on a deploy. Then they go back to the queue. supervisord.conf gives
# the worker 18 s to stop.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 12
# By default it is one process for each core of the host, often more than the memory of a small plan
# holds.
CELERY_WORKER_CONCURRENCY = env.integer("CELERY_WORKER_CONCURRENCY", "2", minimum=1)
# `celery inspect ping` needs remote control. It costs commands, so it is off where they are billed.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = env.boolean("CELERY_REMOTE_CONTROL")

# beat keeps its state in memory. Its one interval is short, and a file would need a disk (D-53).
CELERY_BEAT_SCHEDULER = "celery.beat.Scheduler"
CELERY_BEAT_SCHEDULE = {
    "housekeeping": {"task": "operations.tasks.housekeeping", "schedule": 120},  # seconds
}
# Tasks of priority 0 come first. Those of operations have it, or they would wait behind a long
# queue (D-47).
CELERY_TASK_DEFAULT_PRIORITY = 3

# gunicorn reads the number of its processes itself, and its port in gunicorn.conf.py.
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", "1", minimum=1)
WEB_PORT = env.integer("PORT", "8000", minimum=1, maximum=65535)

# All variables are read. If some are wrong, the process ends here and names them (D-29).
env.exit_if_wrong()
