// Circuit experiments: each with its controls, worst partial cut, and the verdict on it.
import { chart } from "./charts";
import type { Schemas } from "./client";
import { colour } from "./colours";
import { count, h, note, number, type Child } from "./dom";
import { missing, several, verdict, type Section } from "./evidenceparts";
import { downloadButton } from "./downloads";
import { table, type Cells } from "./tables";

type Row = Schemas["ExperimentRow"];
type Numbers = Record<string, { value: number; standard_error: number | null }>;
type Control = { value: number; spread: number | null; draws: number; p_value: number };

interface Outcome {
  name: string;
  removed: number;
  values: Numbers;
  controls: Record<string, Control>;
}

/** The numbers of an experiment, as far as this page shows them; which are there depends on its kind. */
interface Summary {
  rows: Outcome[];
  n_modules?: number;
  matched?: Record<string, Control>;
  cut_edges?: number[];
  n_edges?: number[];
  worst?: Worst[];
  links?: { earlier: number; later: number; predicted: number }[];
  interval?: [number, number] | null;
  classes?: (number | null)[][][][];
  whole_classes?: (number | null)[][];
  mixing?: { own: number; others: number } | null;
  parts?: { verdict: string; reason: string }[];
  fractions?: number[];
  curve?: { value: number; standard_error: number | null }[];
  cpr?: { value: number; standard_error: number | null };
  random_cpr?: number[];
  cuts?: string[];
  edges_required?: number[];
  jointly_required?: number[];
  epsilon?: number[];
  tolerance?: number;
}

interface Worst {
  edges: number;
  steps: number[];
  losses: number[];
  cut: number;
  starts: number;
  points: number;
  beside: string;
  matched: Record<string, Control>;
}

const KINDS: Record<string, [string, string]> = {
  isolate: ["Modules isolated", "All interactions between modules are cut at once."],
  modules: ["Modules ablated", "Each module is taken away, and each is kept alone."],
  faithfulness: ["Faithfulness of the strongest edges", "f(k): the share of the metric that the strongest edges restore, where the share k of them is kept."],
  bisect: ["Edges required", "The fewest of the strongest edges that keep the metric within a tolerance."],
  epsilon: ["Edges required, and the loss scales that keep them", "The fewest of the strongest edges that keep the metric within a tolerance."],
  predict: ["Costs predicted and measured", "Each link between two modules is cut, and the loss is compared with the cost that the graph predicts."],
};

/** What the verdict of a kind answers, before it. */
const ASKED: Record<string, string> = {
  isolate: "Do modules work by themselves? ",
  modules: "Do modules work by themselves? ",
  faithfulness: "Do the strongest edges carry the network? ",
  bisect: "Do the strongest edges carry the network? ",
  epsilon: "Do the strongest edges carry the network? ",
  predict: "Does the cost rank the losses? ",
};

type Named = (index: number) => string;

/** All experiments on a partition, the newest of each kind open. */
export function experiments(partition: Schemas["PartitionDetail"], rows: Row[], network: boolean, named: Named): Section {
  const kinds = Object.keys(KINDS);
  const place = (row: Row): number => (kinds.includes(row.experiment) ? kinds.indexOf(row.experiment) : kinds.length);
  const groups = [...Map.groupBy(rows, (row) => row.experiment).values()].sort((a, b) => place(a[0] as Row) - place(b[0] as Row));
  const leaves: (() => void)[] = [];
  const one = (row: Row): Child => {
    const made = section(row, named);
    if (made.leave) leaves.push(made.leave);
    return made.element;
  };
  const shown = groups.map(([newest, ...older]) => [
    newest ? one(newest) : null,
    older.length ? h("details", {}, h("summary", {}, several(older.length)), older.map(one)) : null,
  ]);
  const nothing = network
    ? missing("No experiment on these modules is stored. This isolates them and searches for the worst partial cut:", `interbasis experiment ${partition.id} --kind isolate --adversarial 20,80`, partition.id, "experiment")
    : note("This graph was made elsewhere: there is no network on which an experiment could run.");
  const absent = network ? kinds.filter((kind) => kind !== "epsilon" && !rows.some((row) => row.experiment === kind)) : [];
  return {
    element: [
      h("h2", {}, "Experiments on the network"),
      rows.length ? shown : nothing,
      rows.length && absent.length ? missing("Not stored yet:", absent.map((kind) => `interbasis experiment ${partition.id} --kind ${kind}`).join("\n"), partition.id, "experiment") : null,
    ],
    leave: () => leaves.forEach((leave) => leave()),
  };
}

function section(row: Row, named: Named): Section {
  const [title, about] = KINDS[row.experiment] ?? [row.experiment, ""];
  const found = row.summary as unknown as Summary;
  const drawn = row.experiment === "faithfulness" && found.curve ? curve(row, found) : null;
  const tables = metrics(found).map((metric) => outcomes(row, found, metric));
  return {
    element: h(
      "section",
      {},
      h("h3", {}, title),
      note(`${about} ${count(row.n, "data point")}${row.held_out ? ", held out" : ", those of the basis"}; metric ${row.metric}.`),
      drawn?.figure,
      tables,
      worst(found).map((text) => note(text)),
      row.experiment === "bisect" || row.experiment === "epsilon" ? required(row, found) : null,
      found.classes?.length && found.whole_classes?.length ? classes(found, named) : null,
      notes(row, found).map((text) => note(text)),
      verdict(row.verdict, row.reason, ASKED[row.experiment] ?? ""),
      (found.parts ?? []).map((part, i) => h("p", { class: "small" }, `${named(i)}: ${part.verdict}, ${part.reason}`)),
      h("p", {}, downloadButton(`api/v1/experiments/${row.id}/file`, `Download ${row.id}`)),
    ),
    ...(drawn && { leave: drawn.leave }),
  };
}

const LOSSES = ["mse", "kl"]; // behavioural, shown first

const metrics = (found: Summary): string[] =>
  Object.keys(found.rows[0]?.values ?? {}).sort((a, b) => Number(!LOSSES.includes(a)) - Number(!LOSSES.includes(b)));

const spread = (value: number | null | undefined, error: number | null | undefined): string =>
  error === null || error === undefined ? number(value) : `${number(value)} ± ${number(error, 1)}`;

function outcomes(row: Row, found: Summary, metric: string): Child {
  const isolate = row.experiment === "isolate";
  const matched: Record<string, Record<string, Control> | undefined> = { isolated: found.matched, "worst cut": found.worst?.[0]?.matched };
  const links = found.links ?? [];
  const first = found.rows.length - links.length;
  const controls = (line: Outcome): (Control | undefined)[] => [line.controls[metric], ...(isolate ? [matched[line.name]?.[metric]] : [])];
  const compared = found.rows.some((line) => controls(line).some(Boolean));
  const random = isolate ? ["Random modules", "p", "Random edges", "p"] : ["Random", "p"];
  const heads = ["Network", ...(links.length ? ["Cost"] : []), "Ablated", metric, ...(compared ? random : [])];
  const rows = found.rows.map((line, i): Cells => {
    const value = line.values[metric];
    const beside = controls(line).flatMap((one) => (one ? [spread(one.value, one.spread), number(one.p_value, 2)] : ["–", "–"]));
    return [
      line.name,
      ...(links.length ? [i < first ? "–" : number(links[i - first]?.predicted)] : []),
      number(line.removed),
      spread(value?.value, value?.standard_error),
      ...(compared ? beside : []),
    ];
  });
  return table(`${row.experiment}: ${metric}`, heads, once(rows, found), heads.slice(1));
}

const OTHER: Record<string, string> = { "module 0 alone": "without module 1", "module 1 alone": "without module 0" };

/** Leave out the rows of one module alone where there are two and they say the same as those without the other. */
function once(rows: Cells[], found: Summary): Cells[] {
  if (found.n_modules !== 2) return rows;
  const cells = new Map(rows.map(([name, ...rest]) => [name, JSON.stringify(rest)]));
  return rows.filter(([name, ...rest]) => cells.get(OTHER[String(name)]) !== JSON.stringify(rest));
}

function worst(found: Summary): string[] {
  const [first] = found.worst ?? [];
  if (!first) return [];
  const losses = first.steps.map((steps, i) => `${number(first.losses[i])} after ${steps} steps`).join(", ");
  return [
    `Worst cut: ${number(first.edges)} edges kept in part, shares from 0 to 1 by gradient ascent on the behavioural loss of ` +
      `${count(first.points, "data point")}, ${count(first.starts, "start")}; all cut ${number(first.cut)}, worst ${losses}. ` +
      `Random ${first.beside} have the same budget.`,
  ];
}

function notes(row: Row, found: Summary): string[] {
  const sum = (values: number[] = []): number => values.reduce((total, value) => total + value, 0);
  const said: string[] = [];
  if (row.experiment === "isolate") {
    said.push(`${number(sum(found.cut_edges))} of ${count(sum(found.n_edges), "edge")} join different modules and were cut.`);
    said.push("Weak edges are cut too: those below the threshold at which the modules were found.");
    const edges = Object.keys(found.matched ?? {}).length ? " Random edges: as many of the same strengths." : "";
    said.push(`Random modules have the same sizes.${edges}`);
  }
  if (found.rows.some((line) => Object.keys(line.controls).length)) said.push("p: the share of random controls that do at least as well, what is measured counted as one of them.");
  if (row.experiment === "modules") said.push("Nodes of no module go along with the module that they exchange most loss with.");
  if (found.mixing)
    said.push(`Variance of nodes' activations, in units of the loss, when data of their own module change ${number(found.mixing.own)}, of other modules ${number(found.mixing.others)}; without the strongest edge of each node.`);
  if (row.experiment === "predict" && row.value !== null && found.interval)
    said.push(`Rank correlation of predicted cost and loss ${number(row.value)}, ${number(found.interval[0])} to ${number(found.interval[1])}.`);
  return said;
}

function required(row: Row, found: Summary): Child {
  const cuts = found.cuts ?? [];
  const rows = (found.edges_required ?? []).map((alone, i): Cells => [
    `${cuts[i] ?? i} to ${cuts[i + 1] ?? i + 1}`,
    number(alone),
    number(found.jointly_required?.[i]),
    number(found.n_edges?.[i]),
    number(Math.sqrt(found.epsilon?.[i] ?? NaN)),
  ]);
  const heads = ["Pair of cuts", "Alone", "Jointly", "Of", "√ε"];
  return [note(`Fewest of the strongest edges that keep ${row.metric} within ${number(found.tolerance)}:`), table("Edges required", heads, rows, heads.slice(1))];
}

const MARKED = 0.1; // loss of accuracy from which a number is marked

/** Accuracy at the data points of each class: the whole network, without each module, and with each alone. */
function classes(found: Summary, named: Named): Child {
  const whole = found.whole_classes ?? [];
  const [without = [], alone = []] = found.classes ?? [];
  const columns = whole.flatMap((answer, a) => answer.map((_, c): [number, number] => [a, c]));
  const cell = (value: number | null | undefined, before: number | null | undefined): Child => {
    if (value === null || value === undefined) return "–";
    const lost = before !== null && before !== undefined && before - value > MARKED;
    return lost ? h("strong", { class: "error" }, value.toFixed(2)) : value.toFixed(2);
  };
  const line = (name: string, values: (number | null)[][]): Cells => [name, ...columns.map(([a, c]) => cell(values[a]?.[c], whole[a]?.[c]))];
  const two = found.n_modules === 2; // then without one is the other alone
  const rows = [
    line("whole network", whole),
    ...without.map((values, m) => line(`without ${named(m)}`, values)),
    ...(two ? [] : alone.map((values, m) => line(`${named(m)} alone`, values))),
  ];
  const heads = ["Network", ...columns.map(([a, c]) => (whole.length > 1 ? `${a}:${c}` : String(c)))];
  const what = whole.length > 1 ? "Columns are answer:class." : "Columns are classes.";
  return [
    note(`Accuracy at the data points of each class. ${what} Marked: more than ${MARKED} below the whole network.${two ? " Of two modules, the network without one is the other alone." : ""}`),
    table("Accuracy by module and class", heads, rows, heads.slice(1)),
  ];
}

function curve(row: Row, found: Summary): { figure: HTMLElement; leave: () => void } {
  const points = (found.fractions ?? []).flatMap((x, i) => {
    const at = found.curve?.[i];
    if (!at) return [];
    const error = 1.96 * (at.standard_error ?? 0);
    return [{ x, y: at.value, lower: at.value - error, upper: at.value + error }];
  });
  const random = found.random_cpr?.length ? `; in random order ${number(row.control)}, p ${number(row.p_value, 2)}` : "";
  const area = `area (CPR) ${spread(found.cpr?.value, found.cpr?.standard_error)}${random}`;
  return chart("f(k), 95 % interval, by share of edges kept", area, [{ name: "strongest edges", colour: colour(0), points }], 1, row.id, "shares of edges");
}
