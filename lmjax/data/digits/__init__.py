"""Digit scenes: real digits on real photographs, generated on demand."""
