"""Where a training computes, and in which precision: float32 on the CPU, half precision on CUDA.

On a CPU bf16 was 6 to 13 times slower than float32 (measured). The CUDA branch has run on no machine of this project's
tests: they only choose it.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from training.plan import DeviceName


class NoDeviceError(RuntimeError):
    """CUDA was asked for and there is none."""


def pick_device(name: DeviceName, local_rank: int = 0) -> torch.device:
    """Return the device; "auto" takes CUDA where there is one; of several, each local process takes its own."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise NoDeviceError("device cuda: this torch finds no CUDA device; use --device cpu, or a CUDA build of torch")
    if name == "cpu" or not there:
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def half_dtype(device: torch.device) -> torch.dtype | None:
    """Return the half precision to use: bf16 or, on CUDA devices without it, fp16; None on the CPU."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return what lets the network compute in half precision, or nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def grad_scaler(dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """Return what keeps fp16's small gradients; with other types it hands everything through.

    A resumed fp16 run starts with a fresh scale: it costs a few skipped steps, and only there the bits may differ.
    """
    return torch.amp.GradScaler("cuda", enabled=dtype is torch.float16)
