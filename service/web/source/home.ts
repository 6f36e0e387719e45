// The first view: every checkpoint with what is known of it, charts over training, imported graphs, jobs.
import { chart, type Line } from "./charts";
import { all, get, type Schemas } from "./client";
import { colour, onScheme } from "./colours";
import { called, count, h, note, number, show, swatch, type Child } from "./dom";
import { keepingFocus } from "./jobparts";
import { coefficients, comparable, divisions, scale, scales, type Chosen } from "./newest";
import { to, type View } from "./route";
import { table as dataTable } from "./tables";
import { every, unfinished } from "./watch";

const MOST = { limit: 1000, newest: true };
const PAUSE = 3000; // milliseconds between two looks at jobs that are not finished
const LLC = "Learning coefficient";
const IMPORTED = "graph"; // the family of graphs that were made elsewhere

interface Found {
  checkpoint: Schemas["CheckpointRow"];
  partition: Schemas["PartitionRow"] | undefined;
  usual: boolean; // whether the partition is of the recipe of most checkpoints
  llc: Chosen<Schemas["LlcRow"]> | undefined;
  ledger: Schemas["LedgerRow"] | undefined;
  jobs: Schemas["JobRow"][];
  run: number; // of the model, counted from its oldest
}

interface Stored {
  models: Schemas["ModelRow"][];
  rows: Found[];
  total: number;
  partitions: Schemas["PartitionRow"][];
  graphs: Schemas["GraphRow"][];
  jobs: Schemas["JobRow"][];
}

async function read(): Promise<Stored> {
  const [models, runs, checkpoints, graphs, partitions, llc, ledgers, jobs] = await Promise.all([
    get("/api/v1/models", {}, MOST),
    all("/api/v1/runs"),
    get("/api/v1/checkpoints", {}, MOST),
    get("/api/v1/graphs", {}, MOST),
    get("/api/v1/partitions", {}, MOST),
    get("/api/v1/llc", {}, MOST),
    get("/api/v1/ledgers", {}, MOST),
    get("/api/v1/jobs", {}, MOST),
  ]);
  const [of, at, by] = [divisions(partitions.items), coefficients(llc.items), comparable(ledgers.items, () => "")];
  const number = new Map(runs.map((run) => [run.id, run.number]));
  const about = Map.groupBy(jobs.items, (job) => job.target);
  const trained = checkpoints.items.filter((row) => row.family !== IMPORTED);
  const rows = trained.map((checkpoint) => ({
    checkpoint,
    partition: of.get(checkpoint.id)?.row,
    usual: of.get(checkpoint.id)?.usual ?? false,
    llc: at.get(checkpoint.id),
    ledger: by.get(checkpoint.id)?.row,
    jobs: about.get(checkpoint.id) ?? [],
    run: number.get(checkpoint.run) ?? 1,
  }));
  const families = new Map(models.items.map((model) => [model.name, model.family]));
  return {
    models: models.items,
    rows,
    total: (checkpoints.total ?? checkpoints.items.length) - (checkpoints.items.length - trained.length),
    partitions: partitions.items,
    graphs: graphs.items.filter((graph) => families.get(graph.model) === IMPORTED),
    jobs: jobs.items,
  };
}

/** The view at #/; `model` of the query shows one model alone. */
export async function homeView(place: HTMLElement, _: string, query: URLSearchParams): Promise<View> {
  document.title = "interbasis";
  let stored = await read();
  let leave = (): void => undefined;
  let asked = query;
  const draw = (): void => {
    leave();
    leave = render(place, stored, asked);
  };
  draw();
  const quiet = onScheme(draw);
  const stop = every(PAUSE, async () => {
    if (!stored.jobs.some(unfinished)) return;
    const open = new Set(stored.jobs.filter(unfinished).map((job) => job.id));
    const jobs = (await get("/api/v1/jobs", {}, MOST)).items;
    if (jobs.some((job) => open.has(job.id) && !unfinished(job))) {
      stored = await read(); // with what has become of it
      draw();
    } else refresh(place, (stored = { ...stored, jobs }));
  });
  return {
    update: (now) => {
      asked = now;
      draw();
    },
    leave: () => {
      quiet();
      stop();
      leave();
    },
  };
}

/** Show the jobs as they are now; the rest stays. */
function refresh(place: HTMLElement, stored: Stored): void {
  const about = Map.groupBy(stored.jobs, (job) => job.target);
  const draw = (): void => {
    for (const cell of place.querySelectorAll<HTMLElement>("[data-checkpoint]"))
      show(cell, states(about.get(cell.dataset["checkpoint"] ?? "") ?? []));
    const block = place.querySelector("#jobs");
    if (block) show(block, jobs(stored.jobs));
  };
  keepingFocus(place, draw);
}

function render(place: HTMLElement, stored: Stored, query: URLSearchParams): () => void {
  if (!stored.models.length) {
    show(place, empty(), jobs(stored.jobs));
    return () => undefined;
  }
  const model = query.get("model");
  const chosen = stored.rows.filter((row) => model === null || row.checkpoint.model === model);
  const groups = [...Map.groupBy(chosen, (row) => row.checkpoint.run).values()];
  const graphs = stored.graphs.filter((graph) => model === null || graph.model === model);
  const drawn = charts(groups);
  show(
    place,
    h("div", { class: "title" }, h("h1", {}, model ?? "Models"), h("small", {}, summary(chosen, groups.length, graphs.length))),
    model !== null ? h("p", {}, h("a", { href: to("") }, "All models")) : null,
    stored.rows.length < stored.total ? note(`The newest ${number(stored.rows.length)} of ${number(stored.total)} checkpoints.`) : null,
    drawn.element,
    groups.length ? h("p", { class: "paths" }, groups.slice(0, 20).map(training)) : null,
    groups.length ? table(groups) : null,
    graphs.length ? imported(graphs, stored.partitions) : null,
    h("div", { id: "jobs" }, jobs(stored.jobs)),
  );
  return drawn.leave;
}

const training = (rows: Found[]): Child => (rows[0] ? h("a", { href: to("training", rows[0].checkpoint.run) }, `Training of ${runName(rows[0])}`) : null);

function summary(rows: Found[], runs: number, graphs: number): string {
  const parts = [count(rows.length, "checkpoint"), `of ${count(runs, "run")}`];
  if (graphs) parts.push(`and ${count(graphs, "imported graph")}`);
  return rows.length ? parts.join(" ") : count(graphs, "imported graph");
}

function empty(): Child {
  return [
    h("div", { class: "title" }, h("h1", {}, "Nothing is stored yet")),
    h("p", {}, "Three ways to begin, in a terminal on this machine:"),
    h("h2", {}, "Look at an example"),
    h("pre", {}, "interbasis demo"),
    h("h2", {}, "Take your own checkpoints apart"),
    h("pre", {}, "interbasis analyze run/step*.safetensors"),
    h("h2", {}, "Find the modules of a graph that you have"),
    h("pre", {}, "interbasis import graph.json"),
    note("All three write to the store that this service reads. Then load this page again."),
  ];
}

const runName = ({ checkpoint, run }: Found): string => (run > 1 ? `${checkpoint.model} #${run}` : checkpoint.model);

type Value = (row: Found) => { y: number | null | undefined; lower?: number | null; upper?: number | null };

const drawnLlc = (row: Found): Schemas["LlcRow"] | undefined => (row.llc?.usual ? row.llc.row : undefined);

/** The normalised cost; none where one module leaves nothing between modules. */
const between = (row: Found): number | null | undefined => ((row.partition?.n_modules ?? 0) > 1 ? row.partition?.normalised_cost : null);

const PANELS: [string, string, Value][] = [
  ["Modules", "", (row) => ({ y: row.partition?.n_modules })],
  ["Normalised cost between modules", "log strength", (row) => ({ y: between(row) })],
  [LLC, "95 % interval", (row) => ({ y: drawnLlc(row)?.value, lower: drawnLlc(row)?.lower ?? null, upper: drawnLlc(row)?.upper ?? null })],
  ["Effective parameters", "from the ledger", (row) => ({ y: row.ledger?.effective })],
];

function charts(groups: Found[][]): { element: Child; leave: () => void } {
  const last = Math.max(1, ...groups.flat().map((row) => row.checkpoint.step ?? 0));
  const made = PANELS.flatMap(([title, unit, value]) => {
    const lines = groups.map((rows, i) => line(rows, i, value)).filter((one) => one.points.length > 0);
    const said = title === LLC ? `${unit}, ${scales(groups.flat().flatMap((row) => row.llc ?? []))}` : unit;
    return lines.some((one) => one.points.length > 1) ? [chart(title, said, lines, last, "steps")] : [];
  });
  if (!made.length) return { element: null, leave: () => undefined };
  const names = groups.map((rows, i) => h("li", {}, swatch(colour(i)), rows[0] ? runName(rows[0]) : ""));
  return {
    element: [
      h("h2", {}, "Over training steps"),
      groups.length > 1 ? h("ul", { class: "legend" }, names) : null,
      h("div", { class: "charts" }, made.map((one) => one.figure)),
    ],
    leave: () => made.forEach((one) => one.leave()),
  };
}

function line(rows: Found[], index: number, value: Value): Line {
  const points = rows.flatMap((row) => {
    const { y, lower, upper } = value(row);
    const x = row.checkpoint.step;
    return x === null || y === null || y === undefined ? [] : [{ x, y, lower: lower ?? null, upper: upper ?? null }];
  });
  return { name: rows[0] ? runName(rows[0]) : "", colour: colour(index), points };
}

function table(groups: Found[][]): Child {
  const heads: [string, boolean][] = [
    ["Checkpoint", false],
    ["Step", true],
    ["Modules", true],
    ["Cost", true],
    ["p", true],
    ["Verdict", false],
    ["LLC, 95 % interval", true],
    ["Effective parameters", true],
    ["Jobs", false],
  ];
  const head = heads.map(([text, right]) => h("th", { scope: "col", class: right ? "number" : null }, text));
  const rows = groups.flatMap((group) =>
    group.toSorted((a, b) => (a.checkpoint.step ?? Infinity) - (b.checkpoint.step ?? Infinity)).map(tableRow),
  );
  const several = groups.flat().some((row) => row.partition && !row.usual);
  return [
    h("h2", {}, "Checkpoints"),
    note("Of several divisions of a checkpoint: the newest of the recipe that most checkpoints of its run have."),
    several ? note("*: of another recipe.") : null,
    h(
      "div",
      { class: "scroll", role: "region", "aria-label": "Checkpoints", tabindex: 0 },
      h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
    ),
  ];
}

function tableRow(row: Found): HTMLElement {
  const { checkpoint, partition, llc, ledger } = row;
  const name = called({ ...checkpoint, run_number: row.run });
  const right = (...shown: Child[]): HTMLElement => h("td", { class: "number" }, ...shown);
  return h(
    "tr",
    {},
    h("th", { scope: "row", title: checkpoint.label }, partition ? h("a", { href: to("graph", partition.id) }, name) : name),
    right(checkpoint.step === null ? "–" : number(checkpoint.step)),
    right(number(partition?.n_modules), partition && !row.usual ? "*" : null),
    right(number(between(row))),
    right(number(partition?.p_value, 2)),
    h("td", { title: partition?.reason ?? null }, partition ? (partition.verdict ?? "–") : "not analysed"),
    h("td", { class: "number", title: llc ? scale(llc.row) : null }, llc ? coefficient(llc) : "–"),
    right(ledger ? effective(ledger) : "–"),
    h("td", { "data-checkpoint": checkpoint.id }, states(row.jobs)),
  );
}

function coefficient({ row, usual }: Chosen<Schemas["LlcRow"]>): string {
  const other = usual ? "" : `, ${scale(row)}`;
  const interval = row.lower !== null && row.upper !== null ? ` (${number(row.lower)} to ${number(row.upper)})` : "";
  return `${number(row.value)}${interval}${row.verdict === "reliable" ? "" : `, ${row.verdict}`}${other}`;
}

const effective = (row: Schemas["LedgerRow"]): string =>
  `${row.lower < row.upper ? "≤ " : ""}${number(row.effective)} of ${number(row.nominal)}`;

/** How many jobs are in each state, with a link to the newest of them. */
function states(rows: Schemas["JobRow"][]): Child {
  const counted = [...Map.groupBy(rows, (row) => row.state)];
  if (!counted.length) return "–";
  return counted.map(([state, all], i) => [i ? ", " : "", h("a", { href: to("jobs", all[0]?.id), "data-focus": `${state} ${all[0]?.id}` }, `${all.length} ${state}`)]);
}

function imported(graphs: Schemas["GraphRow"][], partitions: Schemas["PartitionRow"][]): Child {
  const rows = graphs.map((graph) => {
    const of = partitions.filter((partition) => partition.graph === graph.id);
    const first = of[0];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, first ? h("a", { href: to("graph", first.id) }, called(graph)) : called(graph)),
      h("td", { class: "number" }, number(graph.cuts.length)),
      h("td", { class: "number" }, number(graph.n_nodes)),
      h("td", { class: "number" }, number(graph.n_edges)),
      h("td", { class: "number" }, first ? number(first.n_modules) : "–"),
      h("td", {}, first ? (first.verdict ?? "–") : h("code", {}, `interbasis modules ${graph.id}`)),
    );
  });
  const heads = ["Graph", "Layers", "Nodes", "Edges", "Modules", "Verdict"];
  const numbers = ["Layers", "Nodes", "Edges", "Modules"];
  const head = heads.map((text) => h("th", { scope: "col", class: numbers.includes(text) ? "number" : null }, text));
  return [
    h("h2", {}, "Imported graphs"),
    h(
      "div",
      { class: "scroll", role: "region", "aria-label": "Imported graphs", tabindex: 0 },
      h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
    ),
  ];
}

function jobs(rows: Schemas["JobRow"][]): Child {
  const open = rows.filter(unfinished);
  const failed = rows.filter((job) => job.state === "failed").slice(0, 5);
  if (!open.length && !failed.length) return null;
  const cells = [...open, ...failed].map((job) => [
    h("a", { href: to("jobs", job.id), "data-focus": job.id }, job.task),
    job.target_name ?? job.target,
    [job.state, job.fraction !== null && job.state === "running" ? `, ${Math.round(100 * job.fraction)} %` : ""],
    h("span", { class: job.error ? "says error" : "says" }, job.error?.trim().split("\n").at(-1) ?? job.message),
    job.id,
  ]);
  return [h("h2", {}, "Jobs"), dataTable("Jobs", ["Task", "Of", "State", "What it says", "ID"], cells)];
}
