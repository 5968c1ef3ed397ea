"""Login attempts in memory, counted in bins of a sixtieth of the window as in PostgreSQL, and login blocks."""

from __future__ import annotations

from itertools import islice

from openguild_proto.effects.attempts import BlockLogins, CountAttempt, ListLoginBlocks, LoginBlock, UnblockLogins
from openguild_proto.effects.performs import performs
from openguild_proto.memory.state import State
from openguild_proto.policy.attempts import bin_of, decide_attempt, forgotten_until, longest_block

FORGOTTEN_AT_ONCE = 20


@performs(CountAttempt)
def count_attempt(state: State, effect: CountAttempt) -> float | None:
    start = forgotten_until(effect.now_ms, effect.window_secs)
    counted = []
    for key in effect.keys:
        bins = state.attempts[key.digest] = state.attempts.pop(key.digest, {})  # least recently used first
        for old in [at for at in bins if at <= start]:
            del bins[old]
        counted.append((bins, key.limit))
    blocks = (state.login_blocks[key.digest].ends_ms for key in effect.keys if key.digest in state.login_blocks)
    wait_secs = longest_block(blocks, effect.now_ms) or decide_attempt(
        counted, now_ms=effect.now_ms, window_secs=effect.window_secs
    )
    if wait_secs is None:
        now_bin = bin_of(effect.now_ms, effect.window_secs)
        for key in effect.keys:
            bins = state.attempts[key.digest]
            bins[now_bin] = bins.get(now_bin, 0) + 1
    for digest in list(islice(state.attempts, FORGOTTEN_AT_ONCE)):
        if max(state.attempts[digest], default=0) <= start:
            del state.attempts[digest]
    return wait_secs


@performs(BlockLogins)
def block_logins(state: State, effect: BlockLogins) -> bool:
    state.login_blocks = {block.digest: block for block in _living(state, effect.now_ms)}
    if effect.block.digest not in state.login_blocks and len(state.login_blocks) >= effect.most:
        return False
    state.login_blocks[effect.block.digest] = effect.block
    return True


@performs(UnblockLogins)
def unblock_logins(state: State, effect: UnblockLogins) -> bool:
    block = state.login_blocks.pop(effect.digest, None)
    return block is not None and block.ends_ms > effect.now_ms


@performs(ListLoginBlocks)
def list_login_blocks(state: State, effect: ListLoginBlocks) -> list[LoginBlock]:
    return sorted(_living(state, effect.now_ms), key=lambda block: (block.ends_ms, block.kind, block.name))


def _living(state: State, now_ms: int) -> list[LoginBlock]:
    return [block for block in state.login_blocks.values() if block.ends_ms > now_ms]
