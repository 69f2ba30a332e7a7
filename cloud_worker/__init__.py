"""Who remembers and decides: stores slices, asks the second reader, requests training, releases models."""
