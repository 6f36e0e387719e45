// The view of evidence: why the modules of a partition are believed, or not, and what can be downloaded.
import { get, type Schemas } from "./client";
import { coefficients } from "./coefficients";
import { comparisons } from "./comparisons";
import { called, h, note, number, show, type Child } from "./dom";
import { downloads } from "./downloads";
import { verdict, type Section } from "./evidenceparts";
import { experiments } from "./experiments";
import { shared } from "./panel";
import { to, type View } from "./route";

const MOST = { limit: 1000, newest: true };

/** The view at #/evidence/PARTITION. */
export async function evidenceView(place: HTMLElement, ref: string): Promise<View> {
  const partition = await get("/api/v1/partitions/{ref}", { ref });
  const ofIt = { ...MOST, partition: partition.id };
  const [models, found, compared, measured, same, labels] = await Promise.all([
    get("/api/v1/models", {}, MOST),
    get("/api/v1/experiments", {}, ofIt),
    get("/api/v1/comparisons", {}, ofIt),
    get("/api/v1/llc", {}, { ...MOST, checkpoint: partition.checkpoint }),
    get("/api/v1/partitions", {}, { ...MOST, graph: partition.graph }),
    shared.labels(partition.id),
  ]);
  document.title = `Evidence of ${called(partition)} · interbasis`;
  const names = new Map(labels.flatMap((row) => (row.module === null ? [] : [[row.module, row.text] as const])));
  const moduleName = (index: number): string => (names.has(index) ? `module ${index}: ${names.get(index)}` : `module ${index}`);
  const family = models.items.find((model) => model.name === partition.model)?.family ?? "";
  const network = family !== "graph"; // one of our own, which experiments can run
  const parts: Section[] = [experiments(partition, found.items, network, moduleName)];
  if (network) parts.push(coefficients(partition, measured.items, moduleName));
  parts.push(comparisons(partition, compared.items, new Set(same.items.map((row) => row.id))), downloads(partition, family));
  show(
    place,
    h("p", { class: "small" }, h("a", { href: to("graph", partition.id) }, "The picture of this division")),
    h("div", { class: "title" }, h("h1", {}, `Evidence of ${called(partition)}`), h("small", {}, partition.id)),
    chance(partition),
    parts.map((part) => part.element),
  );
  return { update: () => undefined, leave: () => parts.forEach((part) => part.leave?.()) };
}

function chance(partition: Schemas["PartitionDetail"]): Child {
  const facts: [string, string][] = [
    ["Modules", number(partition.n_modules)],
    ["Cost between them", `${number(partition.edge_cost)} log strength, normalised ${number(partition.normalised_cost)}`],
    ["Against null graphs", partition.p_value === null || partition.p_value === undefined ? "not tested" : `p ${number(partition.p_value, 2)}, z ${number(partition.z)}`],
    ["Stability", `${number(partition.stability)} (1: independent searches agree)`],
    ["Loss scale ε", number(partition.epsilon)],
  ];
  return [
    h("h2", {}, "Against chance"),
    h("dl", {}, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    verdict(partition.verdict, partition.reason),
    (partition.remarks ?? []).map((remark) => note(remark)),
    partition.warning ? note(partition.warning) : null,
  ];
}
