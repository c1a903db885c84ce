"""The rates that the router keeps."""

from router.rates import KEPT, MOST, Rates


def told(session: str, rate: float, **fields: object) -> dict[str, object]:
    return {"session": session, "shard": 0, "rate_bytes_per_s": rate, **fields}


def test_fifteen_minutes_are_kept_and_no_more() -> None:
    """Memory is bounded in time, and in sessions."""
    rates = Rates()
    for number in range(KEPT + 5):
        rates.note([told("run", number)])
    (one,) = rates.told()["sessions"]
    assert one["rates"] == list(range(5, KEPT + 5))
    rates.note([told(f"run-{number}", 1) for number in range(MOST + 10)])
    assert len(rates.told()["sessions"]) == MOST


def test_a_session_that_is_gone_is_forgotten_when_its_rates_are_0() -> None:
    """What is away counts as 0: an old number is no rate of now."""
    rates = Rates()
    rates.note([told("run", 7)])
    rates.note([told("run", 7, as_of="2026-03-01T12:00:00.000Z")])
    assert rates.told()["sessions"][0]["rates"] == [7, 0]
    for _ in range(KEPT):
        rates.note([])
    assert rates.told()["sessions"] == []
