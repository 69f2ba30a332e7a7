"""The one command, and the demo that runs everything on one machine."""
