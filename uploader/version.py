"""The version: pyproject.toml reads it here, and tests/test_version.py finds every place that names another version."""

VERSION = "0.2.0"
