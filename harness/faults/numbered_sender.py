"""Put into a copy of the service as numbered/sender.py: `.delay()` for each line of its stdin.

A line is JSON: [task, [number, ...], keywords, options]. The answer is [accepted numbers, errors].
"""

import json
import os
import sys
from importlib import import_module

os.environ["DJANGO_SETTINGS_MODULE"] = sys.argv[1]
sys.path.insert(0, os.getcwd())
import_module("django").setup()
tasks = import_module("numbered.tasks")

for line in sys.stdin:
    name, numbers, keywords, options = json.loads(line)
    accepted, errors = [], []
    for number in numbers:
        try:
            getattr(tasks, name).apply_async([number], keywords, **options)
            accepted.append(number)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    print(json.dumps([accepted, errors]), flush=True)
