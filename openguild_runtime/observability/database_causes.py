"""The causes for which a database cannot be used: name, meaning and fix.

The names are label values of metrics and appear in `/ready`. No text contains an address, a user name or a credential.
"""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """A cause. Its text in the log is "<meaning>: <mend>"."""

    meaning: str
    mend: str

    def __str__(self) -> str:
        return f"{self.meaning}: {self.mend}"


CAUSES: dict[str, Cause] = {
    # the connection fails
    "url": Cause(
        "its URL names a missing file or contradicts itself", "`openguild-server config check` names the fault"
    ),
    "setting": Cause(
        "it refuses a setting of the session",
        "its log names it: remove it after the ? of database_url, or correct its name or value",
    ),
    "dns": Cause("its host name cannot be resolved", "check the host in database_url, and DNS"),
    "refused": Cause("nothing listens at its address", "check that PostgreSQL runs, and host and port in database_url"),
    "unreachable": Cause("its host cannot be reached", "check the network and the firewalls on the way"),
    "timeout": Cause("it does not answer in time", "look at its host and load, and for firewalls that drop packets"),
    "lost": Cause("it closed the connection", "check its log: a restart, a crash, or a proxy that closes connections"),
    "tls": Cause(
        "TLS to it fails", "check sslmode and sslrootcert in database_url, and the certificate and clock of its host"
    ),
    "password": Cause(
        "it refuses the password", "check the role's password and database_url, which is read at the start"
    ),
    "role": Cause(
        "it does not allow this role to connect", "check the role in database_url, its LOGIN, and pg_hba.conf"
    ),
    "no_database": Cause("this database does not exist", "check the name in database_url; it may have been renamed"),
    "too_many_connections": Cause(
        "it has no connections left", "raise its max_connections, or lower database.pool_size times the processes"
    ),
    "starting": Cause("it is starting or in recovery", "wait; its log shows the progress"),
    "shutdown": Cause("it is shutting down", "start it again, or point database_url at its successor"),
    "pooler": Cause(
        "a pooler refuses the session", "for a pooler in transaction mode set database.statement_cache_size to 0"
    ),
    "descriptors": Cause("this process has no file descriptor left", "raise its limit of open files"),
    # the database refuses a statement
    "read_only": Cause(
        "it is read-only",
        "if it is a standby, point database_url at the primary; otherwise reset default_transaction_read_only",
    ),
    "disk_full": Cause("its disk is full", "free or add space on its host, or raise the quota"),
    "memory": Cause("it is out of memory", "give its host more, or lower work_mem and the number of connections"),
    "limit": Cause("one of its limits is reached", "its log names it: temp_file_limit, max_locks_per_transaction, ..."),
    "rights": Cause(
        "this role may not use a table or function",
        "its log names it: GRANT the permission again, or change the owner back",
    ),
    "schema": Cause(
        "a table, column or function is missing or has changed",
        "was it renamed, dropped or restored? `openguild-server migrate` names what is missing and how to fix it",
    ),
    "migrations": Cause("its schema is not current", "run `openguild-server migrate`"),
    "damaged": Cause("its files cannot be read or written", "look at its log and its disks before anything else"),
    "slow": Cause("a statement took too long", "look for locks and load: pg_stat_activity, pg_blocking_pids"),
    "locked": Cause("another session holds a lock", "find it with pg_stat_activity and pg_blocking_pids"),
    "conflict": Cause("concurrent transactions conflict", "nothing, unless it persists: clients try again"),
    "other": Cause("it refuses for another reason", "look up the SQLSTATE of this record in its log"),
}
REFUSALS = frozenset(
    {"read_only", "disk_full", "memory", "limit", "rights", "schema", "damaged", "slow", "locked", "conflict", "other"}
)
"""Causes with which the database refuses a statement."""
PASSING = frozenset({"slow", "locked", "conflict"})
"""Temporary causes, which say nothing about the next statement."""


def explain(cause: str | None) -> str:
    """Return the text of a cause for the operator, or "" for None."""
    return str(CAUSES[cause]) if cause is not None else ""
