"""What GitHub and editors read of this repository: workflows, forms, Dependabot, links."""

import configparser
import itertools
import re

import providers_table
import pytest
import tomllib
import yaml

from harness import pythons
from harness.answers import PROVIDERS, ROOT, ROWS, SERVICE, TARGETS

GITHUB = ROOT / ".github"
WORKFLOWS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for folder in (GITHUB, SERVICE / ".github")
    for path in sorted(folder.glob("workflows/*.y*ml"))
}
CI = ".github/workflows/ci.yml"
NIGHTLY = ".github/workflows/nightly.yml"
# What ci.yml has to run.
COMMANDS = (
    "./script/test unit $COVERAGE",
    "./script/test bake",
    "./script/test live",
    "./script/test tests/live/test_django.py",
    './script/test "$TIER"',
)
RELEASE = ".github/workflows/release.yml"
SERVICES_CI = f"{SERVICE.name}/.github/workflows/ci.yml"

# A line that uses an action, as far as its comment.
USES = re.compile(
    r"^\s*(?:- )?uses: *(?P<action>[^@\s]+)(?:@(?P<pin>\S+))?(?: +# (?P<version>.+))?$"
)
COMMIT = re.compile(r"[0-9a-f]{40}")
VERSION = re.compile(r"v\d+\.\d+\.\d+")
# {action: why its tag stands there}, for one whose commit cannot be read in its own repository.
TAG_ONLY: dict[str, str] = {}
EXPRESSION = "${{"

FORM = (GITHUB / "ISSUE_TEMPLATE" / "provider-fact.yml").read_text("utf-8")
FIELDS = {"row": PROVIDERS, "key": sorted(set(itertools.chain.from_iterable(ROWS.values())))}

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "examples/README.md"]
LINK = re.compile(r"\]\((?!https?:)(?P<file>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def used(workflow):
    """Return (action, pin, version) of each line that uses an action of another repository."""
    found = [USES.match(line) for line in workflow.splitlines()]
    return [
        (line["action"], line["pin"], line["version"])
        for line in found
        if line and not line["action"].startswith("./")
    ]


def badly_pinned(workflow):
    """Yield what is wrong with the actions' pins."""
    for action, pin, version in used(workflow):
        if action in TAG_ONLY:
            continue
        if not COMMIT.fullmatch(pin or ""):
            yield f"{action} is not pinned by a commit"
        elif not VERSION.fullmatch(version or ""):
            yield f"{action} does not say which version its commit is"


def badly_run(name, job):
    """Yield what is wrong with one job."""
    if "uses" in job:
        return  # a workflow of this repository, which is judged itself
    if "timeout-minutes" not in job:
        yield f"{name} has no timeout"
    for step in job["steps"]:
        # What GitHub puts into a shell's line is run by the shell. In a variable it is only text.
        if EXPRESSION in step.get("run", ""):
            yield f"{name} has an expression in a command"
        checks_out = step.get("uses", "").startswith("actions/checkout@")
        if checks_out and step.get("with", {}).get("persist-credentials") is not False:
            yield f"{name} leaves its token in the checkout"


def problems(workflow):
    """Return what is wrong with the text of a workflow, a line each."""
    content = yaml.safe_load(workflow)
    found = list(badly_pinned(workflow))
    permissions = content.get("permissions")
    if permissions != {"contents": "read"}:
        found.append(f"permissions of all jobs: {permissions}")
    if "concurrency" not in content:
        found.append("has no concurrency")
    for name, job in content["jobs"].items():
        found += badly_run(name, job)
    steps = [step for job in content["jobs"].values() for step in job.get("steps", [])]
    if sum("uses" in step for step in steps) != len(used(workflow)):
        found.append("uses an action in a line that cannot be read here")
    return found


def allowed_to_write(workflows):
    """Return {"workflow: job": its permissions} of each job that has permissions of its own."""
    return {
        f"{path}: {name}": job["permissions"]
        for path, text in workflows.items()
        for name, job in yaml.safe_load(text)["jobs"].items()
        if "permissions" in job
    }


def left_out(workflows):
    """Return what no workflow does any more, a line each."""
    jobs = yaml.safe_load(workflows[CI])["jobs"]
    found = [f"nothing runs {line}" for line in COMMANDS if f"run: {line}\n" not in workflows[CI]]
    if "run: ./script/test --all\n" not in workflows[NIGHTLY]:
        found.append("nothing runs ./script/test --all")
    matrices = {name: jobs[name]["strategy"]["matrix"] for name in ("unit", "bake")}
    for name, matrix in matrices.items():
        if matrix["python"] != list(pythons.SUPPORTED):
            found.append(f"{name} has other Pythons than the locks")
    if "--coverage" not in [each["coverage"] for each in matrices["unit"]["include"]]:
        found.append("no job judges the floor")
    if f"for target in {' '.join(TARGETS)}; do" not in workflows[CI]:
        found.append("Windows does not bake every target")
    for path in re.findall(r"\btests/[\w/]+\.py", workflows[CI]):
        if not (ROOT / path).exists():
            found.append(f"{path} is not there")
    needed = yaml.safe_load(workflows[RELEASE])["jobs"]["publish"]["needs"]
    if needed != ["ci", "everything"]:
        found.append(f"a release waits for {needed} only")
    return found


def pinned_twice(workflows):
    """Return {action: its pins} of each action that has more than one pin."""
    pins = {}
    for action, *pin in itertools.chain.from_iterable(map(used, workflows.values())):
        pins.setdefault(action, set()).add(tuple(pin))
    return {action: found for action, found in pins.items() if len(found) > 1}


def stale_fields(form):
    """Return {field: what it offers and should not, or should and does not}.

    script/providers_table.py writes these lists; here a parser reads them.
    """
    offered = {
        field["id"]: field["attributes"].get("options")
        for field in yaml.safe_load(form)["body"]
        if "id" in field
    }
    differing = {name: set(offered[name]) ^ set(right) for name, right in FIELDS.items()}
    return {name: sorted(difference) for name, difference in differing.items() if difference}


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page))
    return {heading.replace(" ", "-") for heading in plain}


def dead_links(path, text):
    """Return the links of a page that lead to no file, or to no heading of it."""
    found = []
    for link in LINK.finditer(text):
        target = path.parent / link["file"] if link["file"] else path
        if not target.exists():
            found.append(link[0])
        elif link["anchor"] and target.suffix == ".md":
            page = text if target == path else target.read_text("utf-8")
            if link["anchor"] not in anchors(page):
                found.append(link[0])
    return found


# One of the pins, for the red cases. Dependabot renews it, and they go with it.
ACTION, PIN, PINNED_VERSION = used(WORKFLOWS[CI])[-1]


def test_there_are_workflows_of_the_template_and_of_the_service():
    assert {CI, RELEASE, SERVICES_CI} < set(WORKFLOWS)
    assert all(used(WORKFLOWS[path]) for path in (CI, RELEASE, SERVICES_CI))


@pytest.mark.parametrize("path", WORKFLOWS)
def test_a_workflow_is_careful(path):
    assert problems(WORKFLOWS[path]) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (f"@{PIN}", "@v7", "is not pinned by a commit"),
        (f"@{PIN}", f"@{PIN[:7]}", "is not pinned by a commit"),
        (f" # {PINNED_VERSION}", "", "does not say which version"),
        (f" # {PINNED_VERSION}", " # the newest", "does not say which version"),
        (f"uses: {ACTION}", f"uses : {ACTION}", "cannot be read here"),
        ("contents: read", "contents: write", "permissions of all jobs"),
        ("permissions:\n  contents: read\n", "", "permissions of all jobs: None"),
        ("concurrency:\n  group", "env:\n  group", "has no concurrency"),
        ("    timeout-minutes: 15\n", "", "unit has no timeout"),
        ("persist-credentials: false", "persist-credentials: true", "leaves its token"),
        ("with:\n          persist-credentials: false", "env: {}", "leaves its token"),
        ("./script/test unit", "echo ${{ github.head_ref }}", "an expression in a command"),
    ],
)
def test_a_workflow_turns_red_when(old, new, problem):
    assert old in WORKFLOWS[CI]
    assert any(problem in text for text in problems(WORKFLOWS[CI].replace(old, new, 1)))


def test_a_tag_stands_only_where_a_reason_does():
    everywhere = set(itertools.chain.from_iterable(map(used, WORKFLOWS.values())))
    assert set(TAG_ONLY) <= {action for action, _, _ in everywhere}
    assert all(TAG_ONLY.values())


def test_only_the_release_may_write():
    allowed = {f"{RELEASE}: publish": {"contents": "write"}}
    assert allowed_to_write(WORKFLOWS) == allowed
    generous = WORKFLOWS[CI].replace("  live:\n", "  live:\n    permissions: write-all\n")
    found = allowed_to_write(WORKFLOWS | {CI: generous})
    assert found == allowed | {f"{CI}: live": "write-all"}


def test_an_action_has_the_same_pin_in_both_layers():
    # Dependabot renews the template's pins. This is red until the service's workflow has them.
    assert pinned_twice(WORKFLOWS) == {}
    renewed = WORKFLOWS[CI].replace(PIN, "0" * len(PIN))
    assert set(pinned_twice(WORKFLOWS | {CI: renewed})) == {ACTION}


def test_ci_runs_every_tier_on_every_python_and_target():
    assert left_out(WORKFLOWS) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        (CI, "./script/test live", "./script/test unit", "nothing runs ./script/test live"),
        (CI, "coverage: --coverage", "coverage: --quick", "no job judges the floor"),
        (CI, '"3.13", "3.14"]', '"3.13"]', "unit has other Pythons than the locks"),
        (CI, " procfile server;", " procfile;", "Windows does not bake every target"),
        (
            CI,
            "live/test_django.py",
            "live/test_djangos.py",
            "tests/live/test_djangos.py is not there",
        ),
        (NIGHTLY, "./script/test --all", "./script/test", "nothing runs ./script/test --all"),
        (RELEASE, "needs: [ci, everything]", "needs: ci", "a release waits for ci only"),
    ],
)
def test_ci_turns_red_when(path, old, new, problem):
    assert old in WORKFLOWS[path]
    changed = WORKFLOWS | {path: WORKFLOWS[path].replace(old, new, 1)}
    assert problem in left_out(changed)


def test_the_form_offers_the_rows_and_their_keys():
    assert stale_fields(FORM) == {}


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("- upstash\n", "- upstashed\n", {"row": ["upstash", "upstashed"]}),
        ("        - fly\n", "", {"row": ["fly"]}),
        ("- eviction\n", "- evictions\n", {"key": ["eviction", "evictions"]}),
        ("        - read_on\n", "", {"key": ["read_on"]}),
    ],
)
def test_the_form_turns_red_when(old, new, stale):
    assert FORM.count(old) == 1
    form = FORM.replace(old, new)
    assert stale_fields(form) == stale
    assert providers_table.offered(form, ROWS) == FORM


@pytest.mark.parametrize("field", FIELDS)
def test_a_form_without_its_list_is_refused(field):
    form = FORM.replace(f"    id: {field}\n", "    id: other\n")
    with pytest.raises(ValueError, match=f"must have a field {field} with options"):
        providers_table.offered(form, ROWS)


@pytest.mark.parametrize("path", sorted(GITHUB.glob("ISSUE_TEMPLATE/[!c]*.yml")))
def test_a_form_names_each_of_its_fields_once(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    assert form["name"] and form["description"]
    questions = [field for field in form["body"] if field["type"] != "markdown"]
    assert questions
    names = [field["id"] for field in questions]
    assert sorted(set(names)) == sorted(names)


def test_dependabot_looks_after_the_tests_and_the_actions():
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text("utf-8"))["updates"]
    looked_at = {update["package-ecosystem"]: update["directory"] for update in updates}
    assert looked_at == {"pip": "/", "github-actions": "/"}
    assert (ROOT / "requirements-test.txt").exists()


def test_editors_and_ruff_agree():
    editor = configparser.ConfigParser()
    editor.read_string("[top]\n" + (ROOT / ".editorconfig").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert editor["*.py"].getint("max_line_length") == project["tool"]["ruff"]["line-length"]
    assert editor["*"]["end_of_line"] == "lf"
    assert "eol=lf" in (ROOT / ".gitattributes").read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(path):
    assert dead_links(path, path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(docs/updates.md)", "(docs/update.md)"),
        ("#what-it-does-not-protect-from", "#what-it-does-protect-from"),
    ],
)
def test_a_dead_link_would_be_noticed(old, new):
    path = ROOT / "SECURITY.md"
    text = path.read_text("utf-8")
    assert old in text
    assert len(dead_links(path, text.replace(old, new))) == 1


def test_the_index_of_the_pages_has_a_line_for_each():
    index = (ROOT / "docs/README.md").read_text("utf-8")
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    listed = re.findall(r"^- \[(\S+)\]\(\1\): .+", index, re.MULTILINE)
    assert sorted(pages) == listed
    assert "](docs/README.md)" in (ROOT / "README.md").read_text("utf-8")


def test_people_find_how_to_report_a_vulnerability():
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "](SECURITY.md)" in (ROOT / name).read_text("utf-8")
