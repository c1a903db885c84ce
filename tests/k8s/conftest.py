"""What the tests of the image's programs share."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """An empty share that belongs to the user of the image."""
    folder = tmp_path / "share"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    return folder
