"""The results for people: a line for each run, and the tables of docs/reliability.md."""

import statistics

from .cases import FAULTS, LENGTHS, stall_name
from .results import TEMPLATE
from .services import NAMES, OURS, PLAIN

PAGE = TEMPLATE / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
GROUPS = {
    "refusals": "Redis answers, but refuses",
    "sweep": "Redis has lost the messages of promised mails",
    "deploy": "Deploys and crashes",
    "others": "Other faults",
}
# Smaller differences do not count, because the machine alone makes them.
SECONDS, FACTOR = 2, 1.5


def line(row):
    """One run in one line."""
    recovery = f"never in {row['watched']:.0f} s"
    if row["recovery"] is not None:
        recovery = f"{row['recovery']:.1f} s"
    parts = [
        f"{row['fault']:<24} {row['service']:<12} run {row['run']}",
        f"recovery {recovery}",
        f"tasks {_counts([row], 'tasks')}",
        f"mails {_counts([row], 'mails')}",
        f"web {row['slowest_web']:.1f} s at worst, {_web([row])}",
    ]
    if row["strength"] is not None:
        parts.append(f"{row['strength']} at a time")
    return "; ".join(parts) + f" [{row['seconds']:.0f} s]"


def write(results, label):
    """Write the tables into docs/reliability.md between the two markers; return the exit code."""
    label, rows = results.of(label)
    if not rows:
        print(f"{results.path} has no runs{f' with the label {label}' if label else ''}.")
        return 1
    text = PAGE.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        print(f"{PAGE} is unchanged: it must have one line {BEGIN} and, below it, one {END}.")
        return 1
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{tables(label, rows)}\n{END}{after}")
    print(f"{PAGE}: {len(rows)} runs with the label {label}.")
    return 0


def tables(label, rows):
    """Return all tables as Markdown."""
    cells = {}
    for row in rows:
        if row["fault"] in FAULTS:
            cells.setdefault((row["fault"], row["service"]), []).append(row)
    parts = [_introduction(label, rows)]
    stalls, won = _stalls(cells)
    parts += stalls
    for group, title in GROUPS.items():
        made, more = _group(cells, group, title)
        parts += made
        won += more
    parts.append(_where_the_defaults_win(won))
    return "\n\n".join(parts)


def _introduction(label, rows):
    days = sorted({row["at"][:10] for row in rows})
    days = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = ", ".join(
        f"{name} {number}" for name, number in sorted(rows[-1]["versions"].items())
    )
    return (
        f"{len(rows)} runs of `benchmarks/faults.py`, {days}, code `{label}`; {versions}. "
        f"*{PLAIN}* is [benchmarks/plain](../benchmarks/plain): Django and Celery set up as their "
        f"documentation says. *Recovery*: seconds from the end of the fault until a task sent "
        f"after it is done, the median and the slowest run. *Lost*: accepted by the web and, when "
        f"watching ended, neither done nor in Redis; *waiting*: still in Redis, for a worker that "
        f"is gone or for the hour after which an unacknowledged task is given out again. "
        f"*Refused*: the web said so. *n*: runs of each service."
    )


# Stalls


def _stalls(cells):
    """The table of stalls, one row for each way to be frozen; and where the defaults win."""
    lines = [
        f"**Redis is frozen for {LENGTHS[0]} to {LENGTHS[-1]} s** (then 5 tasks and 2 mails; "
        "watched for 120 s)",
        "",
        f"| worker | stalls | n | {PLAIN} | {OURS} |",
        "|---|---|--:|---|---|",
    ]
    empty = len(lines)
    won = {}  # {in what: the lengths}
    for processes in (1, 2):
        for busy in (False, True):
            for times in (1, 2):
                names = {s: stall_name(s, busy, times, processes) for s in LENGTHS}
                found = {
                    service: {
                        seconds: cells[name, service]
                        for seconds, name in names.items()
                        if (name, service) in cells
                    }
                    for service in NAMES
                }
                if not any(found.values()):
                    continue
                worker = (
                    f"{processes} process{'es' * (processes > 1)}, {'busy' if busy else 'idle'}"
                )
                often = "twice, 5 s apart" if times == 2 else "once"
                texts = [_stall_cell(found[service], processes) for service in NAMES]
                runs = _runs([rows for each in found.values() for rows in each.values()])
                lines.append(f"| {worker} | {often} | {runs} | {texts[0]} | {texts[1]} |")
                for seconds in LENGTHS:
                    pair = [found[service].get(seconds) for service in NAMES]
                    for text in _won(*pair) if all(pair) else ():
                        won.setdefault(text, set()).add(seconds)
    stalled = [f"Redis is frozen for {_ranges(found)}: {text}" for text, found in won.items()]
    return (["\n".join(lines)] if len(lines) > empty else []), stalled


def _stall_cell(by_length, processes):
    """What a service does at all lengths, in a few sentences."""
    if not by_length:
        return ""
    well, never, weaker = [], {}, {}
    for seconds, rows in by_length.items():
        deaf = sum(row["recovery"] is None for row in rows)
        weak = sum((row["strength"] or processes) < processes for row in rows)
        if deaf:
            never[seconds] = f"{deaf} of {len(rows)}"
        if weak:
            weaker[seconds] = f"{weak} of {len(rows)}"
        if not deaf:
            well.append(seconds)
    all_rows = [row for rows in by_length.values() for row in rows]
    parts = []
    if well:
        rows = [row for seconds in well for row in by_length[seconds]]
        parts.append(f"{_ranges(well)}: recovers in {_recovery(rows)}")
    if never:
        parts.append(f"**never**: {_by_share(never)}")
    if weaker:
        parts.append(f"goes on with fewer processes: {_by_share(weaker)}")
    parts.append(f"tasks {_counts(all_rows, 'tasks')}")
    parts.append(f"mails {_counts(all_rows, 'mails')}")
    parts.append(f"slowest answer {max(row['slowest_web'] for row in all_rows):.0f} s")
    if _web(all_rows) != "up":
        parts.append(_web(all_rows))
    return "<br>".join(parts)


def _by_share(shares):
    """ "8 s (2 of 5); 10-15 s (5 of 5)" of {8: "2 of 5", 10: "5 of 5", ...}."""
    lengths = {}
    for seconds, share in shares.items():
        lengths.setdefault(share, []).append(seconds)
    return "; ".join(f"{_ranges(found)} ({share})" for share, found in lengths.items())


def _ranges(lengths):
    """ "1-6, 12 s" of [1, 3, 6, 12]: what lies side by side in LENGTHS is put together."""
    groups = []
    for seconds in sorted(lengths):
        place = LENGTHS.index(seconds)
        if groups and groups[-1][-1] == LENGTHS[place - 1] and place:
            groups[-1].append(seconds)
        else:
            groups.append([seconds])
    texts = [f"{g[0]}–{g[-1]}" if len(g) > 1 else f"{g[0]}" for g in groups]
    return ", ".join(texts) + " s"


# All other faults


def _group(cells, group, title):
    """The table of one group, two rows for each fault; and where the defaults win."""
    lines = [
        f"**{title}**",
        "",
        "| fault | n | service | recovery | tasks | mails | slowest answer | web |",
        "|---|--:|---|---|---|---|--:|---|",
    ]
    empty = len(lines)
    won = []
    for fault in FAULTS.values():
        found = [cells.get((fault.name, service)) for service in NAMES]
        if fault.group != group or not any(found):
            continue
        about = fault.about.rstrip(".")
        for service, rows in zip(NAMES, found, strict=True):
            if rows:
                lines.append(
                    f"| {about} | {len(rows)} | {service} | {_recovery(rows)} "
                    f"| {_counts(rows, 'tasks')} | {_mails(rows)} "
                    f"| {max(row['slowest_web'] for row in rows):.1f} s | {_web(rows)} |"
                )
                about = ""
        if all(found) and (texts := _won(*found)):
            won.append(f"{fault.about.rstrip('.')}: {', '.join(texts)}")
    return (["\n".join(lines)] if len(lines) > empty else []), won


def _mails(rows):
    text = _counts(rows, "mails")
    last = [row["all_mails_after"] for row in rows if row["all_mails_after"] is not None]
    if last:
        text += f"; all after {statistics.median(last):.0f} s"
    rates = [row["mails_per_second"] for row in rows if "mails_per_second" in row]
    if rates:
        text += f"; {statistics.median(rates):.1f} a second"
    return text


# What both kinds of table say


def _runs(cells):
    counts = sorted({len(rows) for rows in cells})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _recovery(rows):
    """Median and slowest recovery of these runs, and how many never did."""
    times = [row["recovery"] for row in rows if row["recovery"] is not None]
    never = len(rows) - len(times)
    watched = max((row["watched"] for row in rows if row["recovery"] is None), default=0)
    text = ""
    if times:
        text = f"{statistics.median(times):.1f} s"
        if len(times) > 1:
            text += f", at most {max(times):.1f} s"
    if never:
        share = f" ({never} of {len(rows)})" if len(rows) > 1 else ""
        text += f"{'; ' if text else ''}**never** within {watched:.0f} s{share}"
    return text


def _counts(rows, kind):
    """ "56 of 60, 1 lost, 3 waiting, 1 twice" of all these runs together."""
    total = {name: sum(row[kind][name] for row in rows) for name in rows[0][kind]}
    text = f"{total['done']} of {total['submitted']}"
    if total["lost"]:
        text += f", **{total['lost']} lost**"
    if total["waiting"]:
        text += f", {total['waiting']} waiting"
    if total["twice"]:
        text += f", {total['twice']} twice"
    if total["refused"]:
        text += f", {total['refused']} refused"
    return text


def _web(rows):
    """Return in words whether the web stayed up."""
    ended = sum(not row["container_up"] for row in rows)
    if ended:
        return f"**the container ended** ({ended} of {len(rows)})"
    failed = sum(row["pages_failed"] > 0 for row in rows)
    return f"down for a while ({failed} of {len(rows)})" if failed else "up"


def _where_the_defaults_win(won):
    if not won:
        return f"In no row {PLAIN} does better than {OURS}."
    return f"Where {PLAIN} does better:\n\n" + "\n".join(f"- {text}" for text in won)


def _won(plain, ours):
    """In what the defaults did better, counted and timed differences only."""
    found = []
    for name, worse in (
        ("recovers", lambda rows: _share(rows, lambda row: row["recovery"] is None)),
        ("does more tasks", lambda rows: _share(rows, lambda row: missing(row, "tasks"))),
        ("sends more mails", lambda rows: _share(rows, lambda row: missing(row, "mails"))),
        ("fewer tasks twice", lambda rows: _share(rows, lambda row: row["tasks"]["twice"])),
        ("fewer mails twice", lambda rows: _share(rows, lambda row: row["mails"]["twice"])),
        ("refuses fewer tasks", lambda rows: _share(rows, lambda row: row["tasks"]["refused"])),
        ("refuses fewer mails", lambda rows: _share(rows, lambda row: row["mails"]["refused"])),
        ("the web stays up", lambda rows: _share(rows, lambda row: row["pages_failed"] > 0)),
        ("the container stays up", lambda rows: _share(rows, lambda row: not row["container_up"])),
    ):
        if worse(plain) < worse(ours):
            found.append(name)
    for name, key, middle in (
        ("recovers sooner", "recovery", statistics.median),
        ("all mails sooner", "all_mails_after", statistics.median),
        ("answers sooner", "slowest_web", max),
    ):
        a, b = ([row[key] for row in rows if row[key] is not None] for rows in (plain, ours))
        if a and b and middle(b) > SECONDS + middle(a) and middle(b) > FACTOR * middle(a):
            found.append(f"{name} ({middle(a):.1f} s, not {middle(b):.1f} s)")
    return found


def missing(row, kind):
    """Return how many of the accepted tasks or mails were not done."""
    return row[kind]["submitted"] - row[kind]["done"]


def _share(rows, value):
    return sum(value(row) for row in rows) / len(rows)
