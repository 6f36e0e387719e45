// What a card holds: the facts that `interbasis describe` wrote. Whatever is not there is left out of the page.
import type { Counts } from "./svg";

export interface Example {
  point: number;
  position: number | null;
  value: number;
  target?: unknown;
  tokens?: string[];
  at?: number;
  values?: (number | null)[];
}

export interface Reads {
  by: string;
  features: { feature: number; name: string; share: number; weight?: number }[];
  groups: { name: string; share: number }[];
  picture: number[] | null;
}

export interface Effect {
  name: string;
  slope: number;
  up: number | null;
  up_error: number | null;
}

export interface Edge {
  cut: string;
  node: number;
  module: number;
  strength: number;
  sign?: string;
  carries?: string | null;
}

interface Shared {
  n: number;
  summary: string;
  inputs_are: string;
  image_shape: number[] | null;
  reads: Reads | null;
  inputs: Record<string, number[]>;
}

export interface NodeContent extends Shared {
  kind: "node";
  module: number;
  mean: number;
  variance: number;
  smallest: number;
  largest: number;
  importance: number;
  share: number;
  histogram: Counts;
  examples: { largest: Example[]; smallest: Example[]; deciles: Example[][] };
  effects: { step: number; points: number; promoted: Effect[]; suppressed: Effect[] } | null;
  direction: (Partial<Reads> & { unembed?: Tokens; embed?: Tokens }) | null;
  neighbours: { in: Edge[]; out: Edge[] };
  frequencies: { frequencies: { frequency: number; share: number }[] } | null;
}

export interface Tokens {
  promoted?: { name: string; value: number }[];
  suppressed?: { name: string; value: number }[];
  largest?: { name: string; value: number }[];
}

export interface ModuleContent extends Shared {
  kind: "module";
  module: number;
  size: number;
  energy: { mean: number; histogram: Counts };
  share: number;
  share_error: number | null;
  examples: { largest: Example[] };
  outputs: { name: string; effect: number; share: number }[];
  classes: { class: unknown; share: number; error: number | null; n: number }[][] | null;
  mediators: { in: Edge[]; out: Edge[] };
  similar: { mean: number; pairs: { first: string; second: string; correlation: number }[] } | null;
  frequencies: { frequency: number; share: number }[] | null;
}

export type Content = NodeContent | ModuleContent;
