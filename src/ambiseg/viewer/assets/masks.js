/* Masks as numbers: runs to label maps, their mean and entropy, contours. Nothing here draws. */
"use strict";
window.ambiseg = window.ambiseg || {};

ambiseg.masks = (() => {
  const percent = (share) =>
    share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

  /* A label map of a record: a Uint8Array of height * width, decoded once. */
  function labels(mask, record) {
    if (!mask.labels && mask.source) {
      mask.labels = everyStep(labels(mask.source, record.source), record);
    } else if (!mask.labels) {
      const size = record.width * record.height;
      const text = atob(mask.runs), count = text.length / 3, map = new Uint8Array(size);
      for (let run = 0, at = 0; run < count && at < size; run++) {
        const place = count + 2 * run;
        const end = at + text.charCodeAt(place) + 256 * text.charCodeAt(place + 1);
        map.fill(text.charCodeAt(run), at, end);
        at = end;
      }
      mask.labels = map;
    }
    return mask.labels;
  }

  function everyStep(map, record) {
    const { width, height, step, source } = record, found = new Uint8Array(width * height), half = step >> 1;
    for (let y = 0, at = 0; y < height; y++) {
      const row = Math.min(source.height - 1, y * step + half) * source.width;
      for (let x = 0; x < width; x++) found[at++] = map[row + Math.min(source.width - 1, x * step + half)];
    }
    return found;
  }

  /* The record with every step-th pixel, for pictures that are smaller than the masks. */
  function coarse(record, step) {
    if (step === 1) return record;
    record.coarse = record.coarse || {};
    if (!record.coarse[step]) {
      const masks = (all) => all.map((source) => ({ ...source, source, labels: null, areas: null, contour: null }));
      record.coarse[step] = {
        ...record, source: record, step, summaries: null, coarse: null,
        width: Math.ceil(record.width / step), height: Math.ceil(record.height / step),
        predictions: masks(record.predictions), annotations: masks(record.annotations),
      };
    }
    return record.coarse[step];
  }

  /* Free what was decoded of a record that is no longer shown. */
  function forget(record) {
    record.coarse = record.summaries = null;
    for (const mask of [...record.predictions, ...record.annotations]) mask.labels = mask.areas = mask.contour = null;
  }

  /* Probability of each class at a pixel: the share of the masks that show it, by weight. Void counts for no class. */
  function probabilities(record, masks, pixel) {
    const found = new Float64Array(record.classes.length);
    for (const mask of masks) {
      const value = labels(mask, record)[pixel];
      if (value < found.length) found[value] += mask.weight;
    }
    return found;
  }

  /* Entropy in nats of class probabilities; of two classes from the probability of the second. */
  function entropy(found) {
    const all = found.length === 2 ? [1 - found[1], found[1]] : found;
    let total = 0;
    for (const p of all) if (p > 0) total -= p * Math.log(p);
    return Math.max(0, total);
  }

  /* Calls paint(pixel, probabilities) for every pixel that some mask gives a class. */
  function forEachPixel(record, masks, paint) {
    const size = record.width * record.height, classes = record.classes.length;
    const maps = masks.map((mask) => labels(mask, record)), weights = masks.map((mask) => mask.weight);
    const found = new Float64Array(classes);
    for (let pixel = 0; pixel < size; pixel++) {
      found.fill(0);
      let seen = false;
      for (let k = 0; k < maps.length; k++) {
        const value = maps[k][pixel];
        if (value < classes) {
          found[value] += weights[k];
          seen = true;
        }
      }
      if (seen) paint(pixel, found);
    }
  }

  /* The edges between pixels of different classes as [x0, y0, x1, y1, ...], joined along rows and columns up to
     multiples of `cut`. Background at the border of the image has no edge. */
  function edges(map, width, height, background = 0, cut = Infinity) {
    const found = [];
    for (const upright of [false, true]) {
      const lines = upright ? width : height, places = upright ? height : width;
      const toLine = upright ? 1 : width, toPlace = upright ? width : 1;
      for (let line = 0; line <= lines; line++) {
        for (let place = 0, from = -1; place <= places; place++) {
          const at = line * toLine + place * toPlace, inside = place < places;
          const one = inside && line > 0 ? map[at - toLine] : background;
          const other = inside && line < lines ? map[at] : background;
          const edge = one !== other;
          if (from >= 0 && (!edge || place % cut === 0)) {
            if (upright) found.push(line, from, line, place);
            else found.push(from, line, place, line);
            from = -1;
          }
          if (edge && from < 0) from = place;
        }
      }
    }
    return found;
  }

  return { percent, labels, coarse, forget, probabilities, entropy, forEachPixel, edges };
})();
