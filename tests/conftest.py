"""What every test leaves behind is taken back: a command that ran in this process has set where logs go."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Let no test write to a stream that another one's command has closed."""
    yield
    structlog.reset_defaults()
