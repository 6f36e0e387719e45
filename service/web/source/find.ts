// What has a name or an ID, for the field that finds it.
import { get, type Schemas } from "./client";
import { called, count } from "./dom";
import { to } from "./route";

export interface Entry {
  words: string;
  shown: string;
  address: string;
}

const MOST = { limit: 1000, newest: true };

/** Models, checkpoints, partitions, graphs and jobs, the newest thousand of each. */
export async function entries(): Promise<Entry[]> {
  const [models, checkpoints, partitions, graphs, jobs] = await Promise.all([
    get("/api/v1/models", {}, MOST),
    get("/api/v1/checkpoints", {}, MOST),
    get("/api/v1/partitions", {}, MOST),
    get("/api/v1/graphs", {}, MOST),
    get("/api/v1/jobs", {}, MOST),
  ]);
  const of = (graph: string): Schemas["PartitionRow"] | undefined => partitions.items.find((row) => row.graph === graph);
  return [
    ...models.items.map((row) => entry(`model ${row.name}`, row.id, to("", "", { model: row.name }))),
    ...partitions.items.map((row) =>
      entry(`${count(row.n_modules, "module")} of ${called(row)}`, row.id, to("graph", row.id)),
    ),
    ...checkpoints.items.map((row) => entry(`checkpoint ${called(row)}`, row.id, to("", "", { model: row.model }))),
    ...graphs.items.map((row) => {
      const partition = of(row.id);
      return entry(`graph of ${called(row)}`, row.id, partition ? to("graph", partition.id) : to("", "", { model: row.model }));
    }),
    ...jobs.items.map((row) => entry(`job ${row.task} ${row.target_name ?? row.target}`, row.id, to("jobs", row.id))),
  ];
}

const entry = (shown: string, id: string, address: string): Entry => ({
  words: `${shown} ${id}`.toLowerCase(),
  shown: `${shown} · ${id}`,
  address,
});

/** Entries that have every word. */
export function matching(all: Entry[], text: string): Entry[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length ? all.filter((one) => words.every((word) => one.words.includes(word))) : [];
}
