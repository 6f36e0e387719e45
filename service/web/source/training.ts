// The view of a training: modules over checkpoints, with learning coefficient, ledger and losses on the same steps.
import { alluvial, columns, points, stacked, type Columns, type Stack } from "./alluvial";
import { get, type Schemas } from "./client";
import { colour, NONE, onScheme } from "./colours";
import { count, h, note, number, show, swatch, type Child } from "./dom";
import { scrolled } from "./examples";
import { coefficients as wholes, comparable, divisions, scale, scales, type Chosen } from "./newest";
import { to, type View } from "./route";

const MOST = { limit: 1000, newest: true };
const METRICS = 6; // that checkpoints tell of themselves
const CAUSES = ["activations", "jacobians", "gating", "synchronised", "tied", "unexplained"] as const;
const NAMED: Record<(typeof CAUSES)[number], string> = {
  activations: "free by activations",
  jacobians: "free by Jacobians",
  gating: "free by gating",
  synchronised: "free by synchronised units",
  tied: "tied",
  unexplained: "free, unexplained",
};

interface Course {
  name: string;
  run: string | null;
  checkpoints: Schemas["CheckpointRow"][]; // by step
  trackings: Schemas["TrackingRow"][];
  tracking: Schemas["TrackingDetail"] | null;
  flows: Schemas["FlowRow"][];
  llc: Map<string, Chosen<Schemas["LlcRow"]>>;
  ledgers: Map<string, Chosen<Schemas["LedgerRow"]>>;
  partitions: Map<string, Chosen<Schemas["PartitionRow"]>>;
}

async function read(ref: string, wanted: string | null): Promise<Course> {
  const chosen = /^t-[0-9a-f]+$/.test(ref) ? await get("/api/v1/trackings/{ref}", { ref }) : null;
  const of: { run?: string; model?: string } = chosen ? { run: chosen.run } : /^r-[0-9a-f]+$/.test(ref) ? { run: ref } : { model: ref };
  const trackings = (await get("/api/v1/trackings", {}, { ...of, ...MOST })).items;
  const row = chosen ?? trackings.find((each) => each.id === wanted) ?? trackings[0];
  const all = (await get("/api/v1/checkpoints", {}, { ...of, ...MOST })).items;
  const run = row?.run ?? of.run ?? all[0]?.run ?? null;
  const own = run === null ? {} : { run };
  const [tracking, flows, llc, ledgers, partitions] = await Promise.all([
    row ? get("/api/v1/trackings/{ref}", { ref: row.id }) : null,
    row ? get("/api/v1/trackings/{ref}/flows", { ref: row.id }) : { flows: [] },
    get("/api/v1/llc", {}, { ...own, ...MOST }),
    get("/api/v1/ledgers", {}, { ...own, ...MOST }),
    get("/api/v1/partitions", {}, { ...own, ...MOST }),
  ]);
  const checkpoints = all.filter((each) => each.run === run).sort((a, b) => (a.step ?? Infinity) - (b.step ?? Infinity));
  const model = checkpoints[0]?.model ?? row?.model ?? ref;
  const again = row?.run_number ?? partitions.items[0]?.run_number ?? 1;
  return {
    name: again > 1 ? `${model}#${again}` : model,
    run,
    checkpoints,
    trackings: trackings.filter((each) => each.run === run),
    tracking,
    flows: flows.flows,
    llc: wholes(llc.items),
    ledgers: comparable(ledgers.items, () => ""),
    partitions: divisions(partitions.items),
  };
}

/** The view at #/training/RUN, of a model's newest run, or of a tracking; `tracking` of the query chooses one, `scaled` the axis. */
export async function trainingView(place: HTMLElement, ref: string, query: URLSearchParams): Promise<View> {
  let asked = query.get("tracking");
  let course = await read(ref, asked);
  document.title = `Training of ${course.name} · interbasis`;
  let scaled = query.has("scaled");
  const pictures = h("div", { class: "course" });
  let width = 0;
  const draw = (): void => {
    width = Math.floor(pictures.clientWidth);
    show(pictures, width ? drawn(course, width, scaled) : null);
  };
  const fill = (): void => {
    show(place, head(course, ref, scaled), pictures, course.checkpoints.length ? table(course) : null);
    draw();
  };
  fill();
  const watch = new ResizeObserver(() => {
    if (Math.floor(pictures.clientWidth) !== width) draw();
  });
  watch.observe(pictures);
  const quiet = onScheme(draw);
  return {
    update: (now) => {
      scaled = now.has("scaled");
      const other = now.get("tracking");
      if (other === asked) return fill();
      asked = other;
      void read(ref, other).then((found) => {
        course = found;
        fill();
      });
    },
    leave: () => {
      watch.disconnect();
      quiet();
    },
  };
}

function head(course: Course, ref: string, scaled: boolean): Child {
  const { tracking, trackings, checkpoints } = course;
  const address = (change: Record<string, string | null>): string => to("training", ref, { tracking: tracking?.id ?? null, scaled: scaled ? "1" : null, ...change });
  const axis = h(
    "select",
    { id: "axis", change: (event: Event) => (location.hash = address({ scaled: (event.target as HTMLSelectElement).value || null })) },
    h("option", { value: "", selected: !scaled }, "at equal distances"),
    h("option", { value: "1", selected: scaled }, "to scale"),
  );
  const others = h(
    "select",
    { id: "tracking", change: (event: Event) => (location.hash = address({ tracking: (event.target as HTMLSelectElement).value })) },
    trackings.map((row) => h("option", { value: row.id, selected: row.id === tracking?.id }, `${row.id}, ${count(row.n_checkpoints, "checkpoint")}, ${row.created.slice(0, 10)}`)),
  );
  return [
    h("div", { class: "title" }, h("h1", {}, course.name), h("small", {}, `training, ${count(checkpoints.length, "checkpoint")}`)),
    h("p", { class: "paths" }, h("a", { href: to("", "", { model: checkpoints[0]?.model ?? course.name }) }, "All checkpoints in a table")),
    checkpoints.length
      ? h(
          "div",
          { class: "bars" },
          h("div", {}, h("label", { for: "axis" }, "Steps"), axis),
          trackings.length > 1 ? h("div", {}, h("label", { for: "tracking" }, "Tracking"), others) : null,
        )
      : note("No checkpoint of this training is stored. ", h("code", {}, "interbasis register run/step*.safetensors"), " stores some."),
  ];
}

function drawn(course: Course, width: number, scaled: boolean): Child {
  const { checkpoints, tracking } = course;
  if (!checkpoints.length) return null;
  const names = checkpoints.map((row) => (row.step === null ? (row.label ?? row.id) : number(row.step)));
  const where = columns(checkpoints.map((row) => row.step), names, width, scaled);
  const quiet = (what: string, command: string): Child => note(`${what} `, h("code", {}, command));
  const coefficients = [...course.llc.values()].filter(({ row, usual }) => usual && row.value !== null);
  return [
    h("h2", {}, "Modules"),
    tracking ? tracks(course, tracking, where) : quiet("Modules are not followed over training yet.", `interbasis track ${course.name}`),
    h("h2", {}, coefficients.length ? `Learning coefficient, ${scales(coefficients)}` : "Learning coefficient"),
    coefficients.length ? coefficient(course, where) : quiet("None is stored.", `interbasis llc ${course.name}@last --epsilon 0.01`),
    h("h2", {}, "Parameters: effective and free"),
    course.ledgers.size ? ledger(course, where) : quiet("No ledger is stored.", `interbasis ledger ${course.name}@last`),
    h("h2", {}, "Loss and other numbers"),
    metrics(course, where),
    h("p", { class: "small" }, "Below the pictures: training steps."),
  ];
}

function tracks(course: Course, tracking: Schemas["TrackingDetail"], where: Columns): Child {
  const at = new Map(course.checkpoints.map((row, i) => [row.id, i]));
  const of = tracking.steps.map((step) => at.get(step.checkpoint) ?? 0);
  const shown = Array.from({ length: Math.min(30, tracking.n_tracks) }, (_, track) => h("li", {}, swatch(colour(track)), `module ${track}`));
  const churn = tracking.churn === null ? "" : ` On average ${number(100 * tracking.churn, 2)} % of the nodes change their module from one checkpoint to the next.`;
  return [
    h("ul", { class: "legend" }, shown),
    alluvial(tracking, course.flows, of, where),
    h("p", { class: "small" }, `${count(tracking.n_tracks, "module")} over ${count(tracking.steps.length, "checkpoint")}. A ribbon is as wide as its number of nodes.${churn}`),
  ];
}

function coefficient(course: Course, where: Columns): Child {
  const marks = course.checkpoints.flatMap((checkpoint, at) => {
    const { row, usual } = course.llc.get(checkpoint.id) ?? {};
    return row && usual && row.value !== null ? [{ at, y: row.value, lower: row.lower, upper: row.upper, sure: row.verdict === "reliable" }] : [];
  });
  return points("Learning coefficient λ with 95 % interval; hollow where it is not reliable", marks, where, 0);
}

function ledger(course: Course, where: Columns): Child {
  const rows = course.checkpoints.map((checkpoint) => course.ledgers.get(checkpoint.id)?.row);
  const stacks: Stack[] = [
    { name: "effective", colour: colour(0), values: rows.map((row) => row?.effective ?? null) },
    ...CAUSES.map((cause, i) => ({ name: NAMED[cause], colour: cause === "unexplained" ? NONE : colour(i + 1), values: rows.map((row) => row?.[cause] ?? null) })),
  ];
  const bounded = rows.some((row) => row && row.lower < row.upper);
  return [stacked("Number of parameters", stacks, where), bounded ? h("p", { class: "small" }, "Where the rank of the Hessian is only bounded, the effective number is an upper bound.") : null];
}

/** Numbers that checkpoints tell of themselves, in `metrics` of their JSON. */
function metrics(course: Course, where: Columns): Child {
  const told = course.checkpoints.map((row) => (row.about?.["metrics"] ?? {}) as Record<string, unknown>);
  const names = [...new Set(told.flatMap((each) => Object.keys(each)))].slice(0, METRICS);
  const made = names.flatMap((name, i) => {
    const marks = told.flatMap((each, at) => (typeof each[name] === "number" && Number.isFinite(each[name]) ? [{ at, y: each[name] }] : []));
    return marks.length ? [points(name, marks, where, i + 1)] : [];
  });
  return made.length ? made : note("None is stored. Numbers in the JSON of checkpoints, as ", h("code", {}, '"metrics": {"loss": 0.12}'), ", are drawn here.");
}

function table(course: Course): Child {
  const { tracking } = course;
  const steps = new Map((tracking?.steps ?? []).map((step, t) => [step.checkpoint, { step, t }]));
  const rows = course.checkpoints.map((checkpoint) => {
    const partition = course.partitions.get(checkpoint.id)?.row;
    const found = steps.get(checkpoint.id);
    const events = (tracking?.events ?? []).filter((event) => found && event["at"] === found.t).map((event) => `${event["kind"]} of ${(event["earlier"] as number[]).join(", ") || "none"} to ${(event["later"] as number[]).join(", ") || "none"}`);
    const [llc, counted] = [course.llc.get(checkpoint.id), course.ledgers.get(checkpoint.id)?.row];
    const right = (...shown: Child[]): HTMLElement => h("td", { class: "number" }, ...shown);
    const name = checkpoint.step === null ? checkpoint.label : number(checkpoint.step);
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, partition ? h("a", { href: to("graph", partition.id) }, name) : name),
      h("td", {}, found ? found.step.tracks.map((track, m) => `${track} (${number(found.step.sizes[m])})`).join(", ") : "–"),
      right(found?.step.churn === null || !found ? "–" : `${number(100 * found.step.churn, 2)} %`),
      h("td", {}, events.join("; ") || "–"),
      right(llc ? `${number(llc.row.value)}${llc.usual ? "" : `, ${scale(llc.row)}`}` : "–"),
      right(counted ? `${counted.lower < counted.upper ? "≤ " : ""}${number(counted.effective)}` : "–"),
    );
  });
  return [h("h2", {}, "The same in numbers"), scrolled("The same in numbers", ["Step", "Modules (nodes)", "Moved, of nodes in both", "What happened", "LLC", "Effective parameters"], rows, (i) => i === 2 || i > 3)];
}
