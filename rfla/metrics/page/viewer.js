"use strict";
// One image, large. Stands before page.js in the same script, whose data, state and countTexts it uses.

const viewer = { image: null, bitmap: null, scale: 1, left: 0, top: 0, fitted: true };

async function openViewer(image) {
  const place = data.images.indexOf(image);
  viewer.image = image;
  $("viewer-name").textContent = image.name;
  $("viewer-previous").disabled = place === 0;
  $("viewer-next").disabled = place === data.images.length - 1;
  if (!$("viewer").open) $("viewer").showModal();
  if (viewer.bitmap) viewer.bitmap.close();
  viewer.bitmap = null;
  fit();
  const bitmap = await unpack(image);
  if (viewer.image !== image) return bitmap && bitmap.close();
  viewer.bitmap = bitmap;
  drawViewer();
}

function fit() {
  const { clientWidth, clientHeight } = $("viewer-canvas"), bar = $("viewer-bar").offsetHeight;
  viewer.scale = Math.min(clientWidth / viewer.image.w, (clientHeight - bar) / viewer.image.h) * 0.97;
  viewer.left = (clientWidth - viewer.image.w * viewer.scale) / 2;
  viewer.top = bar + (clientHeight - bar - viewer.image.h * viewer.scale) / 2;
  viewer.fitted = true;
  drawViewer();
}

function drawViewer() {
  const canvas = $("viewer-canvas"), context = canvas.getContext("2d"), { image, scale, left, top } = viewer;
  const sharp = devicePixelRatio; // the canvas has the screen's pixels, everything below is in CSS px
  canvas.width = canvas.clientWidth * sharp;
  canvas.height = canvas.clientHeight * sharp;
  context.setTransform(sharp, 0, 0, sharp, 0, 0);
  context.imageSmoothingEnabled = scale * sharp < 1; // pixels stay pixels when enlarged
  context.fillStyle = "#2a2f36";
  context.fillRect(left, top, image.w * scale, image.h * scale);
  if (viewer.bitmap) context.drawImage(viewer.bitmap, left, top, image.w * scale, image.h * scale);
  strokeAll(context, image.result.boxes, scale, left, top, 3, scale > 4 ? 2 : 1.5);
  if (scale > 5) writeLabels(context, image.result.boxes, scale, left, top);
  $("viewer-counts").replaceChildren();
  for (const [name, text] of Object.entries(countTexts(image.result))) $("viewer-counts").append(element("span", text, name));
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
  viewer.fitted = false;
  drawViewer();
}

function move(right, down) {
  viewer.left += right;
  viewer.top += down;
  viewer.fitted = false;
  drawViewer();
}

function describe(what, row) {
  const sides = `${(row[2] - row[0]).toFixed(1)} x ${(row[3] - row[1]).toFixed(1)} px`;
  if (what === "tp" || what === "fp") return `${data.names[row[5]]} ${row[4].toFixed(3)}\n${what === "tp" ? "found" : data.kinds[row[6]]}, ${sides}`;
  if (what === "ignored") return `ignored, ${sides}`;
  const taken = reaches(row[8], row[9]) ? `taken for ${data.names[row[9]]}` : "not seen";
  const why = reaches(row[7], row[4]) ? "badly placed" : taken;
  const late = row[6] !== null ? `\nwould be found at score ${row[6].toFixed(3)}` : "";
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
  if (data.images[next]) openViewer(data.images[next]);
}

function listenViewer() {
  const canvas = $("viewer-canvas");
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0018), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(4, event.offsetX, event.offsetY));
  const held = new Map(); // pointers that are down, and where: one drags, two pinch
  canvas.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, [event.offsetX, event.offsetY]);
    canvas.setPointerCapture(event.pointerId);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (before) {
      const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      held.set(event.pointerId, now);
      if (other) zoom(apart(now) / Math.max(apart(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      else move(now[0] - before[0], now[1] - before[1]);
    }
    point(event);
  });
  $("viewer-previous").addEventListener("click", () => step(-1));
  $("viewer-next").addEventListener("click", () => step(1));
  $("viewer-close").addEventListener("click", () => $("viewer").close());
  $("viewer").addEventListener("close", () => { viewer.image = null; $("tip").hidden = true; });
  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), 0: fit,
    "+": () => zoom(1.5, innerWidth / 2, innerHeight / 2), "=": () => zoom(1.5, innerWidth / 2, innerHeight / 2),
    "-": () => zoom(1 / 1.5, innerWidth / 2, innerHeight / 2),
  };
  addEventListener("keydown", (event) => { if (viewer.image && keys[event.key]) keys[event.key](); });
  addEventListener("resize", () => {
    if (viewer.image) (viewer.fitted ? fit : drawViewer)(); // who has zoomed in keeps the place
  });
}
