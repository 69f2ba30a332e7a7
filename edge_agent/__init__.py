"""Who sees: captures slices, reads them, and keeps what it said until the cloud has it."""
