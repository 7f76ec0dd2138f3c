"""One run: what was promised, what was done, how soon, and how the web answered."""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from . import ending
from .stack import PAGE

PATIENCE = 100  # seconds that a client waits for an answer
MAIL_TASK = ".send_verification_email"  # the end of its name in both services
EVERY = 0.5  # seconds between two looks at the page


class Promises:
    """Tasks or mails: those that the web accepted, and those that it did not."""

    def __init__(self):
        self.accepted = {}  # {number: time when it was accepted}
        self.refused = []  # the times of those answered with an error, or not at all

    def count(self, done, waiting, until):
        """The figures, given [(number, time)] of what was done; refusals count until that time.

        Of those missing, so many as `waiting` says are in Redis, and the others lost.
        """
        times = Counter(number for number, _ in done if number in self.accepted)
        missing = len(self.accepted) - len(times)
        return {
            "submitted": len(self.accepted),
            "done": len(times),
            "twice": sum(count > 1 for count in times.values()),
            "runs_too_many": sum(times.values()) - len(times),
            "waiting": min(missing, waiting),
            "lost": missing - min(missing, waiting),
            "refused": sum(when < until for when in self.refused),
            "refused_afterwards": sum(when >= until for when in self.refused),
        }


class Run:
    """What happens to one stack from the first promise to the last look.

    A fault calls `begin()`, does its harm, calls `end()`; `after()` and `watch()` find out how the
    service came through it. Times are in seconds since the epoch.
    """

    def __init__(self, stack):
        self.stack = stack
        self.tasks, self.mails = Promises(), Promises()
        self.began = self.ended = self._web_until = None
        self.extra = {}
        self.strength = None
        self._probes = set()
        self._answers = []  # [began, seconds or None while it lasts] of pages and forms
        self._pages = []  # for each look at the page: was it served?
        self._log_before = len(stack.output()) if stack.program else 0
        self._threads = ThreadPoolExecutor(8)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._waiting_for = []

    # Promises

    def task(self, seconds=0, kind="numbered"):
        """Ask the web to send a task; return its number if it was accepted, else None."""
        number = self._next_number()
        status = self._post("/numbered/", kind=kind, number=number, seconds=seconds)
        return number if self._note(self.tasks, number, status, 200) else None

    def mail(self):
        """Register; return the number if the web said that a mail will come, else None."""
        number = self._next_number()
        status = self._post(
            PAGE,
            username=f"user{number}",
            email=address(number),
            password1="correct horse 7",
            password2="correct horse 7",
        )
        return number if self._note(self.mails, number, status, 302) else None

    def backlog(self, tasks, mails, seconds=0.5):
        """Promise so many before the fault; each task takes some seconds."""
        for _ in range(mails):
            self.mail()
        for _ in range(tasks):
            self.task(seconds)

    def busy(self, seconds=3):
        """Keep every process of the worker busy; true when all have begun, after 10 s at most."""
        sent = [self.task(seconds) for _ in range(self.stack.shape.processes)]
        end = time.time() + 10
        while time.time() < end:
            if set(sent) <= {number for number, word, _ in self.stack.notes() if word == "started"}:
                return True
            ending.pause(0.05)
        return False

    def later(self, function, *arguments):
        """Call it in a thread; watch() waits for its end."""
        future = self._threads.submit(function, *arguments)
        self._waiting_for.append(future)
        return future

    # The fault

    def begin(self):
        """The fault begins: from now on the web is watched."""
        self.began = time.time()
        self._watcher = threading.Thread(target=self._look_at_the_page, daemon=True)
        self._watcher.start()

    def meanwhile(self, seconds, task_every=5, mail_every=20):
        """Let the time pass, with a task and a mail promised now and then."""
        end = time.time() + seconds
        for tick in itertools.count():
            if tick % task_every == 0:
                self.later(self.task)
            if tick % mail_every == 0:
                self.later(self.mail)
            left = end - time.time()
            ending.pause(min(1, left))
            if left <= 1:
                return

    def end(self, when=None):
        """The fault has ended, now or at the given time: recovery is counted from here."""
        self.ended = when or time.time()

    def look_no_further(self):
        """The web's answers count until now, not only until the fault has ended."""
        self._web_until = time.time()

    def after(self, tasks=5, mails=2, patience=120):
        """Promise more, each of them again and again until the web accepts it."""
        for send, count in ((self._probe, tasks), (self.mail, mails)):
            for _ in range(count):
                self.later(self._insist, send, time.time() + patience)

    def watch(self, tasks=120, mails=120, settle=1):
        """Wait until all is done, for at most so many seconds after the end of the fault.

        A worker that has done nothing since then is not waited for longer than `tasks` seconds.
        """
        while True:
            watched = time.time() - self.ended
            asked = self._all_asked()
            tasks_left = self._left(self.tasks, self._tasks_done()) or not asked
            mails_left = self._left(self.mails, self._mails_done()) or not asked
            if (not tasks_left or watched > tasks) and (not mails_left or watched > mails):
                break
            if watched > tasks and not self._sign_of_life():
                break
            ending.pause(0.25)
        self.watched = watched
        ending.pause(settle)  # in which something may be done once more
        self._over.set()

    def check_strength(self):
        """Find out how many tasks the worker runs at a time; not part of the figures."""
        count = self.stack.shape.processes
        numbers = [self._next_number() for _ in range(count)]
        for number in numbers:
            self._post("/numbered/", kind="numbered", number=number, seconds=1.5)
        end = time.time() + 15
        while time.time() < end:
            notes = [note for note in self.stack.notes() if note[0] in numbers]
            done = [when for _, word, when in notes if word == "done"]
            if done:
                before = [w for _, word, w in notes if word == "started" and w < min(done)]
                self.strength = len(before)
                if len(done) == count:
                    return
            ending.pause(0.2)
        self.strength = self.strength or 0

    # The figures

    def recovery(self):
        """Seconds from the end of the fault until a task sent after it was done, or None."""
        done = [when for number, when in self._tasks_done() if number in self._probes]
        return round(max(0, min(done) - self.ended), 2) if done else None

    def result(self):
        """Everything as one dict, for the results file."""
        messages = self.stack.in_use.messages()
        tasks_left = {
            number
            for task, number in messages
            if task.startswith("numbered.") and number in self._left(self.tasks, self._tasks_done())
        }
        mails_left = [task for task, _ in messages if task.endswith(MAIL_TASK)]
        text = self.stack.output()[self._log_before :]
        until = self._web_until or self.ended
        return {
            "tasks": self.tasks.count(self._tasks_done(), len(tasks_left), until),
            "mails": self.mails.count(self._mails_done(), len(mails_left), until),
            "recovery": self.recovery(),
            "all_tasks_after": self._last(self._tasks_done(), self.tasks),
            "all_mails_after": self._last(self._mails_done(), self.mails),
            "watched": round(self.watched, 1),
            "fault_seconds": round(self.ended - self.began, 1),
            "slowest_web": round(self._slowest(), 2),
            "pages_failed": self._pages_failed(),
            "container_up": self.stack.alive(),
            "strength": self.strength,
            "messages_left": len(messages),
            "lost_acknowledgements": text.count("Couldn't ack"),
            **self.extra,
        }

    def close(self):
        """Give up all threads."""
        self._over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def mails_taken(self):
        """[(address, time)] of the mail server."""
        return list(self.stack.mail.taken)

    def _sign_of_life(self):
        """Say whether anything was done since the end of the fault."""
        done = self._tasks_done() + self._mails_done()
        return any(when > self.ended for _, when in done)

    def _all_asked(self):
        """Say whether no thread waits for the web any more; raise what went wrong in one."""
        done = [future for future in list(self._waiting_for) if future.done()]
        for future in done:
            future.result()
        return len(done) == len(self._waiting_for)

    def _probe(self):
        number = self.task()
        if number is not None:
            self._probes.add(number)
        return number

    def _insist(self, send, end):
        while send() is None and time.time() < end and not self._over.is_set():
            ending.pause(1)

    def _next_number(self):
        with self._lock:
            self.stack.last_number += 1
            return self.stack.last_number

    def _post(self, path, **fields):
        answer = [time.time(), None]
        self._answers.append(answer)
        try:
            return self.stack.web.post(path, PATIENCE, fields)
        except OSError:
            return None
        finally:
            answer[1] = time.time() - answer[0]

    def _note(self, promises, number, status, fine):
        with self._lock:
            if status == fine:
                promises.accepted[number] = time.time()
            else:
                promises.refused.append(time.time())
        return status == fine

    def _look_at_the_page(self):
        while not self._over.is_set() and not ending.stopping():
            began = time.time()
            try:
                fine = self.stack.web.get(PAGE, 10) == 200
            except OSError:
                fine = False
            seconds = time.time() - began
            self._pages.append(fine)
            if fine or True in self._pages:  # before it has started, it need not answer
                self._answers.append([began, seconds])
            self._over.wait(EVERY)

    def _slowest(self):
        """Seconds of the slowest answer that was asked for during the fault."""
        now, until = time.time(), self._web_until or self.ended
        during = [each for each in self._answers if self.began <= each[0] < until]
        return max((now - began if took is None else took for began, took in during), default=0)

    def _pages_failed(self):
        """How many looks at the page failed, once it had been served; all, if it never was."""
        pages = list(self._pages)
        first = pages.index(True) if True in pages else 0
        return pages[first:].count(False)

    def _tasks_done(self):
        return [(number, when) for number, word, when in self.stack.notes() if word == "done"]

    def _mails_done(self):
        numbers = {address(number): number for number in self.mails.accepted}
        return [(numbers[to], when) for to, when in self.mails_taken() if to in numbers]

    @staticmethod
    def _left(promises, done):
        return promises.accepted.keys() - {number for number, _ in done}

    def _last(self, done, promises):
        """Seconds from the end of the fault until the last was done, or None if some were not."""
        firsts = {}
        for number, when in sorted(done, key=lambda each: each[1]):
            if number in promises.accepted:
                firsts.setdefault(number, when)
        if not promises.accepted or len(firsts) < len(promises.accepted):
            return None
        return round(max(0, max(firsts.values()) - self.ended), 2)


def address(number):
    """The e-mail address of the person with that number."""
    return f"user{number}@example.com"
