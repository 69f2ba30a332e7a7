"""Memory that a training frees stays in the process, because the next step asks for it again.

glibc hands every block above 32 MB back to the kernel, which clears each page when it is asked for again: with
SqueezeNet 1.1 at 224 px and batches of 32 that was 15 of 55 ms of CPU time an image (AMD EPYC, one thread).
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From glibc's malloc.h."""
_KEPT_BYTES = 2**31 - 1
"""The largest that mallopt takes."""


def keep_freed_memory() -> bool:
    """Let malloc keep up to 2 GiB that were freed, for the rest of the process; False where it is not glibc's.

    The process then looks as large as its largest step; what others need, the kernel can still swap.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
