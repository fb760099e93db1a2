"""Counts of inputs by kind and outcome, at the end of a run."""


def pytest_terminal_summary(terminalreporter):
    found = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            counts = dict(report.user_properties).get("fuzz")
            if counts and "many" in report.nodeid:
                found[report.nodeid.partition("[")[2].rstrip("]")] = counts
    if not found:
        return
    terminalreporter.section("fuzzed inputs")
    for kind, counts in found.items():
        outcomes = ", ".join(f"{counts[each]:,} {each}" for each in sorted(counts))
        terminalreporter.line(f"{kind}: {sum(counts.values()):,} inputs: {outcomes}")
    terminalreporter.line(f"{sum(sum(each.values()) for each in found.values()):,} in all")
