// Drives a session with openapi-fetch and the types that openapi-typescript makes: `drive.mjs URL SHARE SESSION`;
// prints what it saw.
import { renameSync, writeFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./nfs-watch.d.ts";

const [url, share, session] = process.argv.slice(2) as [string, string, string];
const api = createClient<paths>({ baseUrl: url });

function there<T>(value: T | undefined | null): T {
  if (value === undefined || value === null) throw new Error("no answer");
  return value;
}

const pause = () => new Promise((done) => setTimeout(done, 100));

const started = there((await api.POST("/v1/watch/start", { body: { session, extensions: [".bin"] } })).data);
const again: components["schemas"]["Code"] = there((await api.POST("/v1/watch/start", { body: { session } })).error).code;

for (const [file, size] of [["a.bin", 1000], ["b.bin", 70000]] as const) {
  writeFileSync(`${share}/${started.folder}/.${file}`, "x".repeat(size));
  renameSync(`${share}/${started.folder}/.${file}`, `${share}/${started.folder}/${file}`);
}

async function look(wait: number): Promise<components["schemas"]["SessionStatus"]> {
  const { data } = await api.GET("/v1/watch/status", { params: { query: { session, wait } } });
  return there(there(data).sessions[0]);
}

async function receipts(): Promise<components["schemas"]["Receipt"][]> {
  const { data } = await api.GET("/v1/watch/files", { params: { query: { session, state: "done" } } });
  return there(data).files.flatMap((one) => one.receipt ?? []);
}

while ((await look(0)).files.completed < 2) await pause();
while ((await receipts()).length < 2) await pause();
const receipted = await receipts();
const stopped = there((await api.POST("/v1/watch/stop", { body: { session } })).data);
let ended = await look(30);
while (ended.state !== "ended") ended = await look(30);
const listed = there((await api.GET("/v1/watch/results", { params: { query: { limit: 100 } } })).data);
const result = there(listed.results.find((one) => one.session === session));
const missing = there((await api.GET("/v1/watch/files", { params: { query: { session, path: "nothing" } } })).error);
console.log(
  JSON.stringify({
    alive: there((await api.GET("/livez", { parseAs: "text" })).data),
    again,
    missing: missing.code,
    stop: stopped.state,
    "same start": started.started_at === ended.started_at && ended.started_at === result.began,
    receipts: receipted.map((one) => [one.blob, one.size] as const).sort(),
    sent: result.files.sent,
    bytes: result.bytes,
    drained: there(ended.result).drained,
    "all receipts": result.receipts !== null,
  }),
);
