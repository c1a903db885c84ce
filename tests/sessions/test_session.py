"""Session names, extensions and the form of a record."""

import time

import pytest

from uploader.session import Session, State, check_extensions, check_name, new_name, now


@pytest.mark.parametrize("name", ["a", "run-42", "A.b_c-1", "0", "x" * 128, "00-session-01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_a_good_name_is_itself(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "a\\b",
        "a..b",
        "a.",
        "x" * 129,
        "a b",
        "a\n",
        "a\0",
        "é",
        "\u0661",
        "a\u202e",
        None,
        1,
    ],
)
def test_a_bad_name_is_refused_with_the_rule(name: str) -> None:
    """A name becomes a folder and part of a URL: nothing may lead out of the share or look like another name."""
    with pytest.raises(ValueError, match=r"1 to 128 of A-Z"):
        check_name(name)


def test_extensions_are_lowered_and_each_stands_once() -> None:
    """Two spellings of one extension are one."""
    assert check_extensions([".BIN", ".bin", ".tar.GZ"]) == (".bin", ".tar.gz")
    assert check_extensions([]) == ()


@pytest.mark.parametrize("extension", ["bin", "", ".", "./x", ".a\n", "." + "x" * 64, None])
def test_a_bad_extension_is_refused_with_the_rule(extension: str) -> None:
    with pytest.raises(ValueError, match="a dot and 1 to 63 characters"):
        check_extensions([extension])


def test_names_that_are_made_sort_by_time_and_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of sessions without given names shows them in the order of their starts."""
    names = []
    for moment in (1_700_000_000_000, 1_700_000_000_001, 1_800_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment * 10**6)
        names.append(check_name(new_name()))
    assert names == sorted(names)
    assert len(set(names)) == 3
    assert all(name.startswith("00-session-") for name in names)


def test_a_record_comes_back_as_it_was_and_new_fields_do_no_harm() -> None:
    """A release that knows fewer fields can read a later one's records."""
    session = Session("run-1", State.DRAINING, 7, now(), None)
    assert Session.from_json(session.to_json(), "run-1") == session
    later = session.to_json().replace(b"{", b'{"colour":"blue",', 1)
    assert Session.from_json(later, "run-1") == session
