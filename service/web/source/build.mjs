// Run by docs/web.py in build/web: types from openapi.json, types checked, everything bundled into static/.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const node = (script, ...options) => execFileSync(process.execPath, [script, ...options], { stdio: "inherit" });

mkdirSync("static");
node("node_modules/openapi-typescript/bin/cli.js", "openapi.json", "--output", "source/api.d.ts");
node("node_modules/typescript/bin/tsc", "--project", "source");

const made = await build({
  entryPoints: { app: "source/main.ts", docs: "source/docs.ts" },
  outdir: "static",
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  loader: { ".css": "css" },
  metafile: true,
});
const swagger = "node_modules/swagger-ui-dist";
for (const name of ["swagger-ui.css", "swagger-ui-bundle.js"]) {
  const text = readFileSync(`${swagger}/${name}`, "utf8");
  writeFileSync(`static/${name}`, text.replace(/\n\/[/*]# sourceMappingURL=.*$/m, ""));
}
for (const name of ["index.html", "docs.html", "icon.svg"]) copyFileSync(`source/${name}`, `static/${name}`);

// Licences of everything that is in the bundles.
const inside = new Set(Object.keys(made.metafile.inputs).map((path) => path.match(/node_modules\/((@[^/]+\/)?[^/]+)/)?.[1]));
inside.add("swagger-ui-dist");
const texts = [...inside].filter(Boolean).sort().map((name) => {
  const about = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const found = ["LICENSE", "LICENSE.txt", "LICENSE.md", "license"].map((file) => {
    try { return readFileSync(`node_modules/${name}/${file}`, "utf8"); } catch { return ""; }
  }).find(Boolean);
  if (!found && !about.license) throw new Error(`${name} states no licence`);
  return `${name} ${about.version} (${about.license})\n\n${found ?? ""}`;
});
texts.push(readFileSync(`${swagger}/swagger-ui-bundle.js.LICENSE.txt`, "utf8"));
const rule = `\n${"-".repeat(80)}\n`;
writeFileSync("static/licences.txt", `The page contains these packages.\n${rule}${texts.join(rule)}`);
