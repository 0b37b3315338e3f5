/* The page: which image is open, what is shown of it, keys, pointer, the address. Texts of users go in as text only. */
"use strict";

(() => {
  const { draw, colorOf, mostEntropy } = ambiseg.drawing, { percent } = ambiseg.masks;
  const $ = (id) => document.getElementById(id);
  const canvas = $("picture"), KINDS = ["predictions", "annotations"];
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

  let names = [], current = -1, opened = -1, record = null, picture = null, asked = 0;
  const state = {
    layer: "masks", beside: true, opacity: null, shown: new Set(), bright: new Set(),
    view: { zoom: 1, x: 0.5, y: 0.5 }, ratio: 1,
  };
  /* What to show of the next image: all, none, first, or the place of a single mask. */
  const habit = { predictions: "", annotations: "" };

  const listing = ambiseg.listing($("images"), $("search"), $("count"), (index) => show(index));
  const step = (by) => show(listing.further(by) ?? -1);

  // -- Start ------------------------------------------------------------------------------------------------------

  ambiseg.list = (data) => {
    names = data.names;
    $("title").textContent = data.title;
    document.title = `${data.title} - ambiseg`;
    listing.fill(names);
    const wanted = readAddress();
    show(wanted.index, wanted);
  };

  // -- One image -------------------------------------------------------------------------------------------------

  async function show(index, wanted = {}) {
    if (index < 0 || index >= names.length) return;
    const turn = ++asked;
    current = index;
    listing.mark(index);
    $("name").textContent = names[index];
    canvas.setAttribute("aria-busy", "true");
    const slow = setTimeout(() => turn === asked && say(`Loading ${names[index]}`, true), 400);
    const found = await ambiseg.load(index);
    clearTimeout(slow);
    if (turn !== asked) return;
    canvas.removeAttribute("aria-busy");
    opened = index;
    if (record && record !== found.record) ambiseg.masks.forget(record);
    record = found.record.error ? null : found.record;
    picture = found.picture;
    state.bright.clear();
    state.view = wanted.view || { zoom: 1, x: 0.5, y: 0.5 };
    state.shown = record ? wanted.shown || usual() : new Set();
    if (wanted.layer) state.layer = wanted.layer;
    const remark = found.record.error || found.record.remark;
    $("remark").hidden = !remark;
    $("remark").textContent = remark || "";
    fillMasks();
    fillFigures();
    fillClasses();
    changed();
    const place = `Image ${index + 1} of ${names.length}: ${names[index]}`;
    say(record ? `${place}, ${counts()}` : `${place}, ${remark}`);
    for (const near of [1, -1]) {
      const next = listing.further(near);
      if (next !== undefined) ambiseg.load(next);
    }
  }

  function counts() {
    return KINDS.filter((kind) => record[kind].length)
      .map((kind) => plural(record[kind].length, kind.slice(0, -1)))
      .join(", ");
  }

  const mostProbable = (kind) =>
    record[kind].reduce((best, mask, k) => (mask.weight > record[kind][best].weight ? k : best), 0);

  /* The masks to show first: all of two classes, of several the most probable of each kind. */
  function usual() {
    const shown = new Set();
    for (const kind of KINDS) {
      const all = record[kind].map((_, k) => kind[0] + k);
      const how = habit[kind] || (record.classes.length === 2 ? "all" : "first");
      if (how === "all") all.forEach((key) => shown.add(key));
      else if (how === "first" && all.length) shown.add(all[mostProbable(kind)]);
      else if (how !== "none" && all.length) shown.add(all[Math.min(all.length, how) - 1]);
    }
    return shown;
  }

  const titleOf = (kind, k) =>
    kind === "predictions" ? `Mask ${k + 1}` : record.annotations[k].name || `Annotation ${k + 1}`;

  function fillMasks() {
    for (const kind of KINDS) {
      const masks = record ? record[kind] : [];
      $(kind).hidden = !masks.length;
      $(kind).querySelector(".rows").replaceChildren(...masks.map((mask, k) => row(kind, k, mask)));
    }
    const count = keysOf(main()).length;
    $("solo").max = Math.max(1, count);
    $("solo").disabled = count < 2;
    $("beside").hidden = !record || !KINDS.every((kind) => record[kind].length);
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function row(kind, k, mask) {
    const item = document.createElement("li"), button = element("button", "mask");
    button.type = "button";
    button.dataset.key = kind[0] + k;
    const swatch = element("span", "swatch"), bar = element("span", "share"), fill = element("span");
    swatch.style.background = colorOf(record, kind, k);
    fill.style.width = `${100 * mask.weight}%`;
    bar.append(fill);
    button.append(swatch, element("span", "label", titleOf(kind, k)), bar, element("span", "value", percent(mask.weight)));
    button.title = [
      titleOf(kind, k), `area ${percent(mask.area)}`, mask.score === null ? "" : `score ${mask.score.toFixed(3)}`,
    ].filter(Boolean).join(", ");
    button.addEventListener("click", () => toggle([button.dataset.key]));
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => brighten(kind, k));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => brighten());
    item.append(button);
    return item;
  }

  /* Make a mask stand out, with those that it is matched with. */
  function brighten(kind, k) {
    state.bright.clear();
    let text = "";
    if (kind && record) {
      const other = KINDS.find((one) => one !== kind), partners = record[kind][k].partners;
      state.bright.add(kind[0] + k);
      partners.forEach(([j]) => state.bright.add(other[0] + j));
      if (partners.length) {
        const titles = partners.map(([j]) => titleOf(other, j)).join(", ");
        text = `${titleOf(kind, k)} is matched with ${titles}, IoU ${partners[0][1].toFixed(3)}`;
      } else if (record[other].length) {
        text = `${titleOf(kind, k)} is matched with no ${other.slice(0, -1)}`;
      }
    }
    if (text) $("readout").textContent = text;
    document.querySelectorAll(".mask").forEach((one) => one.classList.toggle("bright", state.bright.has(one.dataset.key)));
    redraw();
  }

  function fillFigures() {
    const figures = record ? record.figures : [];
    $("figures").hidden = !figures.length;
    const arrows = { higher: " ↑", lower: " ↓" };
    $("figures").querySelector("tbody").replaceChildren(...figures.map((figure) => {
      const line = document.createElement("tr"), head = element("th", "", figure.title + (arrows[figure.better] || ""));
      head.scope = "row";
      line.append(head, element("td", "", figure.value === null ? "–" : figure.value.toFixed(3)));
      return line;
    }));
    $("figures").querySelector("dl").replaceChildren(...figures.flatMap((figure) => [
      element("dt", "", figure.title), element("dd", "", figure.description),
    ]));
  }

  function fillClasses() {
    const several = record && record.classes.length > 2;
    $("classes").hidden = !several;
    $("classes").replaceChildren(...(several ? record.classes : []).map((one) => {
      const item = document.createElement("li"), swatch = element("span", "swatch");
      swatch.style.background = `rgb(${one.color.join(" ")})`;
      item.append(swatch, element("span", "", one.name));
      return item;
    }));
  }

  // -- What is shown ---------------------------------------------------------------------------------------------

  const keysOf = (kind) => (record ? record[kind].map((_, k) => kind[0] + k) : []);

  function toggle(keys, on) {
    const known = keys.filter((key) => keysOf(key[0] === "p" ? "predictions" : "annotations").includes(key));
    if (!known.length) return;
    const want = on === undefined ? !known.every((key) => state.shown.has(key)) : on;
    known.forEach((key) => (want ? state.shown.add(key) : state.shown.delete(key)));
    if (state.layer !== "masks" && want) state.layer = "masks";
    changed();
    const names = known.map((key) => titleOf(key[0] === "p" ? "predictions" : "annotations", +key.slice(1)));
    say(`${names.length > 3 ? plural(names.length, "mask") : names.join(", ")} ${want ? "shown" : "hidden"}`);
  }

  function toggleAll(kind) {
    const all = keysOf(kind), on = !all.every((key) => state.shown.has(key));
    habit[kind] = on ? "all" : "none";
    toggle(all, on);
  }

  /* What keys and slider act on: predictions, or annotations where there are none. */
  const main = () => (record && !record.predictions.length ? "annotations" : "predictions");

  /* Show one mask, the k-th, on this image and the next. */
  function solo(k) {
    const kind = main(), all = keysOf(kind);
    if (!all.length) return;
    const place = Math.min(all.length, Math.max(1, k));
    habit[kind] = place;
    all.forEach((key) => state.shown.delete(key));
    state.shown.add(all[place - 1]);
    state.layer = "masks";
    changed();
    say(`${titleOf(kind, place - 1)} of ${all.length}, probability ${percent(record[kind][place - 1].weight)}`, true);
  }

  function soloPlace() {
    const on = keysOf(main()).filter((key) => state.shown.has(key));
    return on.length === 1 ? +on[0].slice(1) + 1 : 0;
  }

  function setLayer(layer) {
    state.layer = state.layer === layer ? "masks" : layer;
    changed();
    say({ masks: "Masks", mean: "Mean of the masks", entropy: "Entropy of the masks", image: "Image only" }[state.layer]);
  }

  function changed() {
    document.querySelectorAll("#layers button").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.layer === state.layer)));
    document.querySelectorAll(".mask").forEach((button) =>
      button.setAttribute("aria-pressed", String(state.shown.has(button.dataset.key))));
    $("beside").setAttribute("aria-pressed", String(state.beside));
    const place = soloPlace(), count = keysOf(main()).length;
    $("solo").value = place || 1;
    $("solo").setAttribute("aria-valuetext", place ? `mask ${place} of ${count}` : "several masks are shown");
    for (const [id, kind] of [["all", "predictions"], ["all-annotations", "annotations"]]) {
      $(id).textContent = keysOf(kind).every((key) => state.shown.has(key)) ? "None" : "All";
      $(id).setAttribute("aria-label", `${$(id).textContent} of the ${kind}`);
    }
    const ramp = record && (state.layer === "entropy" || (state.layer === "mean" && record.classes.length === 2));
    $("legend").hidden = !ramp;
    if (ramp) {
      $("legend").className = `legend ${state.layer}`;
      $("most").textContent = state.layer === "mean" ? "1" : `${mostEntropy(record).toFixed(2)} nats`;
    }
    canvas.setAttribute("aria-label", record ? `${names[current]}: ${counts()}` : names[current] || "No image");
    writeAddress();
    redraw();
  }

  // -- Canvas ----------------------------------------------------------------------------------------------

  let planned = 0;
  function redraw() {
    if (planned) return;
    planned = requestAnimationFrame(() => {
      planned = 0;
      const usualFill = record && record.classes.length > 2 ? 0.6 : 0.35;
      const fill = state.opacity === null ? usualFill : state.opacity;
      const opacity = state.layer === "masks" ? fill : Math.min(1, 0.4 + fill);
      $("opacity").value = 100 * fill;
      const context = canvas.getContext("2d");
      if (record) draw(canvas, record, picture, { ...state, opacity });
      else context.clearRect(0, 0, canvas.width, canvas.height);
      if (opened >= 0) canvas.dataset.drawn = `${opened} ${state.layer} ${[...state.shown].join(" ")}`;
    });
  }

  new ResizeObserver(() => {
    state.ratio = window.devicePixelRatio || 1;
    const box = $("frame").getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(box.width * state.ratio));
    canvas.height = Math.max(1, Math.round(box.height * state.ratio));
    redraw();
  }).observe($("frame"));

  const zooming = ambiseg.zoom(canvas, state, {
    record: () => record,
    moved() {
      writeAddress();
      redraw();
    },
    say,
    read: (text) => ($("readout").textContent = text),
  });

  // -- Address ---------------------------------------------------------------------------------------------------

  /* A moment after the last change: browsers refuse many addresses in a second. */
  let writing = 0;
  function writeAddress() {
    clearTimeout(writing);
    writing = setTimeout(writeNow, 100);
  }

  function writeNow() {
    if (opened < 0 || opened !== current) return;
    const parts = new URLSearchParams({ image: names[current], n: current });
    if (state.layer !== "masks") parts.set("layer", state.layer);
    if (!state.beside) parts.set("beside", "0");
    if (record) parts.set("masks", [...state.shown].join("."));
    const { zoom, x, y } = state.view;
    if (zoom > 1) parts.set("view", [zoom, x, y].map((value) => value.toFixed(3)).join("_"));
    try {
      history.replaceState(null, "", `#${parts}`);
    } catch {
      /* some browsers forbid it for files on a disk */
    }
  }

  function readAddress() {
    const parts = new URLSearchParams(location.hash.slice(1)), name = parts.get("image");
    let index = +parts.get("n");
    if (name !== null && names[index] !== name) index = names.indexOf(name);
    const wanted = { index: Number.isInteger(index) && index >= 0 && index < names.length ? index : 0 };
    if (["masks", "mean", "entropy", "image"].includes(parts.get("layer"))) wanted.layer = parts.get("layer");
    if (parts.has("beside")) state.beside = parts.get("beside") !== "0";
    if (parts.has("masks")) wanted.shown = new Set(parts.get("masks").split(".").filter((key) => /^[pa]\d+$/.test(key)));
    const [zoom, x, y] = (parts.get("view") || "").split("_").map(Number);
    if (zoom > 1 && zoom <= zooming.most && x >= 0 && x <= 1 && y >= 0 && y <= 1) wanted.view = { zoom, x, y };
    return wanted;
  }

  window.addEventListener("hashchange", () => {
    const wanted = readAddress();
    show(wanted.index, wanted);
  });

  // -- Words, theme, buttons, keys -------------------------------------------------------------------------------

  /* Tell a screen reader; where `visible`, also in the line below the image. */
  function say(text, visible = false) {
    $("status").textContent = text;
    if (visible) $("readout").textContent = text;
  }

  function besides() {
    state.beside = !state.beside;
    changed();
    say(state.beside ? "Predictions and annotations side by side" : "Predictions and annotations on one image");
  }

  const PANS = {
    "Shift ArrowLeft": [-1, 0], "Shift ArrowRight": [1, 0], "Shift ArrowUp": [0, -1], "Shift ArrowDown": [0, 1],
  };
  const KEYS = [
    ["j  →", "next image", ["j", "ArrowRight", "ArrowDown"], () => step(1)],
    ["k  ←", "previous image", ["k", "ArrowLeft", "ArrowUp"], () => step(-1)],
    ["1 … 9", "show or hide a prediction", [..."123456789"], (key) => toggle([main()[0] + (key - 1)])],
    ["Space", "show or hide all predictions", [" "], () => toggleAll(main())],
    ["[  ]", "one prediction at a time", ["[", "]"],
      (key) => solo(key === "]" ? soloPlace() + 1 : (soloPlace() || 2) - 1)],
    ["a", "show or hide the annotations", ["a"], () => toggleAll("annotations")],
    ["b", "side by side", ["b"], besides],
    ["m", "mean", ["m"], () => setLayer("mean")],
    ["e", "entropy", ["e"], () => setLayer("entropy")],
    ["i", "image only", ["i"], () => setLayer("image")],
    ["+  −  0", "zoom in, zoom out, fit", ["+", "=", "-", "0"],
      (key) => (key === "0" ? zooming.fit() : zooming.zoomBy(key === "-" ? 1 / 1.5 : 1.5))],
    ["Shift + arrows", "move the zoomed image", Object.keys(PANS), (key) => zooming.move(...PANS[key])],
    ["/", "search", ["/"], () => $("search").focus()],
    ["t", "dark or light", ["t"], ambiseg.theme($("theme"))],
    ["?", "this list", ["?"], () => $("keys").showModal()],
  ];
  ambiseg.keys($("keys"), $("keys-on"), KEYS, (event) => {
    const typing = event.target.matches("input[type=search]");
    if (typing && event.key === "Escape") {
      listing.clear();
      canvas.focus();
    } else if (typing && event.key === "Enter" && listing.first() !== undefined) {
      show(listing.first());
      canvas.focus();
    }
    return typing;
  });

  const click = (id, action) => $(id).addEventListener("click", action);
  click("previous", () => step(-1));
  click("next", () => step(1));
  click("layers", (event) => event.target.dataset.layer && setLayer(event.target.dataset.layer));
  click("beside", besides);
  click("out", () => zooming.zoomBy(1 / 1.5));
  click("in", () => zooming.zoomBy(1.5));
  click("fit", zooming.fit);
  click("all", () => toggleAll("predictions"));
  click("all-annotations", () => toggleAll("annotations"));
  click("help", () => $("keys").showModal());
  click("close", () => $("keys").close());
  $("solo").addEventListener("input", (event) => solo(+event.target.value));
  $("opacity").addEventListener("input", (event) => {
    state.opacity = event.target.value / 100;
    redraw();
  });
})();
