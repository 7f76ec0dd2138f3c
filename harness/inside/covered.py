"""Run coverage by the service's Python: covered.py FOLDER ARGUMENT ...

FOLDER is the package coverage in the environment of the template's tests. So the service's locked
requirements need not have it, and nothing else of that environment can be imported here.
"""

import importlib.util
import sys

folder, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location(
    "coverage", f"{folder}/__init__.py", submodule_search_locations=[folder]
)
assert spec and spec.loader
package = sys.modules["coverage"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)

from coverage.cmdline import main  # noqa: E402

sys.exit(main(arguments))
