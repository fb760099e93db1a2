"""Masked layers on rows of visible positions, which cost what is visible."""
