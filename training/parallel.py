"""Several processes that train one network (torchrun, DistributedDataParallel): each reads its share of each batch.

All processes draw the same order and judge together, so that they decide alike without asking; the first alone speaks
and writes. Batch normalisation sees only its process's share, and the first's statistics are kept: with few slices a
process it learns otherwise than in one process; networks without it get the same gradients up to rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.networks import Network

_LONGEST_WAIT = timedelta(hours=6)
"""For the first process to decode a whole data set; torchrun ends the others at once when one dies."""


class TeamError(ValueError):
    """More processes than a batch has slices, or an environment that torchrun did not make."""


@dataclass(frozen=True)
class Team:
    """The processes of one training; `rank` is this one's place among `size`, `local_rank` that on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Tell whether this process speaks and writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch of indices."""
        return batch.tensor_split(self.size)[self.rank]

    def reader(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Return what turns reduced slices into logits [n, 3], and averages the gradients over the processes."""
        logits = _Logits(network)
        return logits if self.size == 1 else DistributedDataParallel(logits)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, one: bool) -> bool:
        """Tell whether it is so in any process."""
        return one if self.size == 1 else bool(self.sum(torch.tensor(int(one))).item())

    def agree(self, network: Network) -> None:
        """Give every process the first one's running statistics."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process through, then the others, so that they find what it has left on the disk."""
        if self.size > 1 and not self.leads:
            dist.barrier()
        try:
            yield
        finally:  # also where the first one fails: the others would wait for hours
            if self.size > 1 and self.leads:
                dist.barrier()


ALONE = Team()


@contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[Team]:
    """Join the processes that torchrun started, where it did; raises `TeamError`."""
    try:
        rank, size, local = (int(environment.get(k, d)) for k, d in _TORCHRUN)
    except ValueError as error:
        raise TeamError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers ({error}): start with torchrun") from error
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield Team(rank, size, local)
    finally:
        dist.destroy_process_group()


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


class _Logits(nn.Module):
    """The part of a network that learns, as one module, which is what DistributedDataParallel wraps."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, grey: Tensor) -> Tensor:
        return self.network.read(grey)[0]
