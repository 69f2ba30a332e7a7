"""Refuse the reading of a picture that is unlike what the network learnt from."""

from edge_agent.develop import PictureRefusedError
from edge_agent.refusal import Refusal
from training.model.reader import Reading


def refuse_unlike(reading: Reading, most_unlike: float) -> None:
    """Raise `PictureRefusedError` above the limit; a network that does not tell its unlikeness refuses nothing."""
    if reading.unlikeness is not None and reading.unlikeness > most_unlike:
        raise PictureRefusedError([Refusal.UNLIKE_LEARNT], None, None, {})
