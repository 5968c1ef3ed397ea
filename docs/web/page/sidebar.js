/** Guilds, channels and members. */

import { ask, byId, choose, h, shown } from "./dom.js";
import { timedOutUntil } from "./guild.js";
import { manageGuild } from "./manage.js";
import { showBans } from "./panel.js";
import { redraw, Rows } from "./redraw.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./dom.js").Child} Child */

const { compare: compareNames } = new Intl.Collator();
const RANKS = ["owner", "admin", "moderator", "maintainer", "member", "contributor", "viewer", "guest"];

export class Sidebar {
  nextEnd = Infinity; // when the next of the shown time-outs ends

  /** @param {Chat} chat */
  constructor(chat) {
    this.chat = chat;
    this.lists = h("div", { class: "lists" });
    this.navigation = h("nav", { id: "channels", "aria-label": "Guilds and channels" }, this.lists);
    this.members = h("aside", { id: "members", "aria-labelledby": "members-title" });
    this.guilds = new Rows(h("ul", { "data-key": "guilds" }));
    this.channels = new Rows(h("ul", { "data-key": "channels" }));
    this.people = new Rows(h("ul"));
  }

  drawNavigation() {
    const { chat } = this;
    this.guilds.draw(chat.sortedGuilds.map(({ guild: { guild_id: id, name } }) => {
      const { unread, mentions } = id === chat.guildId ? { unread: 0, mentions: 0 } : chat.unreadOf(id);
      return this.#item("guild", id, name, id === chat.guildId, unread, mentions, () => chat.openGuild(id));
    }));
    this.channels.draw(chat.channels.map(({ channel_id: id, name }) => {
      const { unread, mentions } = chat.unread.of(id);
      return this.#item("channel", id, `# ${name}`, id === chat.channelId, unread, mentions, () => chat.open(id));
    }));
    redraw(this.lists,
      h("h2", {}, "Guilds"),
      this.guilds.parent,
      h("p", { class: "buttons" }, h("button", { type: "button", id: "new-guild", "data-key": "new-guild", onclick: () => void shown(() => this.#newGuild()) }, "New guild"),
        h("button", { type: "button", id: "join", "data-key": "join", onclick: () => void shown(() => this.#join()) }, "Join")),
      chat.guild && h("h2", {}, "Channels"),
      chat.guild && this.channels.parent,
      chat.guild && h("p", { class: "buttons" },
        chat.mayMaintain && h("button", { type: "button", id: "new-channel", "data-key": "new-channel", onclick: () => void shown(() => this.#newChannel()) }, "New channel"),
        chat.mayMaintain && h("button", { type: "button", id: "invite", "data-key": "invite", onclick: () => void shown(() => this.#invite()) }, "Invite"),
        chat.mayModerate && h("button", { type: "button", id: "manage-guild", "data-key": "manage-guild", "aria-haspopup": "dialog", onclick: () => void shown(() => manageGuild(chat)) }, "Manage"),
        h("button", { type: "button", id: "leave", "data-key": "leave", onclick: () => void shown(() => this.#leave()) }, "Leave")));
  }

  /**
   * @param {string} kind @param {string} id @param {string} name @param {boolean} isCurrent @param {number} unread @param {number} mentions
   * @param {() => Promise<unknown>} open
   * @returns {import("./redraw.js").Row}
   */
  #item(kind, id, name, isCurrent, unread, mentions, open) {
    const make = () => {
      const badge = unread > 0 && h("span", { class: mentions > 0 ? "badge mentions" : "badge" }, mentions > 0 ? `@${mentions}` : String(unread),
        h("span", { class: "hidden" }, mentions > 0 ? " mentions" : " unread"));
      return h("li", { "data-key": `${kind}-${id}` }, h("button", {
        type: "button", class: "item", "aria-current": isCurrent && "true", onclick: () => (hideDrawers(), void shown(open)),
      }, h("span", { class: "name" }, name), badge));
    };
    return { key: id, state: [name, isCurrent, unread, mentions], make };
  }

  drawMembers() {
    const { chat } = this;
    const members = [...(chat.guild?.members.values() ?? [])].map((member) => {
      const isMe = member.user_id === chat.me.user_id;
      const status = isMe ? chat.status : (chat.guild?.presence.get(member.user_id) ?? "offline");
      return { member, status, name: member.display_name ?? member.username, rank: RANKS.indexOf(member.role) + (status === "offline" ? RANKS.length : 0) };
    });
    members.sort((a, b) => a.rank - b.rank || compareNames(a.name, b.name));
    this.nextEnd = Infinity;
    this.people.draw(members.map(({ member, status, name }) => {
      const mayManage = this.#mayManage(member);
      const until = timedOutUntil(member);
      const isTimedOut = until > 0;
      if (isTimedOut) this.nextEnd = Math.min(this.nextEnd, until);
      const role = isTimedOut ? "timed out" : member.role;
      const title = isTimedOut && `${member.role}, timed out until ${new Date(until).toLocaleString()}`;
      const make = () => h("li", { class: `member ${status}`, "data-user": member.username },
        h("span", { class: "dot", "aria-hidden": "true" }),
        h("p", {}, h("span", { class: "name" }, name), h("span", { class: "hidden" }, `, ${status}, `), h("span", { class: "role", title }, role)),
        mayManage && h("button", { type: "button", class: "quiet", "aria-haspopup": "dialog", "aria-label": `Manage ${name}`, onclick: () => void shown(() => this.#manage(member, isTimedOut)) }, "⋯"));
      return { key: `${member.guild_id} ${member.user_id}`, state: [status, name, role, title, mayManage], make };
    }));
    redraw(this.members, h("h2", { id: "members-title" }, "Members"), this.people.parent,
      chat.guild && chat.mayModerate && h("p", { class: "buttons" },
        h("button", { type: "button", id: "bans", "data-key": "bans", onclick: () => (hideDrawers(), void shown(() => showBans(chat))) }, "Bans")));
  }

  /** @param {import("../openguild/types.js").Member} member */
  #mayManage(member) {
    return this.chat.mayModerate && RANKS.indexOf(member.role) > RANKS.indexOf(this.chat.role);
  }

  /** @param {import("../openguild/types.js").Member} member @param {boolean} isTimedOut */
  async #manage(member, isTimedOut) {
    const chosen = await choose(`Manage ${member.display_name ?? member.username}`, {
      role: "Change role", timeout: isTimedOut ? "End time-out" : "Time out", remove: "Remove", ban: "Ban",
    });
    if (chosen === "role") await this.#changeRole(member);
    if (chosen === "timeout") await this.#timeOut(member, isTimedOut);
    if (chosen === "remove") await this.#remove(member);
    if (chosen === "ban") await this.#ban(member);
  }

  /** @param {import("../openguild/types.js").Member} member */
  async #changeRole(member) {
    const answer = await ask({
      title: `Role of ${member.username}`, submit: "Change",
      fields: [{ name: "role", label: "Role", value: member.role, options: RANKS.slice(RANKS.indexOf(this.chat.role)) }],
    });
    const role = /** @type {import("../openguild/types.js").Role | undefined} */ (answer?.["role"]);
    if (role && role !== member.role) await this.chat.client.setRole(member.guild_id, member.user_id, role);
  }

  /** @param {import("../openguild/types.js").Member} member */
  async #remove(member) {
    const sure = await ask({ title: `Remove ${member.username}?`, text: "They can come back with another invite.", submit: "Remove" });
    if (sure !== null) await this.chat.client.removeMember(member.guild_id, member.user_id);
  }

  /** @param {import("../openguild/types.js").Member} member @param {boolean} isTimedOut */
  async #timeOut(member, isTimedOut) {
    const { client } = this.chat;
    if (isTimedOut) return void (await client.endTimeout(member.guild_id, member.user_id));
    const answer = await ask({
      title: `Time out ${member.username}?`, text: "They can read, but not write, until the time is over.", submit: "Time out",
      fields: [
        { name: "minutes", label: "Minutes", value: "10", required: true, maxlength: 5 },
        { name: "reason", label: "Reason, which all members can read", maxlength: 512 },
      ],
    });
    if (answer === null) return;
    const secs = Math.round(Number(answer["minutes"]) * 60);
    if (!(secs > 0)) throw new Error("Enter a number of minutes above 0.");
    await client.timeOut(member.guild_id, member.user_id, secs, { reason: answer["reason"] || undefined });
  }

  /** @param {import("../openguild/types.js").Member} member */
  async #ban(member) {
    const answer = await ask({
      title: `Ban ${member.username}?`, text: "They cannot come back until a moderator ends the ban.", submit: "Ban",
      fields: [{ name: "reason", label: "Reason, which all members can read", maxlength: 512 }],
    });
    if (answer !== null) await this.chat.client.banMember(member.guild_id, member.user_id, { reason: answer["reason"] || undefined });
  }

  async #newGuild() {
    const name = await askName("New guild", "Name of the guild", "Create");
    if (!name) return;
    const { client } = this.chat;
    const { guild_id: id } = await client.createGuild(name);
    await client.createChannel(id, "general");
    await this.chat.arrived(id);
  }

  async #newChannel() {
    const { client, guildId } = this.chat;
    const name = await askName("New channel", "Name of the channel", "Create");
    if (name) await client.createChannel(guildId, name);
  }

  async #invite() {
    const { client, guild } = this.chat;
    if (guild === undefined) return;
    const { code } = await client.createInvite(guild.id, { maxUses: 100, expiresInSecs: 7 * 86_400 });
    const link = `${location.origin}${location.pathname}#invite=${code}`;
    const input = h("input", { id: "invite-link", readonly: true, "aria-label": "Link", onfocus: () => input.select() });
    input.value = link;
    const mayCopy = "clipboard" in navigator; // only secure contexts have a clipboard
    const answer = await ask({
      title: `Invite to ${guild.guild.name}`, text: "Whoever has this link can join, for a week.", submit: mayCopy ? "Copy" : "Close", extra: h("p", {}, input),
    });
    if (answer !== null && mayCopy) await navigator.clipboard.writeText(link);
  }

  async #join() {
    const answer = await ask({ title: "Join a guild", fields: [{ name: "invite", label: "Link or code of the invite", required: true }], submit: "Join" });
    if (!answer?.["invite"]) return;
    const { guild_id: id } = await this.chat.client.acceptInvite(answer["invite"]);
    await this.chat.arrived(id);
  }

  async #leave() {
    const { guild, client } = this.chat;
    if (guild === undefined) return;
    const sure = await ask({ title: `Leave ${guild.guild.name}?`, submit: "Leave" });
    if (sure !== null) await client.leaveGuild(guild.guild.guild_id);
  }
}

/** Hide the drawer that covers the messages on narrow screens. Return the button that opened it, or null. */
export function hideDrawers() {
  const opener = document.querySelector('.only-narrow[aria-expanded="true"]');
  byId("app").classList.remove("shows-channels", "shows-members");
  for (const button of document.querySelectorAll(".only-narrow")) button.setAttribute("aria-expanded", "false");
  return opener instanceof HTMLElement ? opener : null;
}

/** Ask for a name. @param {string} title @param {string} label @param {string} submit */
async function askName(title, label, submit) {
  return (await ask({ title, fields: [{ name: "name", label, required: true, maxlength: 64 }], submit }))?.["name"];
}
