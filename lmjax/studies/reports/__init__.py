"""Parts of a report: examples, tables, settings, and the section of a run."""
