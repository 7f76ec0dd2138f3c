"""Run by a service's Python, with paths of supervisord.conf: what supervisor reads.

It prints {path: {"refused": why}} or {path: {"programs": {group:name: {option: value}}, ...}}, and
starts nothing.
"""

import io
import json
import signal
import sys

from supervisor.options import ServerOptions

OPTIONS = ["command", "priority", "autostart", "startsecs", "startretries", "stopwaitsecs"]
OPTIONS += ["stopasgroup", "killasgroup", "redirect_stderr", "stdout_logfile", "environment"]
OPTIONS += ["stdout_logfile_maxbytes"]


def options_of(process):
    own = {name: getattr(process, name) for name in OPTIONS}
    restart = getattr(process.autorestart, "__name__", process.autorestart)
    return own | {"autorestart": restart, "stopsignal": signal.Signals(process.stopsignal).name}


def read(path):
    options = ServerOptions()
    options.stderr = io.StringIO()
    try:
        options.realize(["-c", path], doc="")
    except SystemExit:
        return {"refused": options.stderr.getvalue()}
    return {
        "programs": {
            f"{group.name}:{process.name}": options_of(process)
            for group in options.process_group_configs
            for process in group.process_configs
        },
        "nodaemon": bool(options.nodaemon),
        "logfile": options.logfile,
        "pidfile": options.pidfile,
        "serverurl": options.serverurl,
        "said": options.parse_criticals + options.parse_warnings + options.parse_infos,
    }


paths = sys.argv[1:]
print(json.dumps({path: read(path) for path in paths}))
