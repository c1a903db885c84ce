"""Absence is never an answer: a shard that has not read its records says so."""

import asyncio

import httpx

from uploader.app import app
from uploader.sessions.service import Service


def test_before_the_records_are_read_the_status_of_all_is_503(service: Service) -> None:
    """An empty list would be taken for the end of every session."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/watch/status")

    early = asyncio.run(asked())
    assert (early.status_code, early.json()["code"]) == (503, "not-ready")
    assert "have not been read" in early.json()["detail"]
    service.reconciled = True
    later = asyncio.run(asked())
    assert (later.status_code, [one["session"] for one in later.json()["sessions"]]) == (200, ["run"])
