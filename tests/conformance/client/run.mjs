// Runs the cases of this directory on docs/web/openguild's gateway, with a fake WebSocket and clock. Prints a line of JSON for each.
import { readFileSync, readdirSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { ApiError, STATUS_OF_CODE } from "../../../docs/web/openguild/errors.js";
import { Gateway } from "../../../docs/web/openguild/gateway.js";
import { DEADLINES, TRANSITIONS } from "../../../docs/web/openguild/phases.js";
import * as policy from "../../../docs/web/openguild/policy.js";
import { ReadMarks } from "../../../docs/web/openguild/reads.js";

const HELLO = {
  type: "hello", heartbeat_ms: 25_000, auth_ms: 10_000, server_time: "2026-01-01T00:00:00.000Z", capabilities: [],
  limits: { logs: 1_000, frame_bytes: 65_536, frames_per_minute: 600, held_frames: 64 },
};
const READY = {
  type: "ready", user: { user_id: "0198c0de-0000-7000-8000-00000000000a", username: "alice" }, guilds: [], heads: [],
  session: { session_id: "0198c0de-0000-7000-8000-00000000000b", expires_at: "2026-01-01T12:00:00.000Z" },
};
const settled = () => new Promise((resolve) => setImmediate(resolve)); // runs all pending promises

class Clock {
  #now = 0;
  #timers = new Map();
  #last = 0;
  now = () => this.#now;
  after(ms, call) {
    const id = ++this.#last;
    this.#timers.set(id, { at: this.#now + ms, call });
    return () => this.#timers.delete(id);
  }
  async pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      const [due] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at);
      if (due === undefined || due[1].at > end) break;
      this.#now = Math.max(this.#now, due[1].at);
      this.#timers.delete(due[0]);
      due[1].call();
      await settled();
    }
    this.#now = end;
  }
}

class Script {
  #clock = new Clock();
  #told = [];
  #sent = [];
  #socket = null;
  #token = "t1";
  #asked = null; // the caller that waits for a token
  #refs = new Map();

  constructor() {
    const script = this;
    class FakeSocket extends EventTarget {
      readyState = 0;
      constructor() {
        super();
        script.#told.push({ connect: {} });
        script.#socket = this;
      }
      send(text) {
        script.#sent.push(JSON.parse(text));
      }
      close() {
        script.#told.push({ disconnect: {} });
      }
    }
    const freshToken = (refused) => (refused === this.#token ? new Promise((resolve) => (this.#asked = resolve)) : Promise.resolve(this.#token));
    this.gateway = new Gateway({ url: "ws://test", WebSocket: FakeSocket, freshToken, tell: (told) => this.#tell(told), random: () => 0.5, clock: this.#clock });
  }

  #tell({ type, ...members }) {
    const { log, code, head, kind, data, epoch, sequence, event, after, recovered, retryMs } = members;
    const shown = {
      token_needed: () => ({}), opened: () => ({}), followed: () => ({ log, epoch, after, head, recovered }), refused: () => ({ log, code }),
      event: () => ({ log, epoch, seq: sequence, event }), ephemeral: () => ({ log, kind, data }), gone: () => ({ log, code }), lagging: () => ({ log, head }),
      live: () => ({ log }), interrupted: () => ({ retry_ms: retryMs }), ended: () => ({ code }),
    }[type];
    if (shown !== undefined) this.#told.push({ [type]: shown() });
  }

  #do({ do: what, log, place, tail, as, command, token }) {
    const { gateway } = this;
    if (what === "start") gateway.start();
    else if (what === "follow") gateway.follow(log, place === undefined ? null : { epoch: place[0], sequence: place[1] }, tail);
    else if (what === "unfollow") gateway.unfollow(log);
    else if (what === "close") gateway.close();
    else if (what === "token") (this.#token = token), this.#asked?.(token);
    else if (what === "send") {
      gateway.send(command, 1e9).then(
        (result) => command.type !== "typing" && (command.type !== "read" || result !== null) && this.#told.push({ answered: { as, result } }),
        (failure) => failure instanceof ApiError && this.#told.push({ failed: { as, code: failure.code, retry_after_ms: failure.retryAfter === undefined ? null : failure.retryAfter * 1_000, may_be_done: failure.mayBeDone } }),
      );
    } else throw new Error(`unknown: ${what}`);
  }

  #serve({ server: what, frame, text, code }) {
    const socket = this.#socket;
    const dispatch = (kind, members) => socket.dispatchEvent(Object.assign(new Event(kind), members));
    const say = (said) => dispatch("message", { data: said });
    if (what === "accepts") (socket.readyState = 1), dispatch("open");
    else if (what === "refuses") dispatch("error"), dispatch("close", { code: 1006, reason: "" });
    else if (what === "hello" || what === "ready") say(JSON.stringify(what === "hello" ? HELLO : READY));
    else if (what === "says") say(text ?? JSON.stringify({ ...frame, ...(this.#refs.has(frame.ref) ? { ref: this.#refs.get(frame.ref) } : {}) }));
    else if (what === "closes") (socket.readyState = 3), dispatch("close", { code, reason: "" });
    else if (what === "vanishes") (socket.readyState = 3), dispatch("error"), dispatch("close", { code: 1006, reason: "" });
    else throw new Error(`unknown: ${what}`);
  }

  /** Return the frames with the client's refs in place of the script's; a new one is bound to that of the frame sent here. */
  #bound(wanted, found) {
    return wanted.map((frame, place) => {
      if (typeof frame.ref !== "string") return frame;
      if (!this.#refs.has(frame.ref)) this.#refs.set(frame.ref, found[place]?.ref);
      return { ...frame, ref: this.#refs.get(frame.ref) };
    });
  }

  /** Carry out a step. Return a text that says what is wrong, if anything. */
  async step(step) {
    if ("do" in step) this.#do(step);
    else if ("server" in step) this.#serve(step);
    else if ("pass" in step) await this.#clock.pass(step.pass);
    await settled();
    const checks = {
      told: () => [step.told, this.#told.splice(0)],
      sent: () => {
        const found = this.#sent.splice(0);
        return [this.#bound(step.sent, found), found];
      },
      places: () => [step.places, Object.fromEntries([...this.gateway.machine.logs.places()].map(([log, { epoch, sequence }]) => [log, [epoch, sequence]]))],
    };
    for (const [name, check] of Object.entries(checks)) {
      if (!(name in step)) continue;
      const [wanted, found] = check();
      if (!isDeepStrictEqual(wanted, found)) return `${name}: ${JSON.stringify(found)} and not ${JSON.stringify(wanted)}`;
    }
    return null;
  }
}

/** Run a case of read_marks/. Return a text that says what is wrong, if anything. */
function readMarks({ steps }) {
  const marks = new ReadMarks(() => 0.5);
  for (const [place, step] of steps.entries()) {
    const { at } = step;
    const sequenceOf = (sequence) => sequence ?? undefined;
    const checks = {
      add: ([channel, sequence]) => (marks.add(channel, sequenceOf(sequence), `${channel}${sequence}`), step.add),
      take: () => { const mark = marks.take(at); return mark && [mark.channelId, mark.sequence ?? null]; },
      answered: () => marks.answered(),
      refused: () => marks.refused(step.status, step.advised, at),
      unanswered: () => (marks.unanswered(at), true),
      next: () => marks.nextAt(),
    };
    const [[name, wanted]] = Object.entries(step);
    const found = checks[name](wanted);
    if (!isDeepStrictEqual(wanted, found)) return `step ${place + 1}: ${JSON.stringify(found)} and not ${JSON.stringify(wanted)}`;
  }
  return null;
}

for (const one of JSON.parse(readFileSync(new URL("read_marks/cases.json", import.meta.url), "utf8"))) {
  console.log(JSON.stringify({ file: "read_marks", name: one.name, problem: readMarks(one) }));
}
for (const file of readdirSync(import.meta.dirname ?? new URL(".", import.meta.url)).filter((name) => name.endsWith(".json"))) {
  for (const { name, steps } of JSON.parse(readFileSync(new URL(file, import.meta.url), "utf8"))) {
    const script = new Script();
    let problem = null;
    for (const [place, step] of [...steps, { told: [] }, { sent: [] }].entries()) {
      problem = await script.step(step);
      if (problem !== null) {
        problem = `step ${place + 1}: ${problem}`;
        break;
      }
    }
    console.log(JSON.stringify({ file, name, problem }));
  }
}
console.log(JSON.stringify({ tables: { status: STATUS_OF_CODE, deadlines: DEADLINES, transitions: TRANSITIONS, ...policy, TEMPORARY_CODES: [...policy.TEMPORARY_CODES] } }));
