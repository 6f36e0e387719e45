// Learning coefficients of modules, where they are stored.
import type { Schemas } from "./client";
import { h, note, number, type Child } from "./dom";
import { missing, several, verdict, type Section } from "./evidenceparts";
import { table, type Cells } from "./tables";

type Row = Schemas["LlcRow"];

interface Point {
  part?: string;
  kind?: string;
  module?: number | null;
  value: number | null;
  lower: number | null;
  upper: number | null;
  n_effective: number | null;
  n_parameters: number;
  verdict: string;
  mediators?: { cut: string; node: number }[];
  interaction?: [number, number] | null;
}

/** The learning coefficients of the modules of a partition. */
export function coefficients(partition: Schemas["PartitionDetail"], rows: Row[], named: (index: number) => string): Section {
  const mine = rows.filter((row) => row.mode === "modules" && row.recipe["modules"] === partition.id);
  const [newest, ...older] = mine;
  return {
    element: [
      h("h2", {}, "Learning coefficients of modules"),
      newest
        ? [one(newest, named), older.length ? h("details", {}, h("summary", {}, several(older.length)), older.map((row) => one(row, named))) : null]
        : missing("None are stored. This counts the effective parameters of each module:", `interbasis llc --modules ${partition.id}`, partition.checkpoint, "llc", { modules: partition.id }),
    ],
  };
}

function one(row: Row, named: (index: number) => string): Child {
  const points = row.points as unknown as Point[];
  const rows = points.map((point): Cells => [
    point.module === null || point.module === undefined ? (point.part ?? "whole") : named(point.module),
    point.lower === null || point.upper === null ? number(point.value) : `${number(point.value)} (${number(point.lower)} to ${number(point.upper)})`,
    number(point.n_effective),
    number(point.n_parameters),
    point.verdict,
  ]);
  const heads = ["Part", "λ, 95 % interval", "Effective parameters 2λ", "Parameters", "Verdict"];
  return [
    note(`${row.loss}, loss scale ${number(row.epsilon)}, ${number(row.n)} data points, ${row.kernel}.`),
    table(`Learning coefficients ${row.id}`, heads, rows, heads.slice(1, 4)),
    verdict(row.verdict, row.reason),
  ];
}
