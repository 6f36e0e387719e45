// Colours of modules: Okabe and Ito's, then others far from all before them in CIELAB, as Glasbey's method chooses.
const MODULES = [
  ...["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f00ff", "#00cc00", "#ff14cc", "#ff005c"],
  ...["#0a5ceb", "#85703d", "#85a30a", "#d685ff", "#f58f7a", "#477070", "#ff0000", "#cc147a", "#007a14", "#7a52a3"],
  ...["#9929cc", "#99a3ff", "#c2a3a3", "#99b870"],
];

export const NONE = "#999999";

/** The colour of a module; nodes in no module are grey. */
export function colour(module: number | null | undefined): string {
  return module === null || module === undefined ? NONE : (MODULES[module % MODULES.length] ?? NONE);
}

export interface Inks {
  ink: string;
  soft: string;
  line: string;
  paper: string;
}

/** Colours of the page as they are now, light or dark. */
export function inks(): Inks {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string): string => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), soft: of("--soft"), line: of("--line"), paper: of("--paper") };
}

/** Call back when the colour scheme changes, until the returned function is called. */
export function onScheme(changed: () => void): () => void {
  const query = matchMedia("(prefers-color-scheme: dark)");
  query.addEventListener("change", changed);
  return () => query.removeEventListener("change", changed);
}

/** A colour between two, all of six hexadecimal digits; a share of 1 is the first. (WebGL adds up half-clear ones.) */
export function mixed(one: string, other: string, share: number): string {
  const part = Math.min(1, Math.max(0, share));
  const channel = (start: number): string => {
    const [a, b] = [one, other].map((hex) => parseInt(hex.slice(start, start + 2), 16)) as [number, number];
    return Math.round(part * a + (1 - part) * b).toString(16).padStart(2, "0");
  };
  return `#${channel(1)}${channel(3)}${channel(5)}`;
}
