/** Menus that change the open guild and its open channel. */

import { ask, choose } from "./dom.js";

/** @typedef {import("./chat.js").Chat} Chat */

const MAY_DELETE = ["owner", "admin"];
const NAME = { name: "name", label: "Name", required: true, maxlength: 64 };

/** Rename or delete the open guild. @param {Chat} chat */
export async function manageGuild(chat) {
  const { guild, client } = chat;
  if (guild === undefined) return;
  const { guild_id: id, name } = guild.guild;
  const deletion = MAY_DELETE.includes(chat.role) ? { deletion: "Delete guild" } : {};
  const chosen = await choose(`Manage ${name}`, { name: "Rename guild", ...deletion });
  if (chosen === "name") {
    const answer = await ask({ title: "Rename guild", submit: "Rename", fields: [{ ...NAME, value: name }] });
    if (answer?.["name"]) await client.renameGuild(id, answer["name"]);
  }
  if (chosen === "deletion") {
    const sure = await ask({ title: `Delete ${name}?`, text: "All its channels and messages are deleted for everybody.", submit: "Delete guild" });
    if (sure !== null) await client.deleteGuild(id);
  }
}

/** Change the name and the topic of the open channel, or delete it. @param {Chat} chat */
export async function manageChannel(chat) {
  const { channel, client } = chat;
  if (channel === undefined) return;
  const { channel_id: id, name, topic } = channel;
  const deletion = MAY_DELETE.includes(chat.role) ? { deletion: "Delete channel" } : {};
  const chosen = await choose(`Manage #${name}`, { change: "Change name and topic", ...deletion });
  if (chosen === "change") {
    const fields = [{ ...NAME, value: name }, { name: "topic", label: "Topic", value: topic ?? "", maxlength: 1_024 }];
    const answer = await ask({ title: `Change #${name}`, submit: "Change", fields });
    if (answer?.["name"]) await client.changeChannel(id, { name: answer["name"], topic: answer["topic"] ?? "" });
  }
  if (chosen === "deletion") {
    const sure = await ask({ title: `Delete #${name}?`, text: "All its messages are deleted for everybody.", submit: "Delete channel" });
    if (sure !== null) await client.deleteChannel(id);
  }
}
