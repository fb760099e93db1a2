"""The `lmjax` command."""
