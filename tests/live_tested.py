"""Which provider rows a test in tests/live runs, and what it shows. The one place that says so."""

LIVE_TESTED = {
    "render": "plain private URL",
    "heroku": "not verified as rendered; verified once pinned by REDIS_CA_CERTS",
    "upstash": "certificate of a public CA",
    "self_hosted": "certificate of a CA of one's own",
}
