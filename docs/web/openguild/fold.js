/** Keeps a page of messages current by applying the events after it (PROTOCOL 7.8.2). */

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").LogEvent} LogEvent */

const PREVIEW_CHARS = 200;
const MAX_REACTORS = 10;

/**
 * Return the messages with the events applied. `messages` and `events` are in the order of the log. Neither is changed, and
 * unchanged messages stay the same objects. Events of a message that is not in the list, and other events, change nothing.
 * @param {readonly Message[]} messages a folded page
 * @param {readonly Pick<LogEvent, "sequence" | "event">[]} events the events after the page's `head`, each once
 * @param {{me?: string | undefined}} [options] `me`: the user's id, for their own reactions
 * @returns {Message[]}
 */
export function foldMessages(messages, events, { me } = {}) {
  const folded = [...messages];
  for (const event of events) foldOne(folded, event, me);
  return folded;
}

/**
 * @param {Message[]} messages
 * @param {Pick<LogEvent, "sequence" | "event">} delivered
 * @param {string | undefined} me
 */
function foldOne(messages, { sequence, event }, me) {
  const { content, event_type: type, event_id: eventId } = event;
  if (type === "message") return addMessage(messages, sequence, event);
  const target = content["target"];
  if (type === "message.edited") countVersion(messages, target);
  if (content["redacted_by"] !== undefined) return; // the edit or its message was redacted
  /** @param {(message: Message) => Message} change */
  const change = (change) => {
    const place = messages.findLastIndex((message) => message.event_id === target);
    const message = messages[place];
    if (message !== undefined && message.redacted_by == null) messages[place] = change(message);
    return message !== undefined;
  };
  /** @param {string} [text] */
  const quote = (text) => {
    for (const [place, message] of messages.entries()) {
      if (message.reply_to !== target || !message.reply_preview) continue;
      const { content: _, ...preview } = message.reply_preview;
      const quoted = text === undefined ? { ...preview, author: { id: preview.author.id } } : { ...preview, content: clipped(text) };
      messages[place] = { ...message, reply_preview: quoted };
    }
  };
  switch (type) {
    case "message.edited": {
      const text = content["content"];
      change((message) => ({ ...message, content: text, edited_at: timeOf(event) }));
      quote(text);
      break;
    }
    case "message.redacted":
      change(({ content: _, edited_at: __, pinned_at: ___, reactions: ____, ...message }) => ({
        ...message, author: { id: message.author.id }, redacted_by: eventId,
      }));
      quote();
      break;
    case "reaction.added":
    case "reaction.removed":
      change((message) => react(message, content["emoji"], event.sender, type === "reaction.added", event.sender === me));
      break;
    case "reactions.cleared":
      change(({ reactions = [], ...message }) => {
        const left = reactions.filter(({ emoji }) => content["emoji"] != null && emoji !== content["emoji"]);
        return left.length > 0 ? { ...message, reactions: left } : message;
      });
      break;
    case "message.pinned":
      change((message) => ({ ...message, pinned_at: timeOf(event) }));
      break;
    case "message.unpinned":
      change(({ pinned_at: _, ...message }) => message);
  }
}

/**
 * @param {Message[]} messages
 * @param {number} sequence
 * @param {import("./types.js").CanonicalEvent} event
 */
function addMessage(messages, sequence, event) {
  if (messages.some((message) => message.event_id === event.event_id)) return;
  const { content } = event;
  const redactedBy = content["redacted_by"];
  /** @type {Message} */
  const message = {
    event_id: event.event_id, sequence, channel_id: event.room_id, author: content["author"] ?? { id: event.sender }, created_at: timeOf(event),
    ...(redactedBy === undefined ? { content: content["content"] } : { redacted_by: redactedBy }),
  };
  const answered = content["reply_to"];
  if (typeof answered === "string") {
    message.reply_to = answered;
    const place = messages.findLastIndex((other) => other.event_id === answered);
    const other = messages[place];
    if (other !== undefined) {
      messages[place] = { ...other, reply_count: (other.reply_count ?? 0) + 1 };
      message.reply_preview = {
        event_id: other.event_id, sequence: other.sequence, author: other.author,
        ...(other.content == null ? {} : { content: clipped(other.content) }),
      };
    }
  }
  const place = messages.findLastIndex((other) => other.sequence < sequence);
  messages.splice(place + 1, 0, message);
}

/**
 * Count an edit as a version of its message, even if the edit or the message was redacted before it was delivered.
 * @param {Message[]} messages
 * @param {string} target
 */
function countVersion(messages, target) {
  const place = messages.findLastIndex((message) => message.event_id === target);
  const message = messages[place];
  if (message !== undefined) messages[place] = { ...message, versions: (message.versions ?? 1) + 1 };
}

/**
 * @param {Message} message
 * @param {string} emoji
 * @param {string} user
 * @param {boolean} adds
 * @param {boolean} isMine
 * @returns {Message}
 */
function react(message, emoji, user, adds, isMine) {
  const reactions = [...(message.reactions ?? [])];
  const place = reactions.findIndex((reaction) => reaction.emoji === emoji);
  const { count = 0, me = false, reactors = [] } = reactions[place] ?? {};
  const users = reactors.filter((reactor) => reactor !== user);
  if (adds && users.length < MAX_REACTORS) users.push(user);
  const changed = { emoji, count: count + (adds ? 1 : -1), me: isMine ? adds : me, reactors: users };
  if (changed.count <= 0) reactions.splice(place, place < 0 ? 0 : 1);
  else reactions.splice(place < 0 ? reactions.length : place, 1, changed);
  const { reactions: _, ...rest } = message;
  return reactions.length > 0 ? { ...rest, reactions } : rest;
}

/**
 * Return the time in the form that the server writes: the shortest exact one, without a fraction at whole seconds.
 * @param {{origin_ts: number}} event
 */
function timeOf(event) {
  return new Date(event.origin_ts).toISOString().replace(".000Z", "Z");
}

/** @param {string} text */
function clipped(text) {
  return [...text].slice(0, PREVIEW_CHARS).join("");
}
