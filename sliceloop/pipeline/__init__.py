"""From capture to receipt: how fast, beside what its parts can do alone, and with the line down for a while."""
