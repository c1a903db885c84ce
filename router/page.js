"use strict";
// Names of sessions and files come from outside: they are only ever set as textContent.

const WINDOW = 5 * 60 * 1000; // ms that a plot shows at most
const STEP = 60 * 1000; // ms by which a plot grows until then
const SILENCE = 30 * 1000; // ms without an event after which the page connects again: a dead connection looks like a quiet one
const SHOWN = 40; // files of one kind in one card
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
  say(is(node, "size"), file.error ? bytes(file.size) : `${bytes(file.size)} · ${Math.min(100, sent)}%`);
  show(is(node, "bar"), !file.error);
  bar(is(node, "bar"), file.uploaded, file.size, `upload of ${file.path}`);
  show(is(node, "error"), Boolean(file.error));
  const tries = file.attempts === 1 ? "tried once" : `tried ${number(file.attempts)} times`;
  const text = file.attempts > 0 ? `${file.error} (${tries}, will be tried again)` : file.error;
  say(is(node, "error"), file.error ? text : "");
}

function fileList(card, kind, list) {
  show(is(card, `${kind}-title`), list.length > 0);
  rows(is(card, kind), "file-row", list.slice(0, SHOWN), (file) => file.path, fileRow);
  const words = kind === "failing" ? "Failed" : "In flight";
  say(is(card, `${kind}-title`), list.length > SHOWN ? `${words}: ${SHOWN} of ${number(list.length)}` : words);
}

// ---- rates

const history = new Map(); // session -> [[time, rate], ...]

function note(key, rate, time) {
  const points = history.get(key) || [];
  points.push([time, rate]);
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
  if (points.length) edge += `L300 ${y(points[points.length - 1][1])}`;
  is(card, "plot").querySelector(".edge").setAttribute("d", edge);
  is(card, "plot").querySelector(".area").setAttribute("d", edge ? `${edge}L300 60L${x(points[0][0])} 60Z` : "");
  is(card, "plot").setAttribute("aria-label", `rate of the last ${width / STEP} min, at most ${bytes(peak)} a second`);
  say(is(card, "since"), `${width / STEP} min ago`);
  say(is(card, "peak"), peak > 0 ? `peak ${bytes(peak)}/s` : "");
}

// ---- sessions

const keyOf = (session) => `${session.session}@${session.shard}`;

function eta(session) {
  const left = session.files.waiting + session.files.uploading;
  if (session.state === "stopped") return "stopped";
  if (left === 0) return session.files.failed > 0 ? "failed files wait for their next try" : "nothing left to do";
  if (session.eta_s === null || session.eta_s === undefined) return "time left not known yet";
  return session.eta_s < 2 ? "almost done" : `about ${roughly(session.eta_s)} left`;
}

function sessionCard(card, session) {
  const { files: count, bytes: size } = session;
  const total = count.waiting + count.uploading + count.completed + count.failed;
  say(is(card, "name"), session.session);
  is(card, "state").dataset.state = session.state;
  say(is(card, "state"), STATES[session.state] || session.state);
  card.started = Date.parse(session.started_at);
  card.shard = session.shard;
  card.key = keyOf(session);
  is(card, "stop").disabled = session.state === "stopped";
  is(card, "stop").setAttribute("aria-label", `Stop ${session.session}`);
  is(card, "stop").onclick = () => askStop(session.session);
  // Without a byte total (empty files only) the count of files tells as much.
  const [done, all] = size.total > 0 ? [size.uploaded, size.total] : [count.completed, total];
  const percent = all > 0 ? Math.floor((100 * Math.min(done, all)) / all) : 0;
  bar(is(card, "bar"), done, all, `progress of ${session.session}`);
  say(is(card, "bytes"), all > 0 ? `${percent}% · ${bytes(size.uploaded)} of ${bytes(size.total)} · ${files(total)}` : "no files yet");
  say(is(card, "eta"), all > 0 ? eta(session) : "");
  for (const kind of ["waiting", "uploading", "completed", "failed"]) say(is(card, kind), number(count[kind]));
  card.querySelector("[data-alarm]").classList.toggle("on", count.failed > 0);
  say(is(card, "rate"), `${bytes(session.rate_bytes_per_s)}/s`);
  const failing = session.current.filter((file) => file.error);
  show(is(card, "last"), Boolean(session.last_error) && failing.length === 0);
  say(is(card, "last"), session.last_error ? `Last error: ${session.last_error.error}` : "");
  fileList(card, "failing", failing);
  fileList(card, "flying", session.current.filter((file) => !file.error));
  age(card);
}

function age(card) {
  const since = Number.isNaN(card.started) ? "" : ` · for ${duration((Date.now() - card.started) / 1000)}`;
  say(is(card, "about"), `shard ${card.shard}${since}`);
}

function shardRow(node, shard) {
  node.classList.toggle("away", !shard.reachable);
  say(is(node, "name"), `shard ${shard.shard}`);
  const state = shard.waits_for ? "waits" : shard.sessions.length ? "busy" : "free";
  say(is(node, "state"), shard.reachable ? state : "not reachable");
  const why = (shard.error || "").replace(`shard ${shard.shard} is not reachable: `, "");
  const about = [shard.sessions.join(", "), shard.waits_for].filter(Boolean).join(": ");
  say(is(node, "about"), shard.reachable ? about : why);
}

// ---- the whole page

let before = null;

function render(status) {
  const now = Date.now(), sessions = status.sessions, sum = { waiting: 0, uploading: 0, completed: 0, failed: 0, rate: 0 };
  for (const session of sessions) {
    note(keyOf(session), session.rate_bytes_per_s, now);
    sum.rate += session.rate_bytes_per_s;
    for (const kind of ["waiting", "uploading", "completed", "failed"]) sum[kind] += session.files[kind];
  }
  for (const key of history.keys()) if (!sessions.some((session) => keyOf(session) === key)) history.delete(key);
  for (const kind of ["waiting", "uploading", "completed", "failed"]) say(at(kind), number(sum[kind]));
  say(at("rate"), `${bytes(sum.rate)}/s`);
  document.querySelector("#totals [data-alarm]").classList.toggle("on", sum.failed > 0);
  document.title = sessions.length ? `${bytes(sum.rate)}/s${sum.failed ? ` · ${files(sum.failed)} failed` : ""} · nfs-watch` : "nfs-watch";
  rows(at("sessions"), "session-card", sessions, keyOf, sessionCard);
  rows(at("shards"), "shard-row", status.shards, (shard) => shard.shard, shardRow);
  show(at("idle"), sessions.length === 0);
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
  for (const session of old.values()) if (!gone.has(session.shard)) news.push(`Session ${session.session} has ended.`);
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

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  heard = Date.now();
  source = new EventSource("v1/watch/events");
  source.onmessage = (event) => {
    heard = Date.now();
    lineIs("live", "live");
    render(JSON.parse(event.data));
  };
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
  try {
    const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) });
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
  at("stop").showModal();
}

at("stop").addEventListener("submit", async (event) => {
  const way = event.submitter.value;
  if (way === "keep") return; // the dialog closes by itself
  event.preventDefault();
  const { ok, text } = await call("v1/watch/stop", { session: at("stop-name").textContent, drain: way === "drain" });
  if (ok) at("stop").close();
  say(at("stop-answer"), ok ? "" : text);
});

connect();
