/* Masks as numbers: runs to label maps, their mean and entropy, contours. Nothing here draws. */
"use strict";
window.ambiseg = window.ambiseg || {};

ambiseg.masks = (() => {
  /* A label map of a record: a Uint8Array of height * width, decoded once. */
  function labels(mask, size) {
    if (!mask.labels) {
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

  /* Probability of each class at a pixel: the share of the masks that show it, by weight. Void counts for no class. */
  function probabilities(record, masks, pixel) {
    const found = new Float64Array(record.classes.length), size = record.width * record.height;
    for (const mask of masks) {
      const value = labels(mask, size)[pixel];
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
    const maps = masks.map((mask) => labels(mask, size)), weights = masks.map((mask) => mask.weight);
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

  /* The edges between pixels of different classes, as [x0, y0, x1, y1, ...] in pixels; joined along rows and columns. */
  function edges(map, width, height) {
    const found = [];
    for (let y = 0; y <= height; y++) {
      let from = -1;
      for (let x = 0; x <= width; x++) {
        const above = y > 0 && x < width ? map[(y - 1) * width + x] : -1;
        const below = y < height && x < width ? map[y * width + x] : -1;
        const edge = x < width && above !== below && !(above < 0 && below === 0) && !(below < 0 && above === 0);
        if (edge && from < 0) from = x;
        if (!edge && from >= 0) {
          found.push(from, y, x, y);
          from = -1;
        }
      }
    }
    for (let x = 0; x <= width; x++) {
      let from = -1;
      for (let y = 0; y <= height; y++) {
        const left = x > 0 && y < height ? map[y * width + x - 1] : -1;
        const right = x < width && y < height ? map[y * width + x] : -1;
        const edge = y < height && left !== right && !(left < 0 && right === 0) && !(right < 0 && left === 0);
        if (edge && from < 0) from = y;
        if (!edge && from >= 0) {
          found.push(x, from, x, y);
          from = -1;
        }
      }
    }
    return found;
  }

  return { labels, probabilities, entropy, forEachPixel, edges };
})();
