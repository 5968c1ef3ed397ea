"""Formats channels and messages as lines of the terminal."""

from __future__ import annotations

from rich.text import Text

from openguild_proto.client.message_list import ShownMessage
from openguild_runtime.chat.model import ChatModel, ShownChannel
from openguild_runtime.client import ApiError

EXCERPT_CHARS = 40
SHOWN_MESSAGES = 200  # bounded, because each event redraws them
# Control characters (C0 and C1) in texts. Terminals run them as commands, for example to write to the clipboard.
_COMMANDS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def plain(text: str) -> str:
    """Return a text without control characters, safe for a terminal."""
    return text.translate(_COMMANDS)


def problem_text(failure: Exception) -> str:
    """Return an error as one line, with the refused fields."""
    if not isinstance(failure, ApiError):
        return plain(str(failure))
    details = "; ".join(f"{problem.field} {problem.message}".strip() for problem in failure.details)
    return plain(failure.message + (f": {details}" if details else ""))


def channel_label(channel: ShownChannel, is_open: bool) -> Text:
    """Return the line of a channel with its unread count."""
    unread = f" ({channel.unread})" if channel.unread else ""
    return Text(plain(f"# {channel.name}{unread}"), style="bold" if channel.unread or is_open else "")


def message_lines(model: ChatModel) -> list[Text]:
    """Return the lines of the newest messages, one to three each, not wrapped to the terminal's width."""
    if model.shown is None and model.open_channel is not None:
        return [Text("the messages are not loaded yet: choose the channel to load them")]
    if model.shown is None:
        return [Text("no channel is open: create a guild with /guild NAME or join one with /join CODE")]
    lines: list[Text] = []
    for message in list(model.shown.messages.values())[-SHOWN_MESSAGES:]:
        lines += _lines(model, message)
    return lines


def _author(model: ChatModel, message: ShownMessage) -> str:
    return model.names.get(message.author_id, message.author or "somebody")


def _lines(model: ChatModel, message: ShownMessage) -> list[Text]:
    found = []
    shown = model.shown
    answered = shown.messages.get(message.reply_to) if shown is not None and message.reply_to is not None else None
    if answered is not None:
        found.append(
            Text(
                plain(
                    f"  > {_author(model, answered)}: {model.shown_text(answered.text or 'deleted')[:EXCERPT_CHARS]}"
                ),
                style="dim",
            )
        )
    author = _author(model, message)
    line = Text(f"{message.sequence:>4} ", style="dim")
    line.append(plain(author), style="bold" if message.author_id == model.user_id else "bold cyan")
    if message.text is None:
        line.append("  deleted", style="dim italic")
    else:
        line.append(plain(f"  {model.shown_text(message.text)}"))
    for shown_if, mark in ((message.edited, " (edited)"), (message.pinned, " (pinned)")):
        if shown_if:
            line.append(mark, style="dim")
    found.append(line)
    if message.reactions:
        marks = "  ".join(f"{emoji} {reaction.count}" for emoji, reaction in message.reactions.items())
        found.append(Text(plain(f"       {marks}"), style="yellow"))
    return found
