/* Zoom, panning, and the pixel under the pointer. */
"use strict";

/* state: view { zoom, x, y }, beside, ratio. page: record(), moved(), say(text, visible), read(text). */
ambiseg.zoom = (canvas, state, page) => {
  const { panes, placed } = ambiseg.drawing, { probabilities, entropy, percent } = ambiseg.masks, MOST_ZOOM = 64;

  /* The pixel under a place of the window, and its pane; null off the panes. */
  function under(event) {
    const record = page.record();
    if (!record) return null;
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * state.ratio, y = (event.clientY - box.top) * state.ratio;
    const pane = panes(record, state.beside, canvas.width, canvas.height).find(
      (one) => x >= one.x && x < one.x + one.width && y >= one.y && y < one.y + one.height);
    if (!pane) return null;
    const place = placed(record, pane, state.view);
    return { pane, scale: place.scale, x: (x - place.x) / place.scale, y: (y - place.y) / place.scale };
  }

  function zoomBy(factor, spot) {
    const record = page.record();
    if (!record) return;
    const view = state.view, zoom = Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor)), part = 1 - view.zoom / zoom;
    if (spot) {
      view.x += (spot.x / record.width - view.x) * part;
      view.y += (spot.y / record.height - view.y) * part;
    }
    view.zoom = zoom;
    inBounds();
    page.say(zoom === 1 ? "The image fits" : `Zoom ${zoom.toFixed(1)}`, true);
  }

  function inBounds() {
    const view = state.view;
    if (view.zoom === 1) view.x = view.y = 0.5;
    view.x = Math.min(1, Math.max(0, view.x));
    view.y = Math.min(1, Math.max(0, view.y));
    page.moved();
  }

  function pan(x, y) {
    state.view.x += x;
    state.view.y += y;
    inBounds();
  }

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), under(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomBy(2, under(event)));

  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), spot = under(event), record = page.record();
    if (before && spot) {
      if (pointers.size === 2) {
        const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        zoomBy(apart(event) / Math.max(1, apart(before)), spot);
      }
      const moved = state.ratio / spot.scale / pointers.size;
      pan(((before.clientX - event.clientX) * moved) / record.width, ((before.clientY - event.clientY) * moved) / record.height);
      pointers.set(event.pointerId, event);
    }
    if (spot) readPixel(spot);
  });

  function readPixel(spot) {
    const record = page.record();
    const x = Math.floor(spot.x), y = Math.floor(spot.y);
    if (x < 0 || y < 0 || x >= record.width || y >= record.height) return;
    const full = [(x + 0.5) * record.full[1] / record.width, (y + 0.5) * record.full[0] / record.height].map(Math.floor);
    const parts = spot.pane.kinds.map((kind) => {
      const found = probabilities(record, record[kind], y * record.width + x);
      const top = [...found.keys()].filter((c) => c !== record.background && found[c] > 0)
        .sort((a, b) => found[b] - found[a]).slice(0, 3);
      const classes = top.map((c) => `${record.classes[c].name} ${percent(found[c])}`);
      return `${kind}: ${classes.join(", ") || "background"}, entropy ${entropy(found).toFixed(2)}`;
    });
    page.read(`x ${full[0]}, y ${full[1]} · ${parts.join(" · ")}`);
  }

  /* Move by a tenth of what is in sight. */
  const move = (x, y) => pan((0.1 * x) / state.view.zoom, (0.1 * y) / state.view.zoom);

  return { zoomBy, move, fit: () => zoomBy(1 / MOST_ZOOM), most: MOST_ZOOM };
};
