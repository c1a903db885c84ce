from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upload.sending import Sending, sending


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Sending]:
    with sending(tmp_path) as made:
        yield made
