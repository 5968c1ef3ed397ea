"""A plain chat service with FastAPI and asyncpg, with the paths and bodies of the jobs.

It checks token, membership and bodies, stores each post in a transaction under the row lock of its channel, and hashes
passwords as OpenGuild does. It has no rate limits, request IDs, security headers, metrics, idempotency, signatures, fan-out or
index. Uvicorn writes its access log. `DATABASE_URL` is its database.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import asyncpg
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Response
from pydantic import BaseModel, Field

KEY = secrets.token_bytes(32)
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
TABLES = """
CREATE TABLE users (user_id uuid PRIMARY KEY, username text UNIQUE NOT NULL, password_hash text NOT NULL);
CREATE TABLE sessions (session_id uuid PRIMARY KEY, user_id uuid NOT NULL, device_id text NOT NULL, refresh_hash bytea NOT NULL);
CREATE TABLE guilds (guild_id uuid PRIMARY KEY, name text NOT NULL, owner_id uuid NOT NULL);
CREATE TABLE members (guild_id uuid, user_id uuid, role text NOT NULL, PRIMARY KEY (guild_id, user_id));
CREATE TABLE channels (channel_id uuid PRIMARY KEY, guild_id uuid NOT NULL, name text NOT NULL, head bigint NOT NULL DEFAULT 0);
CREATE INDEX ON channels (guild_id);
CREATE TABLE events (channel_id uuid, sequence bigint, event_id text NOT NULL, sender_id uuid NOT NULL, event jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (channel_id, sequence));
CREATE TABLE reactions (channel_id uuid, sequence bigint, emoji text, user_id uuid,
    PRIMARY KEY (channel_id, sequence, emoji, user_id));
CREATE TABLE reads (user_id uuid, channel_id uuid, sequence bigint NOT NULL, PRIMARY KEY (user_id, channel_id));
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create the tables and the pool."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=0, max_size=20) as pool:
        await pool.execute(TABLES)
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None)


class Credentials(BaseModel):
    username: str = Field(min_length=3, max_length=64)
    password: str = Field(min_length=8, max_length=256)


class Device(BaseModel):
    device_id: str = Field(min_length=1, max_length=128)


class Login(BaseModel):
    identifier: str
    secret: str
    device: Device


class Named(BaseModel):
    name: str = Field(min_length=1, max_length=100)


class Post(BaseModel):
    content: str = Field(min_length=1, max_length=4_000)


class Posted(BaseModel):
    sequence: int
    event_id: str
    created_at: datetime


class Event(BaseModel):
    sequence: int
    channel_id: uuid.UUID
    event: dict[str, Any]


class Message(BaseModel):
    event_id: str
    sequence: int
    channel_id: uuid.UUID
    author: dict[str, str]
    created_at: datetime
    content: str
    reactions: dict[str, int]


class Unread(BaseModel):
    channel_id: uuid.UUID
    last_read_sequence: int
    latest_sequence: int
    unread: int


class Position(BaseModel):
    log: str
    epoch: int
    sequence: int


class Sync(BaseModel):
    positions: list[Position] = Field(max_length=1_000)


def sign(claims: dict[str, Any]) -> str:
    body = json.dumps(claims).encode().hex()
    return f"{body}.{hmac.new(KEY, body.encode(), hashlib.sha256).hexdigest()}"


async def caller(authorization: Annotated[str, Header()] = "") -> dict[str, Any]:
    """Return the claims of the token. Raises HTTPException 401 for an invalid one."""
    body, _, signature = authorization.removeprefix("Bearer ").partition(".")
    if not hmac.compare_digest(signature, hmac.new(KEY, body.encode(), hashlib.sha256).hexdigest()):
        raise HTTPException(401)
    claims: dict[str, Any] = json.loads(bytes.fromhex(body))
    if claims["expires"] < time.time():
        raise HTTPException(401)
    return claims


Caller = Annotated[dict[str, Any], Depends(caller)]


async def require_member(connection: Any, channel_id: uuid.UUID, user_id: str) -> None:
    if not await connection.fetchval(
        "SELECT role FROM channels JOIN members USING (guild_id) WHERE channel_id = $1 AND user_id = $2",
        channel_id,
        user_id,
    ):
        raise HTTPException(404)


@app.get("/version")
async def version() -> dict[str, str]:
    return {"version": "0.1.0"}


@app.get("/ready")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/users/register", status_code=201)
async def register(body: Credentials) -> dict[str, str]:
    hashed = await asyncio.to_thread(HASHER.hash, body.password)
    user_id = str(uuid.uuid4())
    try:
        await app.state.pool.execute("INSERT INTO users VALUES ($1, $2, $3)", user_id, body.username, hashed)
    except asyncpg.UniqueViolationError as taken:
        raise HTTPException(409) from taken
    return {"user_id": user_id}


@app.post("/sessions/login")
async def login(body: Login) -> dict[str, str]:
    row = await app.state.pool.fetchrow("SELECT user_id, password_hash FROM users WHERE username = $1", body.identifier)
    if row is None:
        raise HTTPException(401)
    await asyncio.to_thread(HASHER.verify, row["password_hash"], body.secret)
    refresh, session_id, user_id = secrets.token_urlsafe(32), str(uuid.uuid4()), str(row["user_id"])
    hashed = hashlib.sha256(refresh.encode()).digest()
    await app.state.pool.execute(
        "INSERT INTO sessions VALUES ($1, $2, $3, $4)", session_id, user_id, body.device.device_id, hashed
    )
    claims = {
        "user_id": user_id,
        "username": body.identifier,
        "session_id": session_id,
        "expires": time.time() + 86_400,
    }
    return {"access_token": sign(claims), "refresh_token": refresh}


@app.get("/users/me")
async def me(claims: Caller) -> dict[str, str]:
    return {"user_id": claims["user_id"], "username": claims["username"]}


@app.post("/guilds", status_code=201)
async def create_guild(body: Named, claims: Caller) -> dict[str, str]:
    guild_id = str(uuid.uuid4())
    async with app.state.pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO guilds VALUES ($1, $2, $3)", guild_id, body.name, claims["user_id"])
        await connection.execute("INSERT INTO members VALUES ($1, $2, 'owner')", guild_id, claims["user_id"])
    return {"guild_id": guild_id}


@app.post("/guilds/{guild_id}/channels", status_code=201)
async def create_channel(guild_id: uuid.UUID, body: Named, claims: Caller) -> dict[str, str]:
    channel_id = str(uuid.uuid4())
    await app.state.pool.execute("INSERT INTO channels VALUES ($1, $2, $3)", channel_id, guild_id, body.name)
    return {"channel_id": channel_id}


@app.post("/channels/{channel_id}/messages", response_model=Posted)
async def post(channel_id: uuid.UUID, body: Post, claims: Caller) -> Any:
    event_id = f"${secrets.token_urlsafe(32)}"
    event = {
        "event_id": event_id, "room_id": str(channel_id), "event_type": "message", "sender": claims["user_id"],
        "origin_ts": int(time.time() * 1000),
        "content": {"author": {"id": claims["user_id"], "username": claims["username"]}, "content": body.content},
    }  # fmt: skip
    async with app.state.pool.acquire() as connection:
        await require_member(connection, channel_id, claims["user_id"])
        async with connection.transaction():
            head = await connection.fetchval(
                "UPDATE channels SET head = head + 1 WHERE channel_id = $1 RETURNING head", channel_id
            )
            created_at = await connection.fetchval(
                "INSERT INTO events VALUES ($1, $2, $3, $4, $5) RETURNING created_at",
                channel_id, head, event_id, claims["user_id"], json.dumps(event),
            )  # fmt: skip
    return Posted(sequence=head, event_id=event_id, created_at=created_at)


@app.get("/channels/{channel_id}/events", response_model=list[Event])
async def page(
    channel_id: uuid.UUID, claims: Caller, response: Response, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> Any:
    async with app.state.pool.acquire() as connection:
        await require_member(connection, channel_id, claims["user_id"])
        rows = await connection.fetch(
            "SELECT sequence, event FROM events WHERE channel_id = $1 ORDER BY sequence DESC LIMIT $2",
            channel_id,
            limit,
        )
    response.headers["x-openguild-epoch"] = "1"
    return [
        Event(sequence=row["sequence"], channel_id=channel_id, event=json.loads(row["event"])) for row in reversed(rows)
    ]


@app.get("/channels/{channel_id}/messages", response_model=list[Message])
async def folded_page(channel_id: uuid.UUID, claims: Caller, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> Any:
    async with app.state.pool.acquire() as connection:
        await require_member(connection, channel_id, claims["user_id"])
        rows = await connection.fetch(
            "SELECT event_id, sequence, event, created_at, (SELECT json_object_agg(emoji, n) FROM"
            " (SELECT emoji, count(*) AS n FROM reactions AS r WHERE r.channel_id = e.channel_id AND r.sequence = e.sequence"
            " GROUP BY emoji) AS counted) AS reactions"
            " FROM events AS e WHERE channel_id = $1 ORDER BY sequence DESC LIMIT $2",
            channel_id, limit,
        )  # fmt: skip
    found = []
    for row in reversed(rows):
        content = json.loads(row["event"])["content"]
        found.append(
            Message(
                event_id=row["event_id"], sequence=row["sequence"], channel_id=channel_id, created_at=row["created_at"],
                author=content["author"], content=content["content"], reactions=json.loads(row["reactions"] or "{}"),
            )
        )  # fmt: skip
    return found


@app.get("/channels/unread", response_model=list[Unread])
async def unread(claims: Caller) -> Any:
    rows = await app.state.pool.fetch(
        "SELECT channel_id, coalesce(sequence, 0) AS last_read_sequence, head AS latest_sequence, (SELECT count(*) FROM events AS e"
        " WHERE e.channel_id = c.channel_id AND e.sequence > coalesce(r.sequence, 0) AND e.sender_id != $1) AS unread"
        " FROM members AS m JOIN channels AS c USING (guild_id) LEFT JOIN reads AS r USING (user_id, channel_id)"
        " WHERE m.user_id = $1 ORDER BY channel_id LIMIT 100", claims["user_id"],
    )  # fmt: skip
    return [Unread(**row) for row in rows]


@app.post("/sync")
async def sync(body: Sync, claims: Caller) -> dict[str, Any]:
    logs = []
    async with app.state.pool.acquire() as connection:
        for position in body.positions:
            channel_id = uuid.UUID(position.log.removeprefix("channel:"))
            await require_member(connection, channel_id, claims["user_id"])
            rows = await connection.fetch(
                "SELECT sequence, event FROM events WHERE channel_id = $1 AND sequence > $2 ORDER BY sequence LIMIT 500",
                channel_id, position.sequence,
            )  # fmt: skip
            events = [{"sequence": row["sequence"], "event": json.loads(row["event"])} for row in rows]
            logs.append({"log": position.log, "status": "news", "epoch": 1, "events": events})
    return {"logs": logs, "more": False}
