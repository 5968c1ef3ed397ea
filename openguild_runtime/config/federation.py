"""`federation.*`: the keys of this server, the other servers, and how to reach them (PROTOCOL 16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr

from openguild_proto.canonical.keys import EventSigner, parse_public, parse_seed
from openguild_proto.effects.federation import PublishedKey, Standing
from openguild_proto.federation.keys import pinned_key
from openguild_proto.federation.policy import OWNER_LOST_SECS, FederationPolicy, Mode
from openguild_proto.federation.server_names import NameFault, authority_of, parse_key_id, parse_server_name
from openguild_proto.settings.federation import FederationSettings
from openguild_proto.settings.setting import Contradiction, Setting, Window
from openguild_runtime.config.declared import Strict
from openguild_runtime.config.values import FilePath, PublicKey, Seed, Text

EXAMPLE = "https://chat.example.org"


def _mode(value: Any) -> Any:
    """Return the mode in lower case, and `off` for False, because YAML reads an unquoted `off` as false."""
    if value is False:
        return "off"
    return value.lower() if isinstance(value, str) else value


def _base_url(value: str) -> str:
    try:
        authority_of(value)
    except NameFault as fault:
        raise ValueError(f"is not a URL that other servers can reach: {fault}; write it as {EXAMPLE}") from None
    return value.rstrip("/")


def _server(value: str) -> str:
    try:
        return parse_server_name(value)
    except NameFault as fault:
        raise ValueError(f"is not a server name: {fault}; write it as chat.example.org") from None


def _mapped(value: str) -> str:
    server, equals, url = value.partition("=")
    if not equals:
        raise ValueError(f"is not a server name and its URL; write it as chat.example.org={EXAMPLE}")
    return f"{_server(server.strip())}={_base_url(url.strip())}"


BaseUrl = Annotated[str, AfterValidator(_base_url)]
OtherServer = Annotated[str, AfterValidator(_server)]
MappedServer = Annotated[str, AfterValidator(_mapped)]
ModeName = Literal["off", "pinned", "open"]


class TrustedServer(Strict):
    """An entry of `federation.trusted_servers`."""

    server_name: str = ""
    key_id: str = ""
    verifying_key: PublicKey


@dataclass(frozen=True, kw_only=True)
class FederationSection(FederationSettings):
    """`federation.*`: keys, other servers, and the budgets that the core reads."""

    mode: Annotated[
        ModeName | None, BeforeValidator(_mode),
        Setting("`off`, `pinned` or `open`; default: `pinned` if servers are trusted, otherwise `off`", live=True, settable=False),
    ] = None  # fmt: skip
    signing_key: Annotated[Seed | None, Setting("seed of the key that signs events and requests")] = None
    key_id: Annotated[Text, Setting("id of the signing key; never reuse it for another key")] = "1"
    previous_signing_key: Annotated[
        Seed | None,
        Setting("seed of the former key, which vouches for the new one; keep it for 7 days after a rotation"),
    ] = None
    previous_key_id: Annotated[Text | None, Setting("id of the former key")] = None
    trusted_servers: Annotated[
        tuple[TrustedServer, ...], Setting("trusted servers with their verifying keys", live=True, settable=False)
    ] = ()
    base_url: Annotated[
        BaseUrl | None, Setting("URL at which other servers reach this one; default: https:// and `server_name`")
    ] = None
    allowed_servers: Annotated[
        tuple[OtherServer, ...], Setting("servers that are trusted with the keys that they publish", live=True, settable=False)
    ] = ()  # fmt: skip
    denied_servers: Annotated[
        tuple[OtherServer, ...], Setting("servers with which this one does not federate", live=True, settable=False)
    ] = ()
    quarantined_servers: Annotated[
        tuple[OtherServer, ...],
        Setting("servers from which no new posts, joins or invites are accepted", live=True, settable=False),
    ] = ()
    take_guilds_from: Annotated[
        tuple[OtherServer, ...], Setting("servers that may move guilds to this one", live=True, settable=False)
    ] = ()
    owner_lost_after_secs: Annotated[
        Window,
        Setting(
            "after this time without contact to a server, the successors of its guilds may take over; below 180, a "
            "running server may count as lost, because contacts are noted once a minute",
            live=True,
        ),
    ] = OWNER_LOST_SECS
    allow_private_addresses: Annotated[
        bool, Setting("whether other servers may have loopback, private or link-local addresses")
    ] = False
    addresses: Annotated[
        tuple[MappedServer, ...], Setting("`server=URL` pairs used instead of discovery; http is allowed here")
    ] = ()
    ca_file: Annotated[
        FilePath | None, Setting("PEM file with CA certificates for other servers, in addition to the system's")
    ] = None


def federation_contradictions(section: FederationSection, server_name: str) -> Iterator[Contradiction]:
    """Yield the contradictions between keys of the section."""
    for index, server in enumerate(section.trusted_servers):
        for name in ("server_name", "key_id"):
            if not getattr(server, name).strip():
                yield Contradiction(
                    f"invalid federation configuration: trusted server entries require a {name}: "
                    f"set federation.trusted_servers.{index}.{name}",
                    "federation.trusted_servers",
                )
    if mode_of(section) is Mode.OFF:
        return
    if section.signing_key is None:
        yield Contradiction(
            "invalid federation configuration: federation.signing_key: is not set, so other servers could not verify this one: "
            "run `openguild-server keygen` and set it, or set federation.mode to off",
            "federation.mode",
            "federation.trusted_servers",
        )
    if section.previous_signing_key is not None and section.previous_key_id in {None, section.key_id}:
        yield Contradiction(
            "invalid federation configuration: federation.previous_key_id: must be the id of the former key, not the current one",
            "federation.previous_key_id",
            "federation.key_id",
        )
    for key, what, check in _names(section, server_name):
        try:
            check(what)
        except NameFault as fault:
            yield Contradiction(f"invalid federation configuration: {key}: {fault}: choose another", key)


def _names(section: FederationSection, server_name: str) -> Iterator[tuple[str, str, Any]]:
    yield "server_name", server_name, parse_server_name
    yield "federation.key_id", section.key_id, parse_key_id
    if section.previous_key_id is not None:
        yield "federation.previous_key_id", section.previous_key_id, parse_key_id
    for server in section.trusted_servers:
        yield "federation.trusted_servers", server.server_name, parse_server_name
        yield "federation.trusted_servers", server.key_id.removeprefix("ed25519:"), parse_key_id


def mode_of(section: FederationSection) -> Mode:
    """Return the configured mode, or else `pinned` if servers are trusted and `off` if not."""
    if section.mode is not None:
        return Mode(section.mode)
    return Mode.PINNED if section.trusted_servers else Mode.OFF


def federation_policy(section: FederationSection, server_name: str) -> FederationPolicy:
    """Return the section's policy for the core."""
    pinned: dict[str, tuple[PublishedKey, ...]] = {}
    for server in section.trusted_servers:
        key = pinned_key(server.key_id.removeprefix("ed25519:"), parse_public(server.verifying_key))
        pinned[server.server_name] = (*pinned.get(server.server_name, ()), key)
    configured = {
        **dict.fromkeys(section.allowed_servers, Standing.ALLOW),
        **dict.fromkeys(section.quarantined_servers, Standing.QUARANTINE),
        **dict.fromkeys(section.denied_servers, Standing.DENY),
    }
    return FederationPolicy(
        mode=mode_of(section),
        server_name=server_name,
        base_url=section.base_url or "",
        pinned=pinned,
        configured=configured,
        addresses=dict(entry.split("=", 1) for entry in section.addresses),
        allow_private_addresses=section.allow_private_addresses,
        take_guilds_from=frozenset(section.take_guilds_from),
        owner_lost_after_secs=section.owner_lost_after_secs,
        budgets=section,
    )


def make_signers(section: FederationSection, server_name: str) -> tuple[EventSigner, ...]:
    """Return the signers of this server's configured keys, the current one first."""
    given: tuple[tuple[SecretStr | None, str | None], ...] = (
        (section.signing_key, section.key_id),
        (section.previous_signing_key, section.previous_key_id),
    )
    return tuple(
        EventSigner(server_name, key_id, parse_seed(seed.get_secret_value()))
        for seed, key_id in given
        if seed is not None and key_id is not None
    )
