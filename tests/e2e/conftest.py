"""A loop of real processes for each test, and once for all of them the slices and networks that it starts from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_loop import Loop, Materials, make_materials

from cloud_worker.embedded_s3 import credentials_env


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    """Phantoms, and a network that learnt from them for one epoch."""
    return make_materials(tmp_path_factory.mktemp("materials"))


@pytest.fixture
def loop(tmp_path: Path, materials: Materials, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """A configured loop; nothing of it is started yet, and everything is stopped at the end."""
    with Loop(tmp_path, materials) as loop:
        for name, value in credentials_env(loop.s3_state).items():
            monkeypatch.setenv(name, value)
        yield loop
