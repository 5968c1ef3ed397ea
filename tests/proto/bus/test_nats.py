"""What NATS says: error texts, denials, subjects."""

from __future__ import annotations

import pytest

from openguild_proto.bus.nats import (
    NO_AGREEMENT,
    PAYLOAD,
    REFUSED,
    SILENT,
    SUBSCRIPTIONS,
    WANTS_CERTIFICATE,
    Subjects,
    fault_from_bytes,
    fault_from_error_text,
    parse_denial,
    tls_fault,
)
from openguild_proto.bus.topics import Topic


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Maximum Subscriptions Exceeded", SUBSCRIPTIONS.kind),
        ("maximum payload violation", PAYLOAD.kind),
        ("Authorization Violation", REFUSED.kind),
        ("User Authentication Expired", "expired"),
        ("User Authentication Revoked", "expired"),
        ("Authentication Timeout", "late"),
        ("maximum connections exceeded", "connections"),
        ("Stale Connection", SILENT.kind),
        ("Server Shutdown", "shutdown"),
        ("something new", "closed"),
    ],
)
def test_error_texts_have_a_fault(text: str, kind: str) -> None:
    assert fault_from_error_text(text).kind == kind


def test_an_unread_error_line_is_found() -> None:
    assert fault_from_bytes(b"PONG\r\n-ERR 'Authorization Violation'\r\n") is REFUSED
    assert fault_from_bytes(b"PONG\r\n") is None


def test_denials_name_action_and_subject() -> None:
    assert parse_denial('permissions violation for publish to "openguild.a.control"') == (
        "publish",
        "openguild.a.control",
    )
    assert parse_denial('permissions violation for subscription to "x"') == ("subscribe", "x")
    assert parse_denial("stale connection") is None


def test_subjects_are_of_one_server_and_hide_channels() -> None:
    subjects = Subjects("Chat.example:8080")
    subjects.join("11ab")
    assert subjects.topics[Topic.CONTROL] == "openguild.Chat_example_8080.11ab.control"
    denied = subjects.channel("8d1f").lower()
    key, fault = subjects.denied("publish", denied)
    assert key == "publish channel"
    assert fault.cause == "does not permit publish on openguild.Chat_example_8080.*.channel.*"
    assert "openguild.Chat_example_8080.>" in fault.mend


def test_a_subject_is_split_into_its_kind_and_channel() -> None:
    subjects = Subjects("a", probe_channel="p")
    subjects.join("1")
    assert [subjects.split(subject) for subject in subjects.probes.values()] == [
        ("1", "control", ""), ("1", "limits", ""), ("1", "hints", ""), ("1", "channel", "p"),
    ]  # fmt: skip
    assert list(subjects.probes) == ["control", "limits", "hints", "channel"]


def test_other_databases_are_heard_by_their_control_messages_only() -> None:
    subjects = Subjects("a", probe_channel="p")
    subjects.join("1")
    subjects.join("2")
    assert [subjects.subscription(name) for name in subjects.names.values()] == [
        "openguild.a.*.control", "openguild.a.2.limits", "openguild.a.2.hints", "openguild.a.2.channel.p",
    ]  # fmt: skip
    _, fault = subjects.denied("subscribe", "openguild.a.*.control")
    assert fault.cause == "does not permit subscribe on openguild.a.*.control"


@pytest.mark.parametrize(
    ("code", "cause", "mend"),
    [
        (10, "it has expired", "renew it"),
        (62, "it is for another host name", "use a host name in nats.url that the certificate contains"),
        (20, "its authority is not trusted here, or its chain is incomplete", "check nats.ca_file"),
        (1, "for a reason that only OpenSSL knows (verification code 1)", "check nats.ca_file"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_told_with_its_mend(code: int, cause: str, mend: str) -> None:
    fault = tls_fault("CERTIFICATE_VERIFY_FAILED", code)
    assert (fault.kind, fault.cause, fault.mend) == ("tls", f"has a certificate that is not trusted: {cause}", mend)


def test_a_server_that_wants_a_certificate_is_told_from_other_faults_of_tls() -> None:
    assert tls_fault("TLSV13_ALERT_CERTIFICATE_REQUIRED", None) is WANTS_CERTIFICATE
    assert tls_fault("TLSV1_ALERT_UNKNOWN_CA", None) is WANTS_CERTIFICATE
    assert tls_fault("UNSUPPORTED_PROTOCOL", None) is NO_AGREEMENT
    assert tls_fault(None, None) is NO_AGREEMENT
