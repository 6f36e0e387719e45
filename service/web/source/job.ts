// One job: how far it is, what was asked, what came of it or why not.
import { change, get, type Schemas } from "./client";
import { failure, h, note, number, show, type Child } from "./dom";
import { action, keepingFocus, moment, progress, resultAddress, type Act } from "./jobparts";
import { to, type View } from "./route";
import { follow, unfinished } from "./watch";

type Job = Schemas["JobRow"];

/** The view at #/jobs/ID. */
export async function jobView(place: HTMLElement, ref: string): Promise<View> {
  let job = await get("/api/v1/jobs/{ref}", { ref });
  const [holder, said] = [h("div"), h("div")];
  let stop = (): void => undefined;
  const draw = (): void => {
    document.title = `${job.task} ${job.state} · interbasis`;
    keepingFocus(holder, () => show(holder, page(job, act)));
  };
  const fail = (error: unknown): void => show(said, failure(error));
  const watch = (): void => {
    stop();
    if (!unfinished(job)) return;
    const changed = (now: Job): void => {
      job = now;
      show(said);
      draw();
    };
    stop = follow(job.id, changed, fail);
  };
  const act: Act = (_, what) => {
    const done = (now: Job): void => {
      job = now;
      show(said);
      draw();
      watch();
    };
    void change(job.id, what).then(done, fail);
  };
  show(place, said, holder);
  draw();
  watch();
  return { update: () => undefined, leave: () => stop() };
}

function page(job: Job, act: Act): Child {
  const choices = Object.entries(job.choices);
  return [
    h("p", { class: "small" }, h("a", { href: to("jobs"), "data-focus": "all" }, "All jobs")),
    h("div", { class: "title" }, h("h1", {}, `${job.task} of ${job.target_name ?? job.target}`), h("small", {}, job.id)),
    h("p", { role: "status" }, sentence(job), progress(job)),
    h("p", {}, action(job, act)),
    job.error ? [h("h2", {}, "Why it failed"), h("pre", { class: "error", tabindex: 0 }, job.error)] : null,
    job.results.length ? [h("h2", {}, "Results"), h("ul", { class: "list" }, job.results.map((one) => result(job, one)))] : null,
    h("h2", {}, "What was asked"),
    choices.length
      ? h("dl", {}, choices.map(([name, value]) => [h("dt", {}, name), h("dd", {}, typeof value === "string" ? value : JSON.stringify(value))]))
      : note("No choices: all defaults."),
    h("h2", {}, "Its run"),
    h("dl", {}, facts(job).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
  ];
}

function sentence(job: Job): string {
  const left = job.remaining === null || job.state !== "running" ? "" : `, about ${duration(job.remaining)} left`;
  const step = job.step && job.state === "running" ? ` (${job.step})` : "";
  const cancelling = job.cancelling && unfinished(job) ? ", being cancelled" : "";
  return `${job.state}${step}${cancelling}${job.message && job.state === "running" ? `: ${job.message}` : ""}${left}`;
}

function facts(job: Job): [string, Child][] {
  const ran = job.started && job.finished ? (Date.parse(job.finished) - Date.parse(job.started)) / 1000 : null;
  const all: [string, Child][] = [
    ["Target", job.target],
    ["Queue", `${job.queue}, priority ${job.priority}`],
    ["Time limit", job.timeout === null ? "none" : duration(job.timeout)],
    ["Worker", job.worker ?? "none yet"],
    ["Run, attempt", `${job.run}, ${job.attempts}${job.interruptions ? `; went on elsewhere ${job.interruptions} times` : ""}`],
    ["Asked for", moment(job.created)],
    ["Started", moment(job.started)],
    ["Ended", job.finished === null ? "–" : `${moment(job.finished)}${ran === null ? "" : `, after ${duration(ran)}`}`],
  ];
  return all;
}

/** Seconds as people say them. */
export function duration(seconds: number): string {
  if (seconds < 100) return `${number(seconds, 2)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${number(seconds / 3600, 2)} h`;
}

function result(job: Job, made: Record<string, unknown>): Child {
  const text = `${String(made["kind"])} ${String(made["id"])}`;
  const address = resultAddress(job, made);
  return h("li", {}, address ? h("a", { class: "row", href: address, "data-focus": text }, text) : h("span", { class: "row" }, text));
}
