/* From masks to pixels: colours, fills, contours, and the panes of the canvas. */
"use strict";

ambiseg.drawing = (() => {
  const { labels, coarse, forEachPixel, edges, entropy } = ambiseg.masks;
  /* Colours that people with any colour vision tell apart (Okabe and Ito); further ones go around the circle. */
  const HUES = ["#e69f00", "#56b4e9", "#00b386", "#f0e442", "#cc79a7", "#ff7f3f", "#8f9bff"];
  const ALONE = "#c9c9c9"; /* an annotation without a partner */
  const VOID = [158, 158, 158];
  const MEAN = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const ENTROPY = [[59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
  const GAP = 6; /* between the parts of the canvas */
  const TILE = 64; /* pixels of a part of a contour; only parts in sight are drawn */
  const MOST_EDGES = 30000; /* of all contours in sight; where there are more they are drawn coarser */
  const COARSEST = 32;

  const hue = (k) => HUES[k] || `hsl(${Math.round(k * 137.5) % 360} 85% 65%)`;

  /* The colour of a mask. An annotation has that of the prediction that it is matched with. */
  function colorOf(record, kind, k) {
    if (kind === "predictions" || !record.predictions.length) return hue(k);
    const partners = record.annotations[k].partners;
    return partners.length ? hue(partners[0][0]) : ALONE;
  }

  function rgb(color) {
    const context = document.createElement("canvas").getContext("2d");
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  }

  function ramp(stops, share) {
    const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at)), part = at - low;
    return stops[low].map((value, c) => value + part * (stops[low + 1][c] - value));
  }

  /* A colour as a number of 32 bits, in the order of bytes that images have. */
  const LITTLE = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
  function packed([red, green, blue], alpha = 255) {
    return (LITTLE ? (alpha << 24) | (blue << 16) | (green << 8) | red : (red << 24) | (green << 16) | (blue << 8) | alpha) >>> 0;
  }

  function painted(record, fill) {
    const canvas = document.createElement("canvas");
    canvas.width = record.width;
    canvas.height = record.height;
    const context = canvas.getContext("2d"), pixels = context.createImageData(record.width, record.height);
    fill(new Uint32Array(pixels.data.buffer));
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  /* The areas of a mask, each class in its colour; of two classes in the colour of the mask. */
  function areas(record, kind, k) {
    const mask = record[kind][k];
    if (!mask.areas) {
      const binary = record.classes.length === 2, own = rgb(colorOf(record, kind, k));
      const table = new Uint32Array(256).fill(packed(VOID));
      record.classes.forEach((one, c) => (table[c] = c === record.background ? 0 : packed(binary ? own : one.color)));
      const map = labels(mask, record);
      mask.areas = painted(record, (data) => {
        for (let i = 0; i < map.length; i++) data[i] = table[map[i]];
      });
    }
    return mask.areas;
  }

  /* The contour of a mask in square parts: corner, path and number of edges of each. */
  function contour(record, mask) {
    if (!mask.contour) {
      const parts = new Map(), background = record.background === null ? -1 : record.background;
      const found = edges(labels(mask, record), record.width, record.height, background, TILE);
      for (let i = 0; i < found.length; i += 4) {
        const x = Math.floor(found[i] / TILE), y = Math.floor(found[i + 1] / TILE), name = `${x} ${y}`;
        if (!parts.has(name)) parts.set(name, { x: x * TILE, y: y * TILE, path: new Path2D(), edges: 0 });
        const part = parts.get(name);
        part.path.moveTo(found[i], found[i + 1]);
        part.path.lineTo(found[i + 2], found[i + 3]);
        part.edges++;
      }
      mask.contour = [...parts.values()];
    }
    return mask.contour;
  }

  const mostEntropy = (record) => Math.log(record.classes.length);

  /* Mean or entropy of all masks of a kind, as a picture. */
  function summary(record, kind, layer) {
    record.summaries = record.summaries || {};
    const name = `${kind} ${layer}`;
    if (!record.summaries[name]) {
      const binary = record.classes.length === 2, most = mostEntropy(record);
      record.summaries[name] = painted(record, (data) => {
        forEachPixel(record, record[kind], (pixel, found) => {
          let color, alpha = 255;
          if (layer === "entropy") {
            const value = entropy(found);
            if (value < 1e-6) return;
            color = ramp(ENTROPY, value / most);
          } else if (binary) {
            if (found[1] <= 0) return;
            color = ramp(MEAN, found[1]);
          } else {
            let total = 0;
            color = [0, 0, 0];
            for (let c = 0; c < found.length; c++) {
              if (c === record.background) continue;
              total += found[c];
              for (let j = 0; j < 3; j++) color[j] += found[c] * record.classes[c].color[j];
            }
            if (total <= 0) return;
            color = color.map((value) => value / total);
            alpha = 255 * total;
          }
          data[pixel] = packed(color, alpha);
        });
      });
    }
    return record.summaries[name];
  }

  /* The parts of the canvas: one, or one for predictions and one for annotations; rectangles in its pixels. */
  function panes(record, beside, width, height) {
    const kinds = ["predictions", "annotations"].filter((kind) => record[kind].length);
    if (!beside || kinds.length < 2) return [{ kinds, x: 0, y: 0, width, height }];
    if (width * record.height >= height * record.width) {
      const half = (width - GAP) / 2;
      return kinds.map((kind, i) => ({ kinds: [kind], x: i * (half + GAP), y: 0, width: half, height }));
    }
    const half = (height - GAP) / 2;
    return kinds.map((kind, i) => ({ kinds: [kind], x: 0, y: i * (half + GAP), width, height: half }));
  }

  /* Where the image lies in a pane: scale and the place of its corner. Zoom 1 fits, (x, y) is the middle in 0..1. */
  function placed(record, pane, view) {
    const scale = Math.min(pane.width / record.width, pane.height / record.height) * view.zoom;
    return {
      scale,
      x: pane.x + pane.width / 2 - view.x * record.width * scale,
      y: pane.y + pane.height / 2 - view.y * record.height * scale,
    };
  }

  /* Draws everything. state: layer, beside, opacity, shown (keys such as p0, a1), bright (keys), view, ratio. */
  function draw(canvas, record, picture, state) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const parts = panes(record, state.beside, canvas.width, canvas.height);
    for (const pane of parts) {
      context.save();
      context.beginPath();
      context.rect(pane.x, pane.y, pane.width, pane.height);
      context.clip();
      const place = placed(record, pane, state.view);
      context.translate(place.x, place.y);
      context.scale(place.scale, place.scale);
      context.imageSmoothingEnabled = place.scale < 1;
      if (picture) {
        context.drawImage(picture, 0, 0, record.width, record.height);
      } else {
        context.fillStyle = "#333";
        context.fillRect(0, 0, record.width, record.height);
      }
      if (state.layer === "mean" || state.layer === "entropy") {
        context.globalAlpha = state.opacity;
        const small = coarse(record, stepOf(place.scale));
        if (pane.kinds.length) spread(context, record, small, summary(small, pane.kinds[0], state.layer));
      } else if (state.layer === "masks") {
        drawMasks(context, record, pane, state, place);
      }
      context.restore();
      const one = pane.kinds.length > 1 && ["mean", "entropy"].includes(state.layer);
      if (parts.length > 1 || one) caption(context, pane, state.ratio);
    }
  }

  /* How many pixels of a mask become one, where it is drawn smaller than it is. */
  const stepOf = (scale) => (scale >= 1 ? 1 : 2 ** Math.floor(Math.log2(1 / scale)));

  /* Draw a picture of a coarse record over the whole image. */
  function spread(context, record, small, canvas) {
    const step = small.step || 1;
    context.drawImage(canvas, 0, 0, small.width * step, small.height * step);
  }

  function drawMasks(context, record, pane, state, place) {
    const all = pane.kinds.flatMap((kind) =>
      record[kind].map((mask, k) => ({ kind, k, key: kind[0] + k, weight: mask.weight })));
    const visible = all.filter((one) => state.shown.has(one.key) || state.bright.has(one.key));
    visible.sort((one, other) => one.weight - other.weight); /* the most probable on top */
    const some = visible.some((one) => state.bright.has(one.key)), step = stepOf(place.scale);
    for (const one of visible) {
      if (some && !state.bright.has(one.key)) continue;
      context.globalAlpha = state.opacity;
      const small = coarse(record, step);
      spread(context, record, small, areas(small, one.kind, one.k));
    }
    if (record.classes.length > 2 && visible.length === 1) return; /* its classes tell all */
    const [parts, fine] = contours(record, visible, pane, place, step);
    context.scale(fine, fine);
    context.lineCap = "square";
    visible.forEach((one, i) => {
      const bright = state.bright.has(one.key);
      const width = ((bright ? 2.5 : 1.5) * state.ratio) / place.scale / fine;
      const mixed = pane.kinds.length > 1 && one.kind === "annotations";
      context.globalAlpha = some && !bright ? 0.35 : 1;
      const stroke = (color, wide, dash) => {
        context.setLineDash(dash);
        context.lineWidth = wide;
        context.strokeStyle = color;
        parts[i].forEach((part) => context.stroke(part.path));
      };
      stroke("rgb(0 0 0 / 0.55)", 2 * width, []);
      stroke(colorOf(record, one.kind, one.k), width, mixed ? [3 * width, 3 * width] : []);
    });
  }

  /* The parts of contours that are in sight, and the step of their coordinates. */
  function contours(record, visible, pane, place, step) {
    for (let fine = step; ; fine *= 2) {
      const small = coarse(record, fine), unit = place.scale * fine, size = TILE * unit;
      const parts = visible.map((one) =>
        contour(small, small[one.kind][one.k]).filter((part) => {
          const x = place.x + part.x * unit, y = place.y + part.y * unit;
          return x + size >= pane.x && x <= pane.x + pane.width && y + size >= pane.y && y <= pane.y + pane.height;
        }));
      const count = parts.flat().reduce((total, part) => total + part.edges, 0);
      if (count <= MOST_EDGES || fine >= COARSEST) return [parts, fine];
    }
  }

  function caption(context, pane, ratio) {
    const text = pane.kinds[0] === "predictions" ? "Predictions" : "Annotations";
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 12 * ratio;
    context.fillStyle = "rgb(0 0 0 / 0.7)";
    context.fillRect(pane.x + 6 * ratio, pane.y + 6 * ratio, width, 20 * ratio);
    context.fillStyle = "#fff";
    context.fillText(text, pane.x + 12 * ratio, pane.y + 20 * ratio);
  }

  return { draw, panes, placed, colorOf, mostEntropy };
})();
