/* Dark and light; keys, and the dialog that lists them. */
"use strict";

/* The theme of the system until a person switches; returns what switches. */
ambiseg.theme = (button) => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
  }
  let chosen = null;
  try {
    chosen = localStorage.getItem("ambiseg-theme");
  } catch {
    /* no storage: the theme of the system */
  }
  setTheme(chosen === "dark" || chosen === "light" ? chosen : dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => chosen || setTheme(dark.matches ? "dark" : "light"));
  function switchTheme() {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(chosen);
    try {
      localStorage.setItem("ambiseg-theme", chosen);
    } catch {
      /* no storage: until the page is closed */
    }
  }
  button.addEventListener("click", switchTheme);
  return switchTheme;
};

/* Keys: rows of what is listed, what it does, its keys, its action. `typed` says whether a key belongs to a field. */
ambiseg.keys = (dialog, on, rows, typed) => {
  const actions = new Map(rows.flatMap(([, , keys, action]) => keys.map((key) => [key, action])));
  dialog.querySelector("tbody").append(...rows.map(([keys, what]) => {
    const line = document.createElement("tr"), head = document.createElement("th"), key = document.createElement("kbd");
    head.scope = "row";
    key.textContent = keys;
    head.append(key);
    const cell = document.createElement("td");
    cell.textContent = what;
    line.append(head, cell);
    return line;
  }));
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (typed(event) || event.ctrlKey || event.metaKey || event.altKey || dialog.open || !on.checked) return;
    if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    if (event.key === " " && target.matches("button, input, summary")) return;
    const key = event.shiftKey && event.key.startsWith("Arrow") ? `Shift ${event.key}` : event.key;
    const action = actions.get(key);
    if (!action) return;
    event.preventDefault();
    action(key);
  });
};
