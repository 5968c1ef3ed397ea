"""Lines of the terminal for channels and messages."""

from __future__ import annotations

from rich.text import Text

from openguild_proto.client.message_list import ShownMessage
from openguild_runtime.chat.model import ChatModel, ShownChannel
from openguild_runtime.client import ApiError

EXCERPT_CHARS = 40


def problem_text(failure: Exception) -> str:
    """Return a refusal in a line, with the fields that were refused."""
    if not isinstance(failure, ApiError):
        return str(failure)
    details = "; ".join(f"{problem.field} {problem.message}".strip() for problem in failure.details)
    return failure.message + (f": {details}" if details else "")


def channel_label(channel: ShownChannel, is_open: bool) -> Text:
    """Return the line of a channel, with its unread count."""
    unread = f" ({channel.unread})" if channel.unread else ""
    return Text(f"# {channel.name}{unread}", style="bold" if channel.unread or is_open else "")


def message_lines(model: ChatModel, count: int) -> list[Text]:
    """Return the newest messages, one to three lines each, `count` lines at most."""
    if model.shown is None:
        return [Text("no channel is open: /guild NAME makes a guild, /join CODE joins one")]
    lines: list[Text] = []
    for message in model.shown.messages.values():
        lines += _lines(model, message)
    return lines[-count:]


def _lines(model: ChatModel, message: ShownMessage) -> list[Text]:
    found = []
    shown = model.shown
    answered = shown.messages.get(message.reply_to) if shown is not None and message.reply_to is not None else None
    if answered is not None:
        found.append(
            Text(
                f"  > {answered.author}: {model.shown_text(answered.text or 'taken back')[:EXCERPT_CHARS]}", style="dim"
            )
        )
    author = model.names.get(message.author_id, message.author)
    line = Text(f"{message.sequence:>4} ", style="dim")
    line.append(author, style="bold" if message.author_id == model.user_id else "bold cyan")
    if message.text is None:
        line.append("  taken back", style="dim italic")
    else:
        line.append(f"  {model.shown_text(message.text)}")
    for shown_if, mark in ((message.edited, " (edited)"), (message.pinned, " (pinned)")):
        if shown_if:
            line.append(mark, style="dim")
    found.append(line)
    if message.reactions:
        marks = "  ".join(f"{emoji} {reaction.count}" for emoji, reaction in message.reactions.items())
        found.append(Text(f"       {marks}", style="yellow"))
    return found
