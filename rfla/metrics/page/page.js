"use strict";
// Rows are arrays to keep the page small. Detection: x1 y1 x2 y2 score label kind size. True box: x1 y1 x2 y2 label size
// foundAt nearAt mistakenAt mistakenAs asked. Scores are null where there is none; kinds: see data.kinds.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLOURS = { tp: "#22c26a", miss: "#ff3b30", fp: "#3f8cff", ignored: "#a9afb8" };
const CORRECT = 0, IGNORED = 1;
const [LOWEST, HIGHEST] = data.scores;
const state = { cls: -1, size: -1, optimal: true, score: Math.max(0.3, LOWEST), sort: "misses" };
const SHORT = new Map(data.names.map((name, label) => [name, data.short_names[label]]));
const shows = (what) => $("show-" + what).checked;

function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// --- summary

function shownValue(value, name) {
  if (value === null || value === -1) return "–";
  if (name === "boxes") return value.toLocaleString("en");
  return value.toFixed(name === "ms per image" ? 1 : 3);
}

function title(name) {
  const family = name.match(/^(ap|ar)(\d*)(?:_(.*))?$/); // ap_vt is APvt, as on the terminal
  if (family) return family[1].toUpperCase() + family[2] + (family[3] ?? "");
  return name.replaceAll("_", " ").replace("olrp", "oLRP");
}

function fillSummary() {
  $("about").textContent = data.about;
  for (const [heading, figures] of data.families) {
    if (!figures.length) continue;
    const family = element("section", undefined, "panel family"), row = element("div");
    for (const [name, value] of figures) {
      const figure = element("b", shownValue(value, name), name === "ap" ? "figure main" : "figure");
      figure.append(element("span", title(name)));
      row.append(figure);
    }
    family.append(element("h3", heading), row);
    $("families").append(family);
  }
  fillTable($("by-size"), data.by_size);
  fillTable($("classes"), data.classes);
  fillTable($("speed"), data.speed);
  $("shown").textContent = data.shown;
}

function fillTable(table, rows) {
  if (!rows.length) return;
  const keys = Object.keys(rows[0]);
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  keys.forEach((key, column) => {
    const cell = element("th"), button = element("button", title(key));
    let rising = column === 0;
    button.type = "button";
    button.addEventListener("click", () => {
      rows.sort((a, b) => (a[key] > b[key] ? 1 : a[key] < b[key] ? -1 : 0) * (rising ? 1 : -1));
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
      rising = !rising;
      fillRows();
    });
    cell.append(button);
    head.append(cell);
  });
  function fillRows() {
    body.replaceChildren();
    for (const row of rows) {
      const line = body.insertRow();
      for (const key of keys) {
        const cell = line.insertCell(), name = typeof row[key] === "string";
        cell.textContent = name ? SHORT.get(row[key]) ?? row[key] : shownValue(row[key], key);
        if (name) cell.title = row[key];
      }
    }
  }
  fillRows();
}

// --- what counts under the filters

function reaches(score, label) {
  const threshold = state.optimal ? data.thresholds[label] : state.score;
  return score !== null && threshold !== null && score >= threshold;
}

function wanted(label, size) {
  if (state.cls >= 0 && label !== state.cls) return false;
  if (state.size < 0) return true;
  const [, low, high] = data.sizes[state.size];
  return size >= low && size <= high;
}

function sorted(image) {
  const boxes = { tp: [], miss: [], fp: [], ignored: [] };
  let found = 0;
  for (const gt of image.g) {
    if (!wanted(gt[4], gt[5])) continue;
    if (!gt[10]) boxes.ignored.push(gt);
    else if (reaches(gt[6], gt[4])) found++;
    else boxes.miss.push(gt);
  }
  for (const det of image.d) {
    if (!reaches(det[4], det[5]) || !wanted(det[5], det[7])) continue;
    if (det[6] === CORRECT) boxes.tp.push(det);
    else if (det[6] === IGNORED) boxes.ignored.push(det);
    else boxes.fp.push(det);
  }
  return { boxes, found, missed: boxes.miss.length, wrong: boxes.fp.length };
}

function f1(result) {
  const all = 2 * result.found + result.missed + result.wrong;
  return all ? (2 * result.found) / all : 1;
}

const ORDERS = {
  misses: (a, b) => b.result.missed - a.result.missed || b.result.wrong - a.result.wrong,
  wrong: (a, b) => b.result.wrong - a.result.wrong,
  worst: (a, b) => f1(a.result) - f1(b.result) || b.result.missed - a.result.missed,
  best: (a, b) => f1(b.result) - f1(a.result) || b.result.found - a.result.found,
  name: (a, b) => (a.name < b.name ? -1 : 1),
};

// --- pictures, unpacked only when they come into view

async function unpack(image) {
  const packed = image.p === null ? null : $(image.p);
  if (!packed) return null;
  const text = atob(packed.textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
}

async function makeThumbnail(image, width, height) {
  const bitmap = await unpack(image);
  if (!bitmap) return null;
  const small = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
  bitmap.close(); // 500 pictures at full size would not fit; the viewer unpacks its own
  return small;
}

function boxesPath(context, rows, scale, left, top, least) {
  context.beginPath();
  for (const row of rows) {
    const width = Math.max((row[2] - row[0]) * scale, least), height = Math.max((row[3] - row[1]) * scale, least);
    const x = ((row[0] + row[2]) / 2) * scale + left, y = ((row[1] + row[3]) / 2) * scale + top;
    context.rect(x - width / 2 - 1, y - height / 2 - 1, width + 2, height + 2); // round the object, not on it
  }
}

function strokeAll(context, boxes, scale, left, top, least, lineWidth) {
  const shown = ["ignored", "fp", "tp", "miss"].filter(shows);
  for (const edge of [true, false]) { // all dark edges first, so that none covers a line; they show on pale ground
    context.lineWidth = edge ? lineWidth + 2 : lineWidth;
    for (const what of shown) {
      context.strokeStyle = edge ? "#000a" : COLOURS[what];
      context.setLineDash(what === "ignored" && !edge ? [4, 3] : []);
      boxesPath(context, boxes[what], scale, left, top, least);
      context.stroke();
    }
  }
}

const THUMBNAIL = 300; // px wide
const shapes = data.images.map((image) => image.w / image.h).sort((a, b) => a - b);
const middle = shapes.length ? shapes[shapes.length >> 1] : 1; // one shape for all cards: that of the middle image
const THUMBNAIL_HEIGHT = Math.round(THUMBNAIL / Math.min(Math.max(middle, 0.8), 2));

async function drawThumbnail(image) {
  const canvas = image.canvas, context = canvas.getContext("2d");
  const scale = Math.min(THUMBNAIL / image.w, THUMBNAIL_HEIGHT / image.h);
  const width = Math.max(Math.round(image.w * scale), 1), height = Math.max(Math.round(image.h * scale), 1);
  const left = (THUMBNAIL - width) / 2, top = (THUMBNAIL_HEIGHT - height) / 2;
  image.stale = false;
  image.thumbnail ??= makeThumbnail(image, width, height);
  const thumbnail = await image.thumbnail;
  canvas.width = THUMBNAIL;
  canvas.height = THUMBNAIL_HEIGHT;
  if (thumbnail) context.drawImage(thumbnail, left, top);
  strokeAll(context, image.result.boxes, scale, left, top, 2, 1.5);
}

const visible = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const image = entry.target.image;
    if (!entry.isIntersecting) visible.delete(image);
    else {
      visible.add(image);
      if (image.stale) drawThumbnail(image);
    }
  }
}, { rootMargin: "300px" });

function makeCards() {
  for (const image of data.images) {
    image.card = element("button", undefined, "panel card");
    image.card.type = "button";
    image.card.image = image;
    image.canvas = element("canvas");
    image.canvas.style.aspectRatio = `${THUMBNAIL} / ${THUMBNAIL_HEIGHT}`;
    image.caption = element("div", image.name);
    image.caption.title = image.name;
    image.counts = { tp: element("span", "", "tp"), miss: element("span", "", "miss"), fp: element("span", "", "fp") };
    const counts = element("div", undefined, "counts");
    counts.append(image.counts.tp, image.counts.miss, image.counts.fp);
    image.caption.append(counts);
    image.card.append(image.canvas, image.caption);
    image.card.addEventListener("click", () => openViewer(image));
    watcher.observe(image.card);
  }
}

function falsePositives(count) {
  return `${count.toLocaleString("en")} false positive${count === 1 ? "" : "s"}`;
}

function countTexts(result) {
  return { tp: `${result.found.toLocaleString("en")} found`, miss: `${result.missed.toLocaleString("en")} missed`, fp: falsePositives(result.wrong) };
}

function update() {
  let found = 0, missed = 0, wrong = 0;
  for (const image of data.images) {
    image.result = sorted(image);
    image.stale = true;
    found += image.result.found;
    missed += image.result.missed;
    wrong += image.result.wrong;
    for (const [name, text] of Object.entries(countTexts(image.result))) image.counts[name].textContent = text;
  }
  data.images.sort(ORDERS[state.sort]);
  $("gallery").replaceChildren(...data.images.map((image) => image.card));
  $("totals").textContent = `${found.toLocaleString("en")} found, ${missed.toLocaleString("en")} missed, ` +
    `${falsePositives(wrong)} in ${data.images.length} image${data.images.length === 1 ? "" : "s"}`;
  for (const image of visible) drawThumbnail(image);
  if (viewer.image) drawViewer();
}

// --- filters

function fillFilters() {
  $("class").append(new Option("all", -1), ...data.short_names.map((name, label) => new Option(name, label)));
  $("size").append(new Option("all", -1), ...data.sizes.map(([text], index) => new Option(text, index)));
  Object.assign($("score"), { min: LOWEST, max: HIGHEST, step: (HIGHEST - LOWEST) / 200, value: state.score });
  $("score-value").textContent = state.score.toFixed(2);
}

function listenFilters() {
  const read = () => {
    state.cls = Number($("class").value);
    state.size = Number($("size").value);
    state.sort = $("sort").value;
    state.optimal = $("optimal").checked;
    state.score = Number($("score").value);
    $("score-value").textContent = state.score.toFixed(2);
    update();
  };
  $("score").addEventListener("input", () => { $("optimal").checked = false; });
  $("controls").addEventListener("input", read);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
}

fillSummary();
fillFilters();
makeCards();
listenFilters();
listenViewer();
update();
