"""`python -m {{ cookiecutter.project_slug }}.supervise -c supervisord.conf`

supervisord, but a program that cannot be kept running ends it with exit status 1, so that the
platform restarts the container or keeps the previous deploy: supervisord alone would stay up,
and an event listener that stops it makes it exit 0.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from supervisor import events, supervisord
from supervisor.states import SupervisorStates


class Supervisor(supervisord.Supervisor):
    failed = ""

    def runforever(self):
        # Here and not earlier: run() clears all subscriptions.
        events.subscribe(events.ProcessStateFatalEvent, self.give_up)
        super().runforever()

    def give_up(self, event):
        Supervisor.failed = event.process.config.name
        self.options.mood = SupervisorStates.SHUTDOWN


def main() -> int:
    # A `.env` that script/dev wrote may have been copied along, with DEBUG=true in it.
    os.environ.setdefault("DEBUG", "false")
    # The programs are found beside this Python, also when its environment is not activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    # As a container's first process it would otherwise ignore SIGTERM until supervisord listens.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A refused setting would otherwise be tried eight times before it ends the container.
    if subprocess.run([sys.executable, "manage.py", "check"]).returncode:
        return 1
    supervisord.Supervisor = Supervisor
    supervisord.main()
    if Supervisor.failed:
        print(f"{Supervisor.failed} could not be kept running: see its log above.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
