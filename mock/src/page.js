// Shows /mock/stats and /mock/lines, once a second. What was logged only ever becomes text.
"use strict";

const LINES = 100;
let shown = "";

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

function showCounts(stats) {
  const ratio = stats.sent_bytes ? ` (${(stats.raw_bytes / stats.sent_bytes).toFixed(1)}×)` : "";
  const counts = [
    ["lines", stats.lines.toLocaleString("en")],
    ["groups", stats.groups.toLocaleString("en")],
    ["requests", stats.requests.toLocaleString("en")],
    ["raw", bytes(stats.raw_bytes)],
    ["sent", bytes(stats.sent_bytes) + ratio],
  ];
  document.getElementById("counts").replaceChildren(...counts.map(([name, value]) => {
    const box = element("div");
    box.append(element("dt", "", name), element("dd", "", value));
    return box;
  }));
}

function showTrouble(stats) {
  const section = document.getElementById("trouble");
  const items = [
    ...Object.entries(stats.refused),
    ...Object.entries(stats.faults).map(([kind, count]) => [`fault: ${kind}`, count]),
  ].map(([name, count]) => element("li", "", `${name} × ${count.toLocaleString("en")}`));
  section.hidden = items.length === 0;
  section.querySelector("ul").replaceChildren(...items);
}

function pairs(className, list) {
  const box = element("div", className);
  for (const [key, value] of list) {
    const item = element("span");
    item.append(element("b", "", key), "=", value);
    box.append(item);
  }
  return box;
}

function showLine(line) {
  const item = element("li");
  const about = element("div", "about");
  about.append(
    element("b", "", `${line.project}/${line.logstore}`),
    element("span", "", new Date(line.time * 1000).toISOString().replace(".000", "")),
    element("span", "", `#${line.number}`),
  );
  if (line.source) about.append(element("span", "", line.source));
  if (line.topic) about.append(element("span", "", `topic ${line.topic}`));
  item.append(about);
  if (line.contents.length === 1 && line.contents[0][0] === "content") {
    item.append(element("div", "text", line.contents[0][1]));
  } else {
    item.append(pairs("text", line.contents));
  }
  if (line.tags.length > 0) item.append(pairs("tags", line.tags));
  return item;
}

function showLines(answer) {
  document.getElementById("empty").hidden = answer.lines.length > 0;
  document.getElementById("lines").replaceChildren(...answer.lines.reverse().map(showLine));
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  const state = document.getElementById("state");
  try {
    const stats = await get("/mock/stats");
    const now = JSON.stringify(stats);
    if (now !== shown) {
      showCounts(stats);
      showTrouble(stats);
      showLines(await get(`/mock/lines?limit=${LINES}`));
      shown = now;
    }
    state.textContent = "live";
    state.className = "";
  } catch {
    state.textContent = "the endpoint does not answer";
    state.className = "lost";
  }
  setTimeout(refresh, 1000);
}

refresh();
