// The view of jobs: a form that asks for one, those that wait or run, and those that have ended; or one job alone.
import { change, get, type Schemas } from "./client";
import { count, failure, h, note, show, type Child } from "./dom";
import { jobView } from "./job";
import { action, keepingFocus, moment, progress, resultAddress, type Act } from "./jobparts";
import { here, to, type View } from "./route";
import { jobForm } from "./schedule";
import { table } from "./tables";
import { every, unfinished } from "./watch";

type Job = Schemas["JobRow"];
const PAUSE = 2000; // milliseconds between two looks while something waits or runs
const SELDOM = 5; // looks that are left out while nothing does
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"] as const;

/** The view at #/jobs, and at #/jobs/ID. */
export async function jobsView(place: HTMLElement, ref: string, query: URLSearchParams): Promise<View> {
  return ref ? jobView(place, ref) : listView(place, query);
}

interface Found {
  open: Job[];
  ended: Job[];
  next: string | null; // where older ones go on
  total: number;
}

type Only = (typeof STATES)[number] | null;

async function read(only: Only): Promise<Found> {
  const list = (state: Only, limit: number): Promise<{ items: Job[]; next_cursor?: string | null; total?: number | null }> =>
    get("/api/v1/jobs", {}, { ...(state && { state }), limit, newest: true });
  const [running, queued, newest] = await Promise.all([list("running", 1000), list("queued", 1000), list(only, 100)]);
  const turn = queued.items.toSorted((a, b) => a.priority - b.priority || a.created.localeCompare(b.created));
  const open = only === null ? [...running.items, ...turn] : only === "running" ? running.items : only === "queued" ? turn : [];
  const ended = newest.items.filter((job) => !unfinished(job));
  return { open, ended, next: newest.next_cursor ?? null, total: newest.total ?? newest.items.length };
}

const wanted = (query: URLSearchParams): Only => STATES.find((state) => state === query.get("state")) ?? null;

async function listView(place: HTMLElement, query: URLSearchParams): Promise<View> {
  document.title = "Jobs · interbasis";
  let only = wanted(query);
  let found = await read(only);
  let older: Job[] = [];
  let turn = 0; // grows with every change of the address
  const [holder, said, status] = [h("div"), h("div"), h("p", { class: "small", role: "status" })];
  const draw = (): void => {
    const text = summary(found);
    if (status.textContent !== text) show(status, text);
    keepingFocus(holder, () => show(holder, lists(found, older, act, more)));
  };
  const look = async (): Promise<void> => {
    const mine = turn;
    const now = await read(only);
    if (mine !== turn) return;
    const next = older.length ? found.next : now.next;
    const ended = new Set(now.ended.map((job) => job.id));
    older = older.filter((job) => !ended.has(job.id));
    found = { ...now, next };
    draw();
  };
  const tell = (work: Promise<unknown>): void => void work.then(() => show(said), (error: unknown) => show(said, failure(error)));
  const act = (job: Job, what: "cancel" | "retry"): void => tell(change(job.id, what).then(look));
  const more = (): void => {
    const mine = turn;
    const asked = get("/api/v1/jobs", {}, { ...(only && { state: only }), limit: 100, newest: true, cursor: found.next ?? "" });
    const add = (page: Awaited<typeof asked>): void => {
      if (mine !== turn) return;
      older = [...older, ...page.items.filter((job) => !unfinished(job))];
      found = { ...found, next: page.next_cursor ?? null };
      draw();
    };
    tell(asked.then(add));
  };
  const form = await jobForm(query);
  const filter = h("div", {}, states(only));
  show(
    place,
    h("div", { class: "title" }, h("h1", {}, "Jobs")),
    form.element,
    h("div", { class: "bars" }, filter),
    status,
    said,
    holder,
  );
  draw();
  let looks = 0;
  const stop = every(PAUSE, async () => {
    if (found.open.length || looks++ % SELDOM === 0) await look();
  });
  return {
    update: (now) => {
      only = wanted(now);
      turn++;
      older = [];
      form.fill(now);
      show(filter, states(only));
      tell(look());
    },
    leave: stop,
  };
}

function states(only: Only): Child {
  const option = (value: string, text: string): Child => h("option", { value, selected: value === (only ?? "") }, text);
  const choose = (event: Event): void => {
    location.hash = to("jobs", "", { state: (event.target as HTMLSelectElement).value || null });
  };
  const all = [option("", "all"), ...STATES.map((state) => option(state, state))];
  return [h("label", { for: "state" }, "State"), h("select", { id: "state", change: choose }, all)];
}

function summary(found: Found): string {
  const counted = Map.groupBy(found.open, (job) => job.state);
  const open = [...counted].map(([state, jobs]) => `${jobs.length} ${state}`).join(", ");
  return `${open || "Nothing waits or runs"}. ${count(found.total, "job")} in all${here().query.has("state") ? " of this state" : ""}.`;
}

function lists(found: Found, older: Job[], act: Act, more: () => void): Child {
  const ended = [...found.ended, ...older];
  if (!found.open.length && !ended.length) return note("There are no jobs here. The form above asks for one.");
  return [
    found.open.length ? [h("h2", {}, "Waiting and running"), rows("Waiting and running", found.open, act)] : null,
    ended.length ? [h("h2", {}, "Ended"), rows("Ended", ended, act)] : null,
    found.next ? h("p", {}, h("button", { type: "button", "data-focus": "more", click: more }, "Show older jobs")) : null,
  ];
}

/** The results of a job, as links to where they are shown. */
const results = (job: Job): Child =>
  job.results.map((made, i) => {
    const [text, address] = [`${String(made["kind"])} ${String(made["id"])}`, resultAddress(job, made)];
    return [i ? ", " : "", address ? h("a", { href: address, "data-focus": `${job.id} ${text}` }, text) : text];
  });

function rows(title: string, jobs: Job[], act: Act): HTMLElement {
  const cells = jobs.map((job) => [
    h("a", { href: to("jobs", job.id), "data-focus": `open ${job.id}` }, job.task),
    job.target_name ?? job.target,
    [job.state, job.cancelling && unfinished(job) ? ", being cancelled" : "", progress(job)],
    h("span", { class: job.error ? "says error" : "says" }, job.results.length ? results(job) : (job.error?.trim().split("\n").at(-1) ?? job.message)),
    job.queue,
    moment(job.created),
    action(job, act),
    job.id,
  ]);
  return table(title, ["Task", "Of", "State", "What it says", "Queue", "Asked for", "Change", "ID"], cells);
}
