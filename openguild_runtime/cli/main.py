"""`openguild-server [flags] [subcommand]`: serves, or runs an operator's command (PROTOCOL 11.5).

Flags precede the subcommand. The exit status is 0 for success, 1 for a failure reported in one line, 2 for wrong usage, 3 if the
server did not shut down in time.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import anyio
import structlog

import openguild_runtime
from openguild_proto.canonical.keys import encode_unpadded, fingerprint, parse_seed
from openguild_proto.canonical.signing import SEED_BYTES
from openguild_runtime.cli.accounts import COMMANDS, MAX_SECRET_BYTES, add_role_commands
from openguild_runtime.cli.admin_client import add_admin_commands, run_admin
from openguild_runtime.cli.arguments import Parser
from openguild_runtime.cli.completion import SHELLS, script
from openguild_runtime.cli.federation import add_federation_commands, federation
from openguild_runtime.cli.probe import Options, probe
from openguild_runtime.config.declared import ConfigKey, keys_of
from openguild_runtime.config.layers import (
    PREFIX,
    ConfigError,
    asked_log_format,
    ignored_names,
    overridden_names,
)
from openguild_runtime.config.server_config import ServerConfig, load
from openguild_runtime.embedded.private import private_servers, with_running_database
from openguild_runtime.process.signals import (
    SIGTERM_STATUS,
    exit_on_sigterm,
    hold_sighup,
    ignore_user_signals,
    restore_sighup,
)
from openguild_runtime.process.standard_streams import redirect_stderr_to_log
from openguild_runtime.process.watchdog import exit_process
from openguild_runtime.server.failures import CommandFailed, answer_failures
from openguild_runtime.server.serving import serve_here, set_up_logs
from openguild_runtime.server.start_checks import require_addresses, require_servable
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage

PLAIN_FLAGS = (
    "bind_addr", "host", "port", "server_name", "log_format", "metrics.enabled", "metrics.bind_addr", "database_url",
    "storage", "data_dir", "admin_socket", "workers", "nats.url", "session.signing_key",
    "messaging.max_messages_per_user_per_window", "messaging.max_messages_per_ip_per_window", "messaging.rate_limit_window_secs",
)  # fmt: skip

log = structlog.get_logger("openguild.server")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all flags and subcommands."""
    parser = Parser(
        prog="openguild-server",
        description="OpenGuild homeserver. Without a subcommand, starts the server.",
        epilog="Every key can also be set in the environment (OPENGUILD_SERVER__...) or in a file: docs/configuration.md",
    )
    parser.add_argument("--version", action="version", version=f"openguild-server {openguild_runtime.__version__}")
    known = {key.name: key for key in keys_of(ServerConfig)}
    for name in PLAIN_FLAGS:
        parser.add_argument(known[name].flag, dest=name, metavar="VALUE", help=_flag_help(known[name]))
    fallback = known["session.fallback_verifying_keys"]
    parser.add_argument(fallback.flag, dest=fallback.name, action="append", metavar="KEY",
                        help="a former public key whose tokens are still accepted; may be repeated")  # fmt: skip
    parser.add_argument("--embedded", dest="embedded", action="store_const", const=True,
                        help="run a private PostgreSQL and NATS under --data-dir")  # fmt: skip
    parser.add_argument("--chaos-seed", dest="chaos_seed", type=int, metavar="N",
                        help="for client authors: inject faults, chosen by this seed (docs/api.md)")  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="subcommand")
    add_role_commands(commands)
    add_admin_commands(commands)
    add_federation_commands(commands)
    migrate = commands.add_parser("migrate", help="migrate the schema of database_url to this release")
    how = migrate.add_mutually_exclusive_group()
    how.add_argument("--wait", action="store_true", help="change nothing; wait until the schema is current")
    how.add_argument("--sql", action="store_true", help="change nothing; print the SQL")
    how.add_argument("--missing", action="store_true",
                     help="also rebuild indexes and functions that were dropped or renamed")  # fmt: skip
    how.add_argument("--new-epoch", action="store_true",
                     help="also give every channel a new epoch; use it after a restore, before starting the servers")  # fmt: skip
    config = commands.add_parser("config", help="check or show the configuration")
    config.add_argument("action", choices=("check", "dump"))
    keygen = commands.add_parser("keygen", help="print a new signing key and its public key")
    keygen.add_argument("--public", action="store_true",
                        help="only print the public key of the signing key read from standard input")  # fmt: skip
    chatting = commands.add_parser("chat", help="chat in this terminal; needs 'openguild[chat]'")
    chatting.add_argument("url", nargs="?", default=f"http://127.0.0.1:{os.environ.get(PREFIX + 'PORT', '8080')}",
                          help="URL of the server, by default %(default)s")  # fmt: skip
    chatting.add_argument("--session-file", help="file in which the session is stored; protect it like a password")
    completing = commands.add_parser("completion", help="print a shell completion script")
    completing.add_argument("shell", choices=SHELLS, help="source <(openguild-server completion bash)")
    probing = commands.add_parser("probe", help="check a running server from outside, one line per step")
    probing.add_argument("url")
    probing.add_argument("--only", help="run only this step, such as ready")
    probing.add_argument(
        "--username", help="log in, post, and receive the post on a stream; reads the password from standard input"
    )
    probing.add_argument("--password-file", help="a file with the password of --username")
    probing.add_argument("--slo", action="store_true", help="compare the metrics with the playbook's thresholds")
    probing.add_argument("--window", type=float, default=10.0, metavar="SECS",
                         help="the period of --slo, by default 10; 900 after a rollout; 0: since the start")  # fmt: skip
    probing.add_argument("--metrics-url", help="URL of the metrics, by default URL/metrics")
    probing.add_argument("--prometheus", metavar="FILE", help="write the results for a textfile collector")
    return parser


def _flag_help(key: ConfigKey) -> str:
    name = PREFIX + key.name.upper().replace(".", "__")
    if key.is_secret:
        where = f"secret, and visible in process lists: prefer {name}_FILE (a file that contains it) or {name}"
    else:
        where = f"also {name}"
    return f"{key.setting.meaning}; {where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    exit_on_sigterm(SIGTERM_STATUS)
    parsed = vars(build_parser().parse_args(arguments))
    if parsed["command"] is not None:
        restore_sighup()
    known = {key.name for key in keys_of(ServerConfig)}
    flags = {key: value for key, value in parsed.items() if key in known}
    return answer_failures(lambda: _run(parsed, flags), parsed["command"], lambda: _log_format(flags))


def _log_format(flags: dict[str, Any]) -> str | None:
    try:
        return asked_log_format(flags, os.environ, _working_directory())
    except ConfigError:
        return None


def _run(parsed: dict[str, Any], flags: dict[str, Any]) -> int:
    command = parsed["command"]
    if command == "keygen":
        return _keygen(from_stdin=parsed["public"])
    if command == "completion":
        sys.stdout.write(script(build_parser(), parsed["shell"]))
        return 0
    if command == "probe":
        return probe(Options(**{name: parsed[name] for name in Options._fields}))
    if command == "chat":
        return _chat(parsed["url"], parsed["session_file"])
    if command == "migrate" and parsed["sql"]:
        sys.stdout.write(migrations.render_sql())
        return 0
    if command == "config" and parsed["action"] == "check":
        return _check(flags)
    config = _load(flags)
    if command is None:
        _serve(config, lambda: load(flags, os.environ, _working_directory()), parsed["chaos_seed"])
    if command == "admin":
        return run_admin(config, parsed)
    if command == "config":
        return _dump(config)
    config = with_running_database(config)
    if command == "migrate" and parsed["wait"]:
        return anyio.run(_wait_for_schema, config)
    if command == "migrate":
        return anyio.run(_migrate, config, parsed["new_epoch"], parsed["missing"])
    return anyio.run((COMMANDS | {"federation": federation})[command], config, parsed)


def _load(flags: dict[str, Any]) -> ServerConfig:
    config = load(flags, os.environ, _working_directory())
    set_up_logs(config)
    if config.embedded and (names := ignored_names(os.environ)):
        log.warning("ignored: an embedded server runs its own PostgreSQL and NATS", names=names)
    return config


def _working_directory() -> Path:
    """Return the directory whose `config/` is read. Raises ConfigError if it was removed, for example by an upgrade."""
    try:
        return Path.cwd()
    except OSError:
        raise ConfigError(
            "failed to build configuration: the working directory was removed: restart in an existing directory"
        ) from None


def _serve(config: ServerConfig, reread: Callable[[], ServerConfig], chaos_seed: int | None) -> NoReturn:
    redirect_stderr_to_log()
    hold_sighup()
    ignore_user_signals()
    exit_on_sigterm(0)
    require_servable(config)
    require_addresses(config)
    ignored = ignored_names(os.environ) if config.embedded else []
    names = [name for name in overridden_names(os.environ) if name not in ignored]
    if names:
        log.info("environment overrides", names=names)
    if chaos_seed is not None:
        from openguild_runtime.chaos.run import serve_chaos

        exit_process(anyio.run(serve_chaos, config, reread, chaos_seed))
    if config.workers == 1:
        exit_process(serve_here(config, reread))
    from openguild_runtime.workers.supervisor import supervise

    exit_process(anyio.run(supervise, config, reread))


async def _migrate(config: ServerConfig, new_epoch: bool, make_missing: bool) -> int:
    async with private_servers(config) as completed:
        if completed.database_url is None:
            raise CommandFailed("database_url must be configured to migrate")
        url = completed.database_url.get_secret_value()
        schema = await migrations.upgrade(url)
        if schema.origin is migrations.Origin.ANOTHER:
            raise CommandFailed(f"migrate: {schema.origin.value}")
        if new_epoch:
            await migrations.renew_epochs(url)
        own = schema.origin is migrations.Origin.THIS and not schema.is_later
        missing = await migrations.missing(url, make=make_missing) if own else migrations.Missing()
    if schema.is_later:
        _print_line(
            f"The schema is of a later release ({schema.revision}); no migration needed, this release can use it"
        )
    else:
        _print_line(f"The schema is at revision {schema.revision}")
    if schema.origin is migrations.Origin.UNKNOWN:
        _print_line(f"Note: {schema.origin.value}")
    if missing.rest:
        told = "Rebuilt: {}" if make_missing else "Missing: {}; `openguild-server migrate --missing` rebuilds that"
        _print_line(told.format(", ".join(missing.rest)))
    if missing.tables:
        _print_line(
            f"Missing: table {', '.join(missing.tables)}; if it was renamed, rename it back, otherwise restore a backup"
        )
    if missing.constraints:
        _print_line(
            f"Missing: {', '.join(missing.constraints)}; add it as `openguild-server migrate --sql` has it, or restore a backup"
        )
    if missing.invalid:
        told = "Dropped: {}" if make_missing else "Invalid: {}; `openguild-server migrate --missing` drops it"
        _print_line(told.format("index " + ", index ".join(missing.invalid)))
    if new_epoch:
        _print_line("Every channel has a new epoch: clients start again from the newest events")
    return 0


async def _wait_for_schema(config: ServerConfig) -> int:
    """Wait until the schema is current. A rollout runs this before it starts the new release (deploy/k8s)."""
    if config.database_url is None:
        raise CommandFailed("database_url must be configured to wait for its schema")
    async with anyio.create_task_group() as tasks:
        storage = PostgresStorage(config.database_url.get_secret_value(), tasks, pool_size=1)
        await storage.start()
        await storage.aclose()
        tasks.cancel_scope.cancel()
    _print_line(f"The schema serves revision {migrations.expected()}")
    return 0


def _check(flags: dict[str, Any]) -> int:
    """Check the configuration and print each fault on a line."""
    try:
        require_servable(_load(flags))
    except ConfigError as problem:
        sys.stderr.writelines(f"openguild-server: {line}\n" for line in problem.lines)
        return 1
    _print_line("The configuration is valid")
    return 0


def _dump(config: ServerConfig) -> int:
    for key, value in config.shown().items():
        _print_line(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return 0


def _chat(url: str, session_file: str | None) -> int:
    if not (os.isatty(0) and os.isatty(2)):  # textual uses standard input and standard error
        raise CommandFailed("chat: needs a terminal; a program uses the client of docs/client.md")
    try:
        from openguild_runtime.chat.run import chat
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("openguild"):
            raise  # a bug
        raise CommandFailed(f"chat: {missing.name} is not installed: pip install 'openguild[chat]'") from None
    try:
        return chat(url, session_file)
    except ValueError as problem:
        raise CommandFailed(f"chat: {problem}") from None


def _keygen(*, from_stdin: bool) -> int:
    if from_stdin:
        try:
            public = parse_seed(sys.stdin.read(MAX_SECRET_BYTES)).public
        except ValueError as problem:
            raise CommandFailed(f"keygen: standard input: {problem}") from None
    else:
        key = encode_unpadded(secrets.token_bytes(SEED_BYTES))
        _print_line(f"signing_key = {key}")
        public = parse_seed(key).public
    _print_line(f"verifying_key = {encode_unpadded(public)}")
    _print_line(f"fingerprint = {fingerprint(public)}")
    return 0


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
