"""Seeds: every purpose has random numbers of its own, so that one more draw here changes nothing there."""

import zlib

from numpy.random import Generator, SeedSequence, default_rng


def rng_for(seed: int, *key: int | str) -> Generator:
    """Return a generator of its own for each key; words count by their CRC-32, which never changes."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return default_rng(SeedSequence([seed, *words]))


def slice_key(z: float) -> int:
    """Return the whole number that names the slice at z in a key: z in millionths."""
    return round(z * 1e6)
