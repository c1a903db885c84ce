"use strict";
// Names of sessions and files come from outside: they are only ever set as textContent.

const WINDOW = 15 * 60 * 1000; // ms that a plot shows at most
const STEP = 60 * 1000; // ms by which a plot grows until then
const SILENCE = 30 * 1000; // ms without an event after which the page connects again: a dead connection looks like a quiet one
const SHOWN = 5; // failed files in one card; all of them are in the dialog
const FLYING = 40; // files in flight in one card
const PAGE = 100; // files in one page of the dialog
const STATES = { active: "taking files", draining: "finishing", stopped: "stopped" };

const at = (id) => document.getElementById(id);
const is = (node, name) => node.querySelector(`[data-is="${name}"]`);

function say(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Show invisible characters, and those that change the direction of the text, by their code. */
function visible(name) {
  const code = (c) => `\u27e8U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  return name.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, code);
}

function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = Number(count) || 0, unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${unit && value < 99.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

const number = (count) => (Number(count) || 0).toLocaleString("en");
const files = (count) => `${number(count)} ${count === 1 ? "file" : "files"}`;

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** An estimate, without the seconds. */
const roughly = (seconds) => (seconds < 60 || seconds >= 3600 ? duration(seconds) : `${Math.ceil(seconds / 60)} min`);

/** A time as an operator reads it: without the day when it is today. */
function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return "";
  return time.toDateString() === new Date().toDateString() ? time.toLocaleTimeString() : time.toLocaleString();
}

/** Make the children of `parent` match `items`; a row keeps its node, and so the focus, as long as its key lives. */
function rows(parent, template, items, keyOf, update) {
  const old = parent.rows || new Map(), kept = new Map();
  items.forEach((item, index) => {
    const key = keyOf(item);
    const node = kept.has(key) || !old.has(key) ? at(template).content.firstElementChild.cloneNode(true) : old.get(key);
    kept.set(kept.has(key) ? `${key}#${index}` : key, node);
    update(node, item);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] || null);
  });
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  parent.rows = kept;
}

function bar(node, done, total, label) {
  const share = total > 0 ? Math.min(1, done / total) : 0;
  if (node.value !== share) node.value = share;
  node.setAttribute("aria-label", label);
}

// ---- files

function fileRow(node, file) {
  say(is(node, "path"), visible(file.path));
  const sent = file.size > 0 ? Math.floor((100 * file.uploaded) / file.size) : 0;
  say(is(node, "size"), file.state === "uploading" ? `${bytes(file.size)} · ${Math.min(100, sent)}%` : file.size > 0 ? bytes(file.size) : "");
  show(is(node, "bar"), file.state === "uploading");
  bar(is(node, "bar"), file.uploaded, file.size, `upload of ${file.path}`);
  show(is(node, "error"), Boolean(file.error));
  say(is(node, "error"), file.error ? `${file.error}${outlook(file)}` : "");
}

/** What has been tried, and what comes next: never more than is known. */
function outlook(file) {
  if (file.state === "kept") return " (it stays on the share until somebody deals with it)";
  if (file.state !== "failed") return "";
  if (file.old) return "";
  const tries = file.attempts === 1 ? "tried once" : `tried ${number(file.attempts)} times`;
  if (file.ended) return ` (${tries}; the session has stopped, and tries nothing again)`;
  if (!file.next_try) return ` (${tries}; it is not tried again by itself)`;
  const due = Date.parse(file.next_try) > Date.now() ? `next try at ${moment(file.next_try)}` : "due now";
  return ` (${tries}, ${due})`;
}

/** `all`: how many there are; the status names some of them only. */
function fileList(card, kind, words, list, all, most) {
  const some = list.slice(0, most);
  show(is(card, `${kind}-title`), all > 0 && (some.length > 0 || kind === "failing"));
  rows(is(card, kind), "file-row", some, (file) => file.path, fileRow);
  say(is(card, `${kind}-title`), all > some.length ? `${words}: ${number(some.length)} of ${number(all)}` : words);
}

// ---- rates

const history = new Map(); // session -> [[time, rate], ...]

function note(key, rate, time) {
  const points = history.get(key) || [];
  const last = points.length - 1;
  if (last > 0 && points[last][0] - points[last - 1][0] < 1000) points[last] = [time, rate]; // one a second is kept
  else points.push([time, rate]);
  while (points.length > 1 && points[1][0] < time - WINDOW) points.shift();
  history.set(key, points);
}

function plot(card, key, now) {
  const points = history.get(key) || [];
  const peak = points.reduce((most, point) => Math.max(most, point[1]), 0);
  const age = points.length ? now - points[0][0] : 0;
  const width = Math.min(WINDOW, STEP * Math.max(1, Math.ceil(age / STEP)));
  const x = (time) => (300 * Math.max(0, 1 - (now - time) / width)).toFixed(1);
  const y = (rate) => (58 - 54 * (peak > 0 ? rate / peak : 0)).toFixed(1);
  let edge = "";
  points.forEach(([time, rate], i) => { edge += `${i ? "L" : "M"}${x(time)} ${y(rate)}`; });
  const last = points[points.length - 1];
  const known = card.live && at("line").dataset.state === "live"; // else the line ends where knowledge does
  if (last && known) edge += `L300 ${y(last[1])}`;
  is(card, "plot").querySelector(".edge").setAttribute("d", edge);
  is(card, "plot").querySelector(".area").setAttribute("d", edge ? `${edge}L${known ? 300 : x(last[0])} 60L${x(points[0][0])} 60Z` : "");
  is(card, "plot").setAttribute("aria-label", `rate of the last ${width / STEP} min, at most ${bytes(peak)} a second`);
  say(is(card, "since"), `${width / STEP} min ago`);
  say(is(card, "peak"), peak > 0 ? `peak ${bytes(peak)}/s` : "");
}

// ---- sessions

const keyOf = (session) => `${session.session}@${session.shard}`;

function eta(session) {
  const left = session.files.waiting + session.files.uploading;
  if (session.as_of) return `as of ${moment(session.as_of)}`;
  if (session.state === "stopped") return session.files.failed > 0 ? `${files(session.files.failed)} left on the share` : "stopped; uploaded files are being deleted from the share";
  if (left === 0) return session.files.failed > 0 ? `${files(session.files.failed)} not sent` : "nothing left to do";
  if (session.eta_s === null || session.eta_s === undefined) return "time left not known yet";
  return session.eta_s < 2 ? "almost done" : `about ${roughly(session.eta_s)} left`;
}

function sessionCard(card, session) {
  const { files: count, bytes: size } = session;
  const total = count.waiting + count.uploading + count.completed + count.failed;
  say(is(card, "name"), session.session);
  is(card, "state").dataset.state = session.as_of ? "lost" : session.state;
  say(is(card, "state"), session.as_of ? "shard not reachable" : STATES[session.state] || session.state);
  card.started = Date.parse(session.started_at);
  card.shard = session.shard;
  card.key = keyOf(session);
  card.live = !session.as_of;
  const over = session.state === "stopped";
  show(is(card, "stop"), !over);
  is(card, "stop").disabled = Boolean(session.as_of);
  show(is(card, "again"), over);
  is(card, "again").disabled = Boolean(session.as_of);
  is(card, "again").setAttribute("aria-label", `Start ${session.session} again`);
  is(card, "again").onclick = () => askAgain(session.session, session.extensions);
  is(card, "stop").setAttribute("aria-label", `Stop ${session.session}`);
  is(card, "stop").onclick = () => askStop(session.session);
  // Without a byte total (empty files only) the count of files tells as much.
  const [done, all] = size.total > 0 ? [size.uploaded, size.total] : [count.completed, total];
  const sure = all > 0 ? Math.min(done, all) / all : 0;
  const part = count.completed < total ? Math.min(sure, 0.99) : sure; // failed files often have no size
  bar(is(card, "bar"), part, 1, `progress of ${session.session}`);
  say(is(card, "bytes"), total > 0 ? `${Math.floor(100 * part)}% · ${bytes(size.uploaded)} of ${bytes(size.total)} · ${number(count.completed)} of ${files(total)}` : "no files yet");
  say(is(card, "eta"), total > 0 || session.as_of ? eta(session) : "");
  card.classList.toggle("old", Boolean(session.as_of));
  say(is(card, "where"), goal(session));
  show(is(card, "types"), Boolean(session.extensions && session.extensions.length));
  say(is(card, "types"), session.extensions ? `only ${session.extensions.join(", ")}` : "");
  show(is(card, "replaced"), count.replaced > 0);
  say(is(card, "replaced"), `${files(count.replaced)} took the place of other content under the same name in the store`);
  for (const kind of ["waiting", "uploading", "completed", "failed"]) say(is(card, kind), number(count[kind]));
  card.querySelector("[data-alarm]").classList.toggle("on", count.failed > 0);
  say(is(card, "rate"), session.as_of ? "not known now" : `${bytes(session.rate_bytes_per_s)}/s`);
  const failing = session.current.filter((file) => file.state === "failed" || file.state === "kept");
  for (const file of failing) Object.assign(file, { ended: over, old: Boolean(session.as_of) });
  show(is(card, "last"), Boolean(session.last_error) && failing.length === 0);
  say(is(card, "last"), session.last_error ? `Last error: ${session.last_error.path ? `${session.last_error.path}: ` : ""}${session.last_error.error}` : "");
  fileList(card, "failing", "Failed", failing, count.failed, SHOWN);
  show(is(card, "all"), count.failed > 0);
  is(card, "all").disabled = Boolean(session.as_of);
  is(card, "all").onclick = () => showFailed(session, over);
  is(card, "all").setAttribute("aria-label", `Show every failed file of ${session.session}`);
  const flying = session.current.filter((file) => file.state === "uploading");
  fileList(card, "flying", "In flight", flying, Math.max(flying.length, count.uploading), FLYING);
  const held = session.current.filter((file) => file.state === "waiting");
  fileList(card, "held", "Waiting for their writer", held, held.length, SHOWN);
  age(card);
}

function age(card) {
  const since = Number.isNaN(card.started) ? "" : ` · since ${moment(card.started)}, ${duration((Date.now() - card.started) / 1000)}`;
  say(is(card, "about"), `shard ${card.shard}${since}`);
}

let stores = new Map(); // shard -> where its files go

function goal(session) {
  const to = stores.get(session.shard) || [...stores.values()][0]; // one share has one destination
  return to ? `to ${to.endpoint}/${to.container}/${to.prefix}${session.session}/` : "";
}

function shardRow(node, shard) {
  node.classList.toggle("away", !shard.reachable);
  say(is(node, "name"), `shard ${shard.shard}`);
  const room = shard.room === undefined || shard.room === null ? "" : shard.room > 0 ? "takes the next start" : "full";
  say(is(node, "state"), shard.reachable ? (shard.waits_for ? "waits" : room) : "not reachable");
  const why = (shard.error || "").replace(`shard ${shard.shard} is not reachable: `, "");
  const about = [shard.sessions.join(", "), shard.waits_for].filter(Boolean).join(": ");
  const away = [shard.since ? `since ${moment(shard.since)}` : "", why, shard.sessions.length ? `last known to run ${shard.sessions.join(", ")}` : "what it runs is not known"];
  say(is(node, "about"), shard.reachable ? about : away.filter(Boolean).join(" · "));
}

/** Say once what is true of all shards: where files go, and the version. */
function facts(shards) {
  stores = new Map(shards.filter((shard) => shard.store).map((shard) => [shard.shard, shard.store]));
  const goals = new Set([...stores.values()].map((to) => `${to.endpoint}/${to.container}/${to.prefix}`));
  const versions = new Set(shards.map((shard) => shard.version).filter(Boolean));
  say(at("facts"), [goals.size ? `Files go to ${[...goals].join(" and ")}` : "", versions.size ? `version ${[...versions].join(" and ")}` : ""].filter(Boolean).join(" · "));
}

// ---- the whole page

let before = null;

function render(status) {
  const now = Date.now(), sessions = status.sessions, sum = { waiting: 0, uploading: 0, completed: 0, failed: 0, rate: 0 };
  for (const session of sessions) {
    if (!session.as_of) note(keyOf(session), session.rate_bytes_per_s, now);
    if (!session.as_of) sum.rate += session.rate_bytes_per_s;
    for (const kind of ["waiting", "uploading", "completed", "failed"]) sum[kind] += session.files[kind];
  }
  for (const key of history.keys()) if (!sessions.some((session) => keyOf(session) === key)) history.delete(key);
  for (const kind of ["waiting", "uploading", "completed", "failed"]) say(at(kind), number(sum[kind]));
  say(at("rate"), `${bytes(sum.rate)}/s`);
  document.querySelector("#totals [data-alarm]").classList.toggle("on", sum.failed > 0);
  document.title = sessions.length ? `${bytes(sum.rate)}/s${sum.failed ? ` · ${files(sum.failed)} failed` : ""} · nfs-watch` : "nfs-watch";
  facts(status.shards);
  rows(at("sessions"), "session-card", sessions, keyOf, sessionCard);
  rows(at("shards"), "shard-row", status.shards, (shard) => shard.shard, shardRow);
  const unknown = status.shards.filter((shard) => !shard.reachable && !shard.sessions.length).map((shard) => shard.shard);
  show(at("idle"), sessions.length === 0);
  say(at("idle"), unknown.length
    ? `No session is known. What runs on shard ${unknown.join(", ")} is not known, because it is not reachable.`
    : "No session is running. Start one, then move finished files into its folder on the share.");
  if (before && before.sessions.some((session) => !sessions.some((one) => keyOf(one) === keyOf(session)))) showEnded();
  trouble(status.error || (status.shards.length ? "" : "There are no shards: nothing can be uploaded."));
  tick();
  announce(status);
  before = status;
}

function trouble(text) {
  show(at("trouble"), Boolean(text));
  say(at("trouble"), text);
}

/** Tell a screen reader about new states; the numbers change far too often to be read out. */
function announce(status) {
  if (!before) return;
  const news = [];
  const old = new Map(before.sessions.map((session) => [keyOf(session), session]));
  for (const session of status.sessions) {
    const was = old.get(keyOf(session));
    if (!was) news.push(`Session ${session.session} has begun on shard ${session.shard}.`);
    else if (was.state !== session.state) news.push(`Session ${session.session} is ${STATES[session.state] || session.state}.`);
    if (was && session.files.failed > was.files.failed) news.push(`${files(session.files.failed)} failed in ${session.session}.`);
    old.delete(keyOf(session));
  }
  const gone = new Set(status.shards.filter((shard) => !shard.reachable).map((shard) => shard.shard));
  for (const session of old.values()) if (!gone.has(session.shard)) news.push(`Session ${session.session} has ended; its result is below.`);
  for (const shard of before.shards) if (shard.reachable === gone.has(shard.shard)) {
    news.push(`Shard ${shard.shard} is ${gone.has(shard.shard) ? "not reachable" : "back"}.`);
  }
  if (news.length) say(at("news"), news.join(" "));
}

function tick() {
  const now = Date.now();
  for (const card of at("sessions").children) { plot(card, card.key, now); age(card); }
}

// ---- the line to the router

let source = null, heard = 0, retry = 0;

function lineIs(state, text) {
  at("line").dataset.state = state;
  say(at("line"), text);
  document.body.classList.toggle("stale", state === "lost" && before !== null);
}

/** The state before with what has changed since. */
function changed(news) {
  const sessions = new Map(before.sessions.map((session) => [keyOf(session), session]));
  for (const session of news.gone) sessions.delete(keyOf(session));
  for (const session of news.sessions) sessions.set(keyOf(session), session);
  const shards = new Map(before.shards.map((shard) => [shard.shard, shard]));
  for (const shard of news.shards) shards.set(shard.shard, shard);
  return { ...before, sessions: [...sessions.values()], shards: [...shards.values()] };
}

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  heard = Date.now();
  source = new EventSource("v1/watch/events?changes=true");
  source.onmessage = (event) => {
    heard = Date.now();
    lineIs("live", "live");
    render(JSON.parse(event.data));
  };
  source.addEventListener("changes", (event) => {
    heard = Date.now();
    lineIs("live", "live");
    render(changed(JSON.parse(event.data)));
  });
  source.onerror = () => {
    lineIs("lost", before ? `no connection since ${new Date(heard).toLocaleTimeString()}` : "no connection");
    // After an answer that is no event stream (a proxy's error page) browsers give up for good.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(connect, 2000);
  };
}

setInterval(() => {
  tick();
  if (source && source.readyState === EventSource.OPEN && Date.now() - heard > SILENCE) connect();
}, 1000);

document.addEventListener("visibilitychange", () => {
  // A browser has six connections per site; hidden tabs give theirs back.
  if (document.hidden) { clearTimeout(retry); if (source) source.close(); source = null; } else if (!source) connect();
});

// ---- start and stop

async function call(path, fields) {
  const how = fields ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) } : {};
  try {
    const response = await fetch(path, how);
    const body = await response.json();
    return { ok: response.ok, status: response.status, body, text: body.detail || response.statusText };
  } catch (error) {
    return { ok: false, status: 0, body: {}, text: "The router did not answer. Check whether the session has changed before you try again." };
  }
}

function answered(text, good) {
  at("start-answer").className = good ? "good" : "bad";
  say(at("start-answer"), text);
}

at("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, fields = {}, button = form.querySelector("button");
  const name = form.elements.session.value.trim();
  const extensions = form.elements.extensions.value.split(/[\s,;]+/).filter(Boolean);
  if (name) fields.session = name;
  if (extensions.length) fields.extensions = extensions;
  button.disabled = true;
  answered("Starting", true);
  const { ok, body, text } = await call("v1/watch/start", fields);
  button.disabled = false;
  if (ok) form.reset();
  answered(ok ? `${body.session} runs on shard ${body.shard}. Its folder on the share: ${body.folder}` : text, ok);
});

function askStop(name) {
  say(at("stop-name"), name);
  say(at("stop-answer"), "");
  sure = false;
  say(at("stop").querySelector("[value=now]"), "Stop at once");
  at("stop").showModal();
}

let sure = false; // the second press on "Stop at once"

at("stop").addEventListener("submit", async (event) => {
  const way = event.submitter.value;
  if (way === "keep") return; // the dialog closes by itself
  if (way === "now" && !sure) {
    event.preventDefault();
    sure = true;
    say(event.submitter, "Yes, stop at once and leave the rest");
    say(at("stop-answer"), "What is not uploaded yet will stay on the share, and nobody sends it until the session is started again.");
    return;
  }
  event.preventDefault();
  const { ok, body, text } = await call("v1/watch/stop", { session: at("stop-name").textContent, drain: way === "drain" });
  if (ok) at("stop").close();
  if (ok) say(at("news"), `${body.session} is ${STATES[body.state] || body.state}.`);
  say(at("stop-answer"), ok ? "" : text);
});

// ---- every failed file, in pages

let listed = null; // what the dialog shows: { session, over, after: [cursor of each page up to this one] }

async function showFailed(session, over) {
  listed = { session: session.session, over, kind: "failed", pages: [""] };
  say(at("failed-name"), session.session);
  show(at("retry-all"), !over);
  say(at("failed-answer"), "");
  rows(at("failed-rows"), "failed-row", [], (file) => file.path, failedRow);
  at("failed-dialog").showModal();
  await turn();
}

async function turn() {
  const mine = listed, after = mine.pages[mine.pages.length - 1];
  const query = new URLSearchParams({ session: mine.session, limit: PAGE, state: mine.kind });
  if (after) query.set("after", after);
  const { ok, body, text } = await call(`v1/watch/files?${query}`);
  if (mine !== listed) return;
  at("failed-answer").className = "bad";
  say(at("failed-answer"), ok ? "" : text);
  if (!ok) return;
  mine.next = body.next;
  if (mine.kind === "failed" && !body.files.length && mine.pages.length === 1) { mine.kind = "kept"; mine.only = true; await turn(); return; }
  rows(at("failed-rows"), "failed-row", body.files, (file) => file.path, failedRow);
  const first = (mine.pages.length - 1) * PAGE;
  const words = mine.kind === "failed" ? "failed" : "kept on the share";
  say(at("failed-count"), body.files.length ? `${words}: ${number(first + 1)} to ${number(first + body.files.length)}` : "none now");
  at("failed-back").disabled = mine.pages.length === 1 && (mine.kind === "failed" || Boolean(mine.only));
  at("failed-next").disabled = !mine.next && mine.kind === "kept";
}

function failedRow(node, file) {
  say(is(node, "path"), visible(file.path));
  say(is(node, "error"), `${file.reason || ""}${outlook({ ...file, ended: listed.over })}`);
  show(is(node, "retry"), file.state === "failed" && !listed.over);
  is(node, "retry").setAttribute("aria-label", `Try ${visible(file.path)} now`);
  is(node, "retry").onclick = () => tryNow({ session: listed.session, path: file.path });
}

async function tryNow(fields) {
  const { ok, body, text } = await call("v1/watch/retry", fields);
  if (ok) await turn();
  at("failed-answer").className = ok ? "good" : "bad";
  say(at("failed-answer"), ok ? `${files(body.files)} will be tried now.` : text);
}

at("retry-all").addEventListener("click", () => tryNow({ session: listed.session }));
at("failed-close").addEventListener("click", () => at("failed-dialog").close());
at("failed-dialog").addEventListener("close", () => { listed = null; });
at("failed-next").addEventListener("click", () => {
  if (listed.next) listed.pages.push(listed.next); else { listed.kind = "kept"; listed.pages = [""]; }
  turn();
});
at("failed-back").addEventListener("click", () => {
  if (listed.pages.length > 1) listed.pages.pop(); else { listed.kind = "failed"; listed.pages = [""]; }
  turn();
});

// ---- sessions that have ended

async function showEnded(after) {
  const { ok, body } = await call(`v1/watch/results?limit=10${after ? `&after=${encodeURIComponent(after)}` : ""}`);
  if (!ok) return;
  const list = after ? [...(at("ended").list || []), ...body.results] : body.results;
  at("ended").list = list;
  rows(at("ended"), "ended-row", list, (result) => `${result.session}@${result.began}`, endedRow);
  show(at("ended-section"), list.length > 0);
  show(at("ended-more"), Boolean(body.next));
  at("ended-more").onclick = () => showEnded(body.next);
}

function endedRow(node, result) {
  const count = result.files;
  say(is(node, "name"), result.session);
  say(is(node, "about"), `${moment(result.began)} to ${moment(result.ended)} · ${!result.drained ? "stopped at once" : count.left_behind ? "finished all that could be sent" : "finished what was there"}`);
  const parts = [`${files(count.sent)} sent, ${bytes(result.bytes)}`];
  if (count.replaced) parts.push(`${number(count.replaced)} took the place of other content`);
  parts.push(count.left_behind ? `${files(count.left_behind)} left behind${count.failed ? `, of these ${number(count.failed)} failed` : ""}` : "nothing left behind");
  say(is(node, "counts"), parts.join(" · "));
  node.classList.toggle("bad", count.left_behind > 0);
  show(is(node, "receipts"), Boolean(result.receipts));
  say(is(node, "receipts"), `receipts: ${result.receipts}`);
  show(is(node, "left"), result.left_behind.length > 0);
  say(is(node, "left-title"), count.left_behind > result.left_behind.length ? `Left behind: the first ${number(result.left_behind.length)}` : "Left behind");
  rows(is(node, "left-rows"), "left-row", result.left_behind, (file) => file.path, (row, file) => {
    say(is(row, "path"), visible(file.path));
    say(is(row, "error"), file.reason);
  });
  is(node, "again").setAttribute("aria-label", `Start ${result.session} again`);
  is(node, "again").onclick = () => askAgain(result.session, result.extensions);
}

function askAgain(name, extensions) {
  say(at("again-name"), name);
  at("again").extensions = extensions;
  say(at("again-types"), extensions && extensions.length ? `It takes ${extensions.join(", ")} only, as before.` : "It takes the file types of the service's settings.");
  say(at("again-answer"), "");
  at("again").showModal();
}

at("again").addEventListener("submit", async (event) => {
  if (event.submitter.value === "leave") return;
  event.preventDefault();
  const fields = { session: at("again-name").textContent };
  if (at("again").extensions) fields.extensions = at("again").extensions;
  const { ok, text } = await call("v1/watch/start", fields);
  if (ok) at("again").close();
  say(at("again-answer"), ok ? "" : text);
});

/** What the router has kept of the rates before this page was opened. */
async function showRates() {
  const { ok, body } = await call("v1/watch/rates");
  if (!ok) return;
  const now = Date.now();
  for (const one of body.sessions) {
    const key = keyOf(one), since = history.get(key) || [], first = since.length ? since[0][0] : now;
    const old = one.rates.map((rate, i) => [now - 1000 * (body.age_s + body.step_s * (one.rates.length - 1 - i)), rate]);
    history.set(key, [...old.filter((point) => point[0] < first), ...since]);
  }
  tick();
}

connect();
showRates();
showEnded();
