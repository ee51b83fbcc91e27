"use strict";
// Rows are arrays to keep the page small. Detection: x1 y1 x2 y2 score label kind size. True box: x1 y1 x2 y2 label size
// foundAt nearAt mistakenAt asked. Scores are -1 where there is none; kinds: see data.kinds.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLOURS = { tp: "#22c26a", miss: "#ff3b30", fp: "#3f8cff", ignored: "#a9afb8" };
const CORRECT = 0, IGNORED = 1;
const state = { cls: -1, size: -1, optimal: true, score: 0.3, sort: "misses" };
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
  return name === "boxes" ? value.toLocaleString("en") : value.toFixed(3);
}

function title(name) {
  return name.replaceAll("_", " ").replace("olrp", "oLRP").replace(/^a[pr](?=[\d ]|$)/, (word) => word.toUpperCase());
}

function fillSummary() {
  $("about").textContent = data.about;
  for (const family of data.families) {
    for (const [name, value] of family) {
      const tile = element("div", undefined, name === "ap" ? "tile main" : "tile");
      tile.append(element("b", shownValue(value, name)), element("span", title(name)));
      $("tiles").append(tile);
    }
    $("tiles").append(element("div", undefined, "break"));
  }
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
    const cell = element("th", title(key));
    let rising = column === 0;
    cell.addEventListener("click", () => {
      rows.sort((a, b) => (a[key] > b[key] ? 1 : a[key] < b[key] ? -1 : 0) * (rising ? 1 : -1));
      rising = !rising;
      fillRows();
    });
    head.append(cell);
  });
  function fillRows() {
    body.replaceChildren();
    for (const row of rows) {
      const line = body.insertRow();
      for (const key of keys) line.insertCell().textContent = typeof row[key] === "string" ? row[key] : shownValue(row[key], key);
    }
  }
  fillRows();
}

// --- what counts under the filters

function threshold(label) {
  if (!state.optimal) return state.score;
  return data.thresholds[label] === null ? 2 : data.thresholds[label];
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
    if (!gt[9]) boxes.ignored.push(gt);
    else if (gt[6] >= threshold(gt[4])) found++;
    else boxes.miss.push(gt);
  }
  for (const det of image.d) {
    if (det[4] < threshold(det[5]) || !wanted(det[5], det[7])) continue;
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

function strokeBoxes(context, rows, colour, scale, left, top, least, dashed) {
  context.strokeStyle = colour;
  context.setLineDash(dashed ? [4, 3] : []);
  context.beginPath();
  for (const row of rows) {
    const width = Math.max((row[2] - row[0]) * scale, least), height = Math.max((row[3] - row[1]) * scale, least);
    const x = ((row[0] + row[2]) / 2) * scale + left, y = ((row[1] + row[3]) / 2) * scale + top;
    context.rect(x - width / 2 - 1, y - height / 2 - 1, width + 2, height + 2); // round the object, not on it
  }
  context.stroke();
}

function strokeAll(context, boxes, scale, left, top, least) {
  if (shows("ignored")) strokeBoxes(context, boxes.ignored, COLOURS.ignored, scale, left, top, least, true);
  if (shows("fp")) strokeBoxes(context, boxes.fp, COLOURS.fp, scale, left, top, least, false);
  if (shows("tp")) strokeBoxes(context, boxes.tp, COLOURS.tp, scale, left, top, least, false);
  if (shows("miss")) strokeBoxes(context, boxes.miss, COLOURS.miss, scale, left, top, least, false);
}

const THUMBNAIL = 300; // px wide
const thumbnailHeight = (image) => Math.round(THUMBNAIL / Math.min(Math.max(image.w / image.h, 0.75), 2));

async function drawThumbnail(image) {
  const canvas = image.canvas, context = canvas.getContext("2d");
  const scale = Math.min(THUMBNAIL / image.w, thumbnailHeight(image) / image.h);
  const width = Math.max(Math.round(image.w * scale), 1), height = Math.max(Math.round(image.h * scale), 1);
  const left = (THUMBNAIL - width) / 2, top = (thumbnailHeight(image) - height) / 2;
  image.stale = false;
  image.thumbnail ??= makeThumbnail(image, width, height);
  const thumbnail = await image.thumbnail;
  canvas.width = THUMBNAIL;
  canvas.height = thumbnailHeight(image);
  if (thumbnail) context.drawImage(thumbnail, left, top);
  context.lineWidth = 1.5;
  strokeAll(context, image.result.boxes, scale, left, top, 2);
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
    image.card = element("button", undefined, "card");
    image.card.type = "button";
    image.card.image = image;
    image.canvas = element("canvas");
    image.canvas.style.aspectRatio = `${THUMBNAIL} / ${thumbnailHeight(image)}`;
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

function countTexts(result) {
  return { tp: `${result.found} found`, miss: `${result.missed} missed`, fp: `${result.wrong} wrong` };
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
    `${wrong.toLocaleString("en")} false positives in ${data.images.length} images`;
  for (const image of visible) drawThumbnail(image);
  if (viewer.image) drawViewer();
}

// --- the viewer

const viewer = { image: null, bitmap: null, scale: 1, left: 0, top: 0, drag: null };

async function openViewer(image) {
  viewer.image = image;
  $("viewer-name").textContent = image.name;
  if (!$("viewer").open) $("viewer").showModal();
  if (viewer.bitmap) viewer.bitmap.close();
  viewer.bitmap = null;
  fit();
  const bitmap = await unpack(image);
  if (viewer.image !== image) return bitmap && bitmap.close();
  viewer.bitmap = bitmap;
  drawViewer();
}

function sizeCanvas() {
  const canvas = $("viewer-canvas");
  canvas.width = canvas.clientWidth;
  canvas.height = canvas.clientHeight;
  return canvas;
}

function fit() {
  const canvas = sizeCanvas(), bar = 44;
  viewer.scale = Math.min(canvas.width / viewer.image.w, (canvas.height - bar) / viewer.image.h) * 0.97;
  viewer.left = (canvas.width - viewer.image.w * viewer.scale) / 2;
  viewer.top = bar + (canvas.height - bar - viewer.image.h * viewer.scale) / 2;
  drawViewer();
}

function drawViewer() {
  const canvas = $("viewer-canvas"), context = canvas.getContext("2d"), { image, scale, left, top } = viewer;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = scale < 1; // pixels stay pixels when enlarged
  context.fillStyle = "#2a2f36";
  context.fillRect(left, top, image.w * scale, image.h * scale);
  if (viewer.bitmap) context.drawImage(viewer.bitmap, left, top, image.w * scale, image.h * scale);
  context.lineWidth = scale > 4 ? 2 : 1.5;
  strokeAll(context, image.result.boxes, scale, left, top, 3);
  if (scale > 5) writeLabels(context, image.result.boxes, scale, left, top);
  $("viewer-counts").replaceChildren();
  for (const [name, text] of Object.entries(countTexts(image.result))) $("viewer-counts").append(element("span", text + "  ", name));
}

function writeLabels(context, boxes, scale, left, top) {
  context.font = "12px system-ui, sans-serif";
  context.setLineDash([]);
  for (const what of ["fp", "tp", "miss"]) {
    if (!shows(what)) continue;
    for (const row of boxes[what]) {
      const text = what === "miss" ? data.names[row[4]] : `${data.names[row[5]]} ${row[4].toFixed(2)}`;
      const x = row[0] * scale + left, y = row[1] * scale + top - 5;
      context.fillStyle = "#000a";
      context.fillRect(x - 2, y - 11, context.measureText(text).width + 4, 14);
      context.fillStyle = COLOURS[what];
      context.fillText(text, x, y);
    }
  }
}

function zoom(factor, x, y) {
  const scale = Math.min(Math.max(viewer.scale * factor, 0.05), 64);
  viewer.left = x - ((x - viewer.left) * scale) / viewer.scale;
  viewer.top = y - ((y - viewer.top) * scale) / viewer.scale;
  viewer.scale = scale;
  drawViewer();
}

function describe(what, row) {
  const sides = `${(row[2] - row[0]).toFixed(1)} x ${(row[3] - row[1]).toFixed(1)} px`;
  if (what === "tp" || what === "fp") return `${data.names[row[5]]} ${row[4].toFixed(3)}\n${what === "tp" ? "found" : data.kinds[row[6]]}, ${sides}`;
  if (what === "ignored") return `ignored, ${sides}`;
  const why = row[7] >= threshold(row[4]) ? "badly placed" : row[8] >= 0 ? "taken for another class?" : "not seen";
  const late = row[6] >= 0 ? `\nwould be found at score ${row[6].toFixed(3)}` : "";
  return `missed: ${data.names[row[4]]}\n${why}, ${sides}${late}`;
}

function point(event) {
  const x = (event.offsetX - viewer.left) / viewer.scale, y = (event.offsetY - viewer.top) / viewer.scale;
  const slack = 3 / viewer.scale;
  let best = null, least = Infinity;
  for (const [what, rows] of Object.entries(viewer.image.result.boxes)) {
    if (!shows(what)) continue;
    for (const row of rows) {
      const area = (row[2] - row[0]) * (row[3] - row[1]);
      const inside = x >= row[0] - slack && x <= row[2] + slack && y >= row[1] - slack && y <= row[3] + slack;
      if (inside && area < least) [best, least] = [describe(what, row), area];
    }
  }
  const tip = $("tip");
  tip.hidden = best === null;
  if (best === null) return;
  tip.textContent = best;
  tip.style.left = Math.min(event.offsetX + 14, innerWidth - 240) + "px";
  tip.style.top = Math.min(event.offsetY + 14, innerHeight - 70) + "px";
}

function step(by) {
  const next = data.images.indexOf(viewer.image) + by;
  if (next >= 0 && next < data.images.length) openViewer(data.images[next]);
}

function listenViewer() {
  const canvas = $("viewer-canvas");
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0018), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(4, event.offsetX, event.offsetY));
  canvas.addEventListener("pointerdown", (event) => {
    viewer.drag = [event.offsetX - viewer.left, event.offsetY - viewer.top];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => { viewer.drag = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (viewer.drag) {
      viewer.left = event.offsetX - viewer.drag[0];
      viewer.top = event.offsetY - viewer.drag[1];
      drawViewer();
    }
    point(event);
  });
  $("viewer-close").addEventListener("click", () => $("viewer").close());
  $("viewer").addEventListener("close", () => { viewer.image = null; $("tip").hidden = true; });
  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), 0: fit,
    "+": () => zoom(1.5, canvas.width / 2, canvas.height / 2), "=": () => zoom(1.5, canvas.width / 2, canvas.height / 2),
    "-": () => zoom(1 / 1.5, canvas.width / 2, canvas.height / 2),
  };
  addEventListener("keydown", (event) => { if (viewer.image && keys[event.key]) keys[event.key](); });
  addEventListener("resize", () => { if (viewer.image) { sizeCanvas(); drawViewer(); } });
}

// --- filters

function fillFilters() {
  $("class").append(new Option("all", -1), ...data.names.map((name, label) => new Option(name, label)));
  $("size").append(new Option("all", -1), ...data.sizes.map(([text], index) => new Option(text, index)));
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
