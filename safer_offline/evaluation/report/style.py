"""How a page looks, light and dark, and the script that sorts its tables."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --ink: #1c2024; --soft: #59616b; --rule: #d3d8de; --card: #f5f7f9;
  --grid: #dddddd; --dots: .3; --safe: #0067a3; --unsafe: #b04a00; --link: #0067a3;
  --line-0: #1f77b4; --line-1: #d96a00; --line-2: #248a24; --line-3: #c92a2a; --line-4: #8559b3;
  --line-5: #80503f; --line-6: #c85aa6; --line-7: #6c6c6c; --line-8: #85861a; --line-9: #0f8b99; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14181c; --ink: #e7eaed; --soft: #a4adb7; --rule: #3a424b; --card: #1d2329;
  --grid: #343c45; --dots: .55; --safe: #5db4ec; --unsafe: #ff9a52; --link: #7cc0ef;
  --line-0: #5db4ec; --line-1: #ffa24d; --line-2: #6bd06b; --line-3: #ff7d7d; --line-4: #bd9cea;
  --line-5: #cb9d8d; --line-6: #f0a3d6; --line-7: #b4b4b4; --line-8: #d2d35c; --line-9: #56d4e2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 72rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-top: 1px solid var(--rule);
  padding-top: 1.25rem; }
h3 { font-size: 1.08rem; margin: 1.75rem 0 .5rem; }
h4, h5 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
h1, h2, h3, p, li, td, th, dd, summary { overflow-wrap: anywhere; }
p, ul { margin: .5rem 0; max-width: 46rem; }
ul { padding-left: 1.25rem; }
a { color: var(--link); }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.verdict { border-left: .3rem solid var(--soft); background: var(--card); padding: .6rem 1rem;
  margin: 1rem 0; border-radius: .25rem; }
.verdict p { margin: .25rem 0; }
.verdict.kept { border-color: var(--safe); } .verdict.broken { border-color: var(--unsafe); }
.badge { font-weight: 650; } .kept .badge { color: var(--safe); }
.broken .badge { color: var(--unsafe); }
.alarm { border: 1px solid var(--unsafe); border-radius: .25rem; padding: .5rem 1rem; }
details { border: 1px solid var(--rule); border-radius: .4rem; margin: .75rem 0;
  padding: 0 1rem; }
details[open] { padding-bottom: .75rem; }
summary { cursor: pointer; padding: .6rem 0; font-weight: 600; }
summary h3, summary h4 { display: inline; font-size: 1rem; margin: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; max-width: 100%; }
.scroll:focus-visible, summary:focus-visible, button:focus-visible { outline: 2px solid var(--link);
  outline-offset: 2px; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .35rem; font-weight: 600; }
caption span { display: block; max-width: 82vw; }
.legend { margin-top: -.5rem; max-width: none; }
th, td { padding: .3rem .65rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th[scope=row], th.name, td.name { text-align: left; }
th[scope=row] { font-weight: 500; }
.scroll th:first-child { position: sticky; left: 0; background: var(--page); }
table.wide th { overflow-wrap: break-word; }
thead th { vertical-align: bottom; white-space: normal; overflow-wrap: normal; }
tfoot th, tfoot td { font-style: italic; }
td.above { color: var(--unsafe); font-weight: 600; } td.within { color: var(--safe); }
table.wide th, table.wide td { white-space: normal; text-align: left; min-width: 8rem; }
th button { font: inherit; font-weight: 650; color: inherit; background: none; border: 0;
  padding: 0; cursor: pointer; text-align: inherit; }
th button::after { content: "\\00a0\\2195"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; color: inherit; }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; color: inherit; }
figure { margin: 1rem 0; }
.plots { display: flex; flex-wrap: wrap; gap: .75rem 1.5rem; }
svg.plot { width: 100%; max-width: 31rem; height: auto; color: var(--ink); flex: 0 1 auto; }
.small svg.plot { max-width: 17.5rem; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
svg.plot text { fill: currentColor; }
img.paths { max-width: 100%; height: auto; background: #ffffff; border-radius: .25rem; }
pre { background: var(--card); padding: .6rem .8rem; border-radius: .25rem; margin: .5rem 0;
  font-size: .88rem; overflow-x: auto; }
code { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; font-size: .92em; }
@media (max-width: 40rem) { body { padding: .5rem .9rem 3rem; } details { padding: 0 .6rem; } }
@media print { details { border: 0; } .scroll { overflow: visible; } }
"""

# Without it the page is whole: it only gives the headings of tables buttons that sort.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column], number = cell.dataset.value;
    return number === undefined ? cell.textContent : number === "" ? NaN : Number(number);
  };
  const order = new Intl.Collator("en", {numeric: true}).compare;
  const compare = (a, b) => typeof a === "string" ? order(a, b) : a - b;
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.ariaSort === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map(row => [key(row, column), row]);
      const known = rows.filter(([k]) => !Number.isNaN(k));
      known.sort(([a], [b]) => down ? compare(b, a) : compare(a, b));
      body.append(...known.map(([, row]) => row));
      body.append(...rows.filter(([k]) => Number.isNaN(k)).map(([, row]) => row));
    });
  });
}
"""


def content_policy() -> str:
    """What a browser may do for the page: nothing but show it and run `SCRIPT`."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'"
    )
