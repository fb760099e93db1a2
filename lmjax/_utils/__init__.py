"""Private helpers that know nothing of masks, networks or images."""
