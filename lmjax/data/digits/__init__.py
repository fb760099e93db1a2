"""Digit scenes: real digits on real photographs, made when asked for."""
