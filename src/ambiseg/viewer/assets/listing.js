/* The list of images with its search. Only rows in sight are in the page, so it may be long. */
"use strict";

/* open(index) is called for an image that a person chooses. */
ambiseg.listing = (list, field, count, open) => {
  const MORE = 10; /* rows above and below those in sight */
  const TAIL = 10, LONG = 22; /* of a long name the middle is cut, since names often differ at the end */
  const rows = new Map(), box = list.parentElement;
  let names = [], lower = [], found = [], current = -1;
  const plural = (number) => `${number} image${number === 1 ? "" : "s"}`;
  const height = () => 2 * parseFloat(getComputedStyle(document.documentElement).fontSize);

  function search() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = [];
    lower.forEach((name, index) => words.every((word) => name.includes(word)) && found.push(index));
    count.textContent = found.length === names.length ? plural(names.length) : `${found.length} of ${plural(names.length)}`;
    box.scrollTop = 0;
    draw();
  }

  function row(index) {
    if (!rows.has(index)) {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      const name = names[index], cut = name.length > LONG ? name.length - TAIL : name.length;
      button.title = name;
      button.setAttribute("aria-label", name);
      for (const part of [name.slice(0, cut), name.slice(cut)]) {
        const span = document.createElement("span");
        span.textContent = part;
        button.append(span);
      }
      button.addEventListener("click", () => open(index));
      item.append(button);
      rows.set(index, item);
    }
    return rows.get(index);
  }

  function draw() {
    const size = height(), first = Math.max(0, Math.floor(box.scrollTop / size) - MORE);
    const last = Math.min(found.length, first + Math.ceil(window.innerHeight / size) + 2 * MORE);
    const shown = found.slice(first, last), kept = new Set(shown), reachable = kept.has(current) ? current : shown[0];
    for (const [index, item] of rows) {
      if (!kept.has(index)) {
        item.remove();
        rows.delete(index);
      }
    }
    list.style.paddingTop = `${first * size}px`;
    list.style.paddingBottom = `${(found.length - last) * size}px`;
    shown.forEach((index, place) => {
      const item = row(index), button = item.firstChild;
      if (list.children[place] !== item) list.insertBefore(item, list.children[place] || null);
      item.setAttribute("aria-posinset", first + place + 1);
      item.setAttribute("aria-setsize", found.length);
      button.tabIndex = index === reachable ? 0 : -1;
      if (index === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  }

  function fill(all) {
    names = all;
    lower = names.map((name) => name.toLowerCase());
    search();
  }

  /* Mark the image that is open, and bring it into sight. */
  function mark(index) {
    const focused = list.contains(document.activeElement), place = found.indexOf(index), size = height();
    current = index;
    const top = place * size, inside = top >= box.scrollTop && top + size <= box.scrollTop + box.clientHeight;
    if (place >= 0 && !inside) {
      draw();
      box.scrollTop = top - box.clientHeight / 2;
    }
    draw();
    if (focused && rows.has(index)) rows.get(index).firstChild.focus({ preventScroll: true });
  }

  /* The image that is so many places further in the list; one that is not in the list counts as before the next. */
  function further(by) {
    const place = found.indexOf(current);
    if (place >= 0) return found[place + by];
    return found.find((index) => index > current) ?? found[found.length - 1];
  }

  function clear() {
    field.value = "";
    search();
    mark(current);
  }

  field.addEventListener("input", search);
  box.addEventListener("scroll", draw, { passive: true });
  window.addEventListener("resize", draw);
  return { fill, mark, further, clear, first: () => found[0] };
};
