"""Let `python -m sliceloop` be the command."""

from sliceloop.cli import main

main()
