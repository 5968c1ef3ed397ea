// Two people chat through a client that openapi-typescript has generated. Arguments: the URL of the server, a name.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

declare const process: { argv: string[] };

type ApiError = components["schemas"]["ApiError"];
type Answer<T> = { data?: T; error?: ApiError; response: Response };

function good<T>(answer: Answer<T>): T {
  if (answer.data === undefined) throw new Error(`${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

function expect(found: unknown, wanted: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

async function enter(baseUrl: string, username: string) {
  const anybody = createClient<paths>({ baseUrl });
  const password = "correct horse";
  good(await anybody.POST("/client/v1/users/register", { body: { username, password } }));
  const login = { identifier: username, secret: password, device: { device_id: "generated" } };
  const tokens = good(await anybody.POST("/client/v1/sessions/login", { body: login }));
  return createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${tokens.access_token}` } });
}

const [baseUrl, name] = process.argv.slice(2) as [string, string];
const offered = good(await createClient<paths>({ baseUrl }).GET("/client/v1"));
expect(offered.api_versions, ["v1"]);

const alice = await enter(baseUrl, `alice-${name}`);
const bob = await enter(baseUrl, `bob-${name}`);
const guild = good(await alice.POST("/client/v1/guilds", { body: { name: "Tea room" }, params: { header: { "Idempotency-Key": name } } }));
const again = good(await alice.POST("/client/v1/guilds", { body: { name: "Tea room" }, params: { header: { "Idempotency-Key": name } } }));
expect(again.guild_id, guild.guild_id);
const in_guild = { path: { guild_id: guild.guild_id } };
const channel = good(await alice.POST("/client/v1/guilds/{guild_id}/channels", { params: in_guild, body: { name: "general" } }));
const invite = good(await alice.POST("/client/v1/guilds/{guild_id}/invites", { params: in_guild, body: {} }));
const member = good(await bob.POST("/client/v1/invites/{code}/accept", { params: { path: { code: invite.code } } }));
expect(member.role, "member");

const path = { channel_id: channel.channel_id };
const messages = "/client/v1/channels/{channel_id}/messages";
const first = good(await alice.POST(messages, { params: { path }, body: { content: "Hello Bob", nonce: "1" } }));
const second = good(await bob.POST(messages, { params: { path }, body: { content: "Hello Alice", reply_to: first.event_id } }));
const newest = good(await alice.GET(messages, { params: { path, query: { limit: 1 } } }));
expect(newest.map((message) => message.content), ["Hello Alice"]);
const before = good(await bob.GET(messages, { params: { path, query: { before: second.sequence } } }));
expect(before.map((message) => message.content), ["Hello Bob"]);
const log = good(await bob.GET("/client/v1/channels/{channel_id}/events", { params: { path, query: { since: 0 } } }));
expect(log.map((event) => event.sequence), [1, 2]);

const refused = await bob.GET("/client/v1/channels/{channel_id}/events", { params: { path, query: { since: 99 } } });
expect(refused.error?.error, "invalid_since");
console.log("two people have chatted");
