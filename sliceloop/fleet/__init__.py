"""Many edges in one process: real outboxes, sessions and receipts, slices drawn by a generator, and no network."""
