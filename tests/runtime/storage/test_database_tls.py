"""The TLS context of a database URL: what it checks, and that it is made once for unchanged files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme

from openguild_runtime.storage.database_tls import tls_context

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file or variable of libpq stands in for what a URL does not name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("PGSSL")]:
        monkeypatch.delenv(name)


@pytest.fixture
def authorities(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize(("mode", "checks_host"), [("require", False), ("verify-ca", False), ("verify-full", True)])
async def test_authorities_that_are_named_are_checked(authorities: Path, mode: str, checks_host: bool) -> None:
    url = f"postgresql://u@h/d?sslmode={mode}&sslrootcert={authorities}"
    context = await tls_context(url)
    assert context is not None
    assert (context.check_hostname, context.verify_mode) == (checks_host, ssl.CERT_REQUIRED)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] == 1
    highest = await tls_context(f"{url}&ssl_min_protocol_version=TLSv1.3")
    assert highest is not None
    assert highest.minimum_version is ssl.TLSVersion.TLSv1_3


async def test_it_is_made_once_until_a_file_changes(authorities: Path) -> None:
    url = f"postgresql://u@h/d?sslmode=verify-full&sslrootcert={authorities}"
    context = await tls_context(url)
    assert await tls_context(url) is context
    trustme.CA().cert_pem.write_to_path(authorities, append=True)
    renewed = await tls_context(url)
    assert renewed is not None
    assert renewed is not context
    assert renewed.cert_store_stats()["x509_ca"] == 2


async def test_a_certificate_is_shown_and_a_list_of_revoked_ones_is_read(authorities: Path, tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("client.test")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    url = f"postgresql://u@h/d?sslmode=verify-ca&sslrootcert={authorities}"
    shown = f"{url}&sslcert={tmp_path}/client.pem&sslkey={tmp_path}/client.pem"
    assert await tls_context(shown) is not None
    with pytest.raises(OSError, match="PEM"):
        await tls_context(f"{url}&sslcert={authorities}&sslkey={authorities}")
    with pytest.raises(FileNotFoundError):
        await tls_context(f"{url}&sslcrl=/no/such/list")


@pytest.mark.parametrize("query", ["", "?sslmode=prefer&sslrootcert=/x", "?sslmode=disable", "?sslmode=require"])
async def test_the_driver_decides_where_nothing_is_to_be_checked(query: str) -> None:
    assert await tls_context(f"postgresql://u@h/d{query}") is None
