"""The composition root: the only place where parts are joined; it starts them in order and stops them in reverse."""

from __future__ import annotations

import functools
import importlib.util
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from openguild_proto.canonical.keys import EventSigner, KeyRing
from openguild_proto.fanout import _native
from openguild_proto.fanout.hub import Hub
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.limits import Limits
from openguild_proto.operations.context import Service, Settings
from openguild_proto.policy.connections import ConnectionLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime import logs
from openguild_runtime.bus.base import Bus
from openguild_runtime.config import ServerConfig
from openguild_runtime.controls import Controls
from openguild_runtime.driver import Driver
from openguild_runtime.feeds import Feeds
from openguild_runtime.listener import accept_forever, open_listener, raise_descriptor_limit
from openguild_runtime.metrics import Metrics
from openguild_runtime.passwords import PasswordHasher
from openguild_runtime.perform import Performer
from openguild_runtime.readiness import ReadinessProbe
from openguild_runtime.shutdown import drain
from openguild_runtime.storage.base import Storage
from openguild_runtime.streams import Streams
from openguild_runtime.timers import TimerWheel
