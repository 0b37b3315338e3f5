/* Loads images: a script that hands over the record, and the picture. A page from a disk may do no more. */
"use strict";

(() => {
  const KEPT = 12; /* images that are kept once they are loaded */
  const cache = new Map(), waiting = new Map();

  /* Called by the script of an image. */
  ambiseg.image = (index, found) => waiting.get(index)?.(found);

  function script(index) {
    return new Promise((resolve) => {
      const element = document.createElement("script");
      const end = (found) => {
        waiting.delete(index);
        element.remove();
        resolve(found);
      };
      waiting.set(index, end);
      element.onerror = () => end({ error: "The image cannot be loaded. Is 'ambiseg view' still running?", lost: true });
      element.src = `images/${index}.js`;
      document.head.append(element);
    });
  }

  async function read(index) {
    const found = await script(index);
    if (found.error || !found.picture) return { record: found, picture: null };
    const image = new Image();
    image.src = `images/${index}.png`;
    try {
      await image.decode();
    } catch {
      found.remark = "The image cannot be loaded.";
      return { record: found, picture: null };
    }
    return { record: found, picture: image };
  }

  /* The record and the picture of an image; the record says what is wrong where there is none. */
  ambiseg.load = function (index) {
    if (!cache.has(index)) {
      const reading = read(index);
      cache.set(index, reading);
      reading.then((one) => one.record.lost && cache.delete(index));
    }
    const reading = cache.get(index);
    cache.delete(index);
    cache.set(index, reading);
    while (cache.size > KEPT) cache.delete(cache.keys().next().value);
    return reading;
  };
})();
