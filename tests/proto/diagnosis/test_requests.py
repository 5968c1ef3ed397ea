"""Which finished requests are remembered."""

from __future__ import annotations

from msgspec import structs

from openguild_proto.diagnosis.requests import FinishedRequest, RequestHistory
from openguild_proto.limits import SLOW_REQUEST_SECS


def request(number: int, *, status: int = 200, secs: float = 0.01, request_id: str | None = None) -> FinishedRequest:
    return FinishedRequest(
        ended_at=float(number),
        request_id=request_id or f"id-{number}",
        method="GET",
        route="/version",
        status=status,
        secs=secs,
        client="192.0.2.1",
    )


def test_ordinary_requests_do_not_push_out_those_with_trouble() -> None:
    history = RequestHistory(capacity=3)
    trouble = [request(1, status=404), request(2, status=500), request(3, secs=SLOW_REQUEST_SECS)]
    for each in [*trouble, *(request(number) for number in range(10, 20))]:
        history.add(each)
    assert [history.find(each.request_id) for each in trouble] == [[each] for each in trouble]
    assert history.find("id-16") == []
    assert history.find("id-17") == [request(17)]
    assert (len(history), history.reaches_back_to()) == (6, (17.0, 1.0))
    assert (history.answered, history.refused, history.failed) == (13, 1, 1)


def test_an_id_that_a_client_repeats_names_all_its_requests_in_order() -> None:
    history = RequestHistory()
    for number, status in ((1, 503), (2, 200), (3, 503)):
        history.add(request(number, status=status, request_id="same"))
    assert [(each.ended_at, each.status) for each in history.find("same")] == [(1.0, 503), (2.0, 200), (3.0, 503)]


def test_an_empty_history_reaches_back_to_nothing() -> None:
    assert RequestHistory().reaches_back_to() == (None, None)


def test_failed_logins_are_counted_by_address_and_account() -> None:
    history = RequestHistory()
    for client, user_id in (("192.0.2.1", "bob"), ("2001:db8::1", "bob"), ("2001:db8::2", None)):
        failed = structs.replace(request(60, status=401), client=client, user_id=user_id, error="invalid_credentials")
        history.add(failed)
    history.add(structs.replace(request(60, status=401), error="unauthorized", user_id="carol"))
    found = history.failed_logins
    assert (found.total, history.refused) == (3, 4)
    assert found.addresses.busiest(9, 60.0) == [("2001:db8::/64", 2), ("192.0.2.1", 1)]
    assert found.accounts.busiest(9, 60.0) == [("bob", 2)], "no names that nobody has"


def test_a_wrong_password_in_a_change_counts_as_a_failed_login() -> None:
    history = RequestHistory()
    history.add(structs.replace(request(60, status=403), user_id="bob", error="wrong_password"))
    history.add(structs.replace(request(60, status=403), user_id="bob", error="forbidden"))
    assert history.failed_logins.total == 1
    assert history.failed_logins.accounts.busiest(9, 60.0) == [("bob", 1)]
