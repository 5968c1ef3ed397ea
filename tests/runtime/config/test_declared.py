"""What is declared of a key once is what everything else goes by."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from openguild_proto.limits import Limits
from openguild_proto.operations.context import Settings
from openguild_runtime.config.declared import ConfigKey, keys_of, model_of
from openguild_runtime.config.server_config import ServerConfig, load
from openguild_runtime.server.parts import make_limits
from tests.support.numbers import NUMBERS, Number

KEYS = list(keys_of(ServerConfig))
CORE = ("messaging", "http", "websocket", "session", "guilds", "registration")


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_key_says_in_one_line_what_it_is(key: ConfigKey) -> None:
    meaning = key.setting.meaning
    assert meaning == meaning.strip().rstrip(".")
    assert "\n" not in meaning
    assert key.setting.settable or key.setting.live, "only what is live can be kept from `admin set`"


def test_the_core_and_the_configuration_have_the_same_defaults(tmp_path: Path) -> None:
    config = load({}, {}, tmp_path)
    settings, defaults = config.settings("0"), Settings()
    assert make_limits(config) == Limits()
    assert settings.messaging == defaults.messaging
    assert settings.guilds == defaults.guilds
    assert settings.registration == defaults.registration
    assert settings.websocket == defaults.websocket
    assert settings.session.refresh_ttl_secs == defaults.session.refresh_ttl_secs


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_default_is_one_that_may_be_set(key: ConfigKey) -> None:
    section, _, name = key.name.rpartition(".")
    model = model_of(type(getattr(ServerConfig(), section))) if section else ServerConfig
    default = getattr(ServerConfig(), section) if section else ServerConfig()
    model.__pydantic_validator__.validate_assignment(model.model_construct(), name, getattr(default, name))


@pytest.mark.parametrize(
    "number", [number for number in NUMBERS if number.key.partition(".")[0] in CORE], ids=lambda number: number.key
)
def test_msgspec_holds_a_section_to_the_same_bounds(number: Number) -> None:
    section, _, name = number.key.partition(".")
    kind = type(getattr(ServerConfig(), section)).__mro__
    core = next(each for each in kind if each.__module__ == "openguild_proto.settings.sections")
    rest = {"refresh_ttl_secs": number.most} if name == "access_ttl_secs" else {}
    rest |= {"access_ttl_secs": 1} if name == "refresh_ttl_secs" else {}
    for good in (number.least, number.most):
        assert getattr(msgspec.convert({**rest, name: good}, core), name) == good
    for bad in number.outside:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**rest, name: bad}, core)


def test_secrets_are_those_whose_type_says_so() -> None:
    assert {key.name for key in KEYS if key.is_secret} == {
        "database_url", "nats.url", "session.signing_key", "federation.signing_key", "federation.previous_signing_key",
        "media.access_key", "media.secret_key", "database.replica_urls",
    }  # fmt: skip
