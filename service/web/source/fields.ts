// Fields of a form from a JSON schema. What is typed goes to the service as it is meant; the service says what is wrong.
import { h, type Child } from "./dom";

export interface Schema {
  type?: string;
  enum?: string[];
  description?: string;
  default?: unknown;
  items?: Schema;
  anyOf?: Schema[];
}

export interface Field {
  name: string;
  element: HTMLElement;
  control: HTMLInputElement | HTMLSelectElement;
  /** What was chosen; undefined leaves the choice to the service. */
  value(): unknown;
}

/** The field of one choice. */
export function field(name: string, schema: Schema): Field {
  const id = `choice-${name}`;
  const usual = schema.default === undefined ? null : plain(schema.default);
  const words = schema.enum ?? (schema.type === "boolean" ? ["yes", "no"] : null);
  const numeric = schema.type === "number" || schema.type === "integer";
  const common = { id, name, "aria-describedby": `${id}-about` };
  const control = words
    ? h("select", common, h("option", { value: "" }, usual === null ? "default" : `default: ${usual}`), words.map((word) => h("option", { value: word }, word)))
    : h("input", { ...common, type: "text", autocomplete: "off", inputmode: numeric ? "decimal" : null, placeholder: usual ?? "default" });
  const about: Child = h("small", { id: `${id}-about` }, schema.description ?? "");
  return {
    name,
    control,
    element: h("div", {}, h("label", { for: id }, name.replaceAll("_", " ")), control, about),
    value: () => typed(control.value.trim(), schema),
  };
}

const plain = (value: unknown): string => (value === true ? "yes" : value === false ? "no" : typeof value === "string" ? value : JSON.stringify(value));

/** Text as a value of the schema's type; as text where it is none, so that the service can refuse it by name. */
export function typed(text: string, schema: Schema): unknown {
  if (text === "") return undefined;
  if (schema.type === "boolean") return text === "yes";
  if (schema.enum || schema.type === "string") return text;
  if (/^[[{]/.test(text)) {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      return text;
    }
  }
  const kinds = (schema.anyOf ?? [schema]).map((one) => one.type);
  const items = schema.items ?? schema.anyOf?.find((one) => one.type === "array")?.items;
  if (items && (schema.type === "array" || text.includes(",")))
    return text.split(",").map((part) => typed(part.trim(), items) ?? "");
  const wantsNumber = kinds.includes("number") || kinds.includes("integer");
  return wantsNumber && Number.isFinite(Number(text)) ? Number(text) : text;
}
