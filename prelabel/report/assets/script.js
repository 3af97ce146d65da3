
"use strict";
// Arrow keys move within a sheet, which is one stop of the Tab key; Enter opens an image's details.
const dialog = document.querySelector("dialog");
let tiles = [];
let current = 0;
let shown = 0;

function columns() {
  const top = tiles[0].offsetTop;
  const next = tiles.findIndex((tile) => tile.offsetTop !== top);
  return next < 0 ? tiles.length : next;
}

function target(key) {
  switch (key) {
    case "ArrowRight": return current + 1;
    case "ArrowLeft": return current - 1;
    case "ArrowDown": return current + columns();
    case "ArrowUp": return current - columns();
    case "Home": return 0;
    case "End": return tiles.length - 1;
    default: return -1;
  }
}

function goTo(index) {
  if (index < 0 || index >= tiles.length) return;
  tiles[current].tabIndex = -1;
  current = index;
  tiles[current].tabIndex = 0;
  if (dialog.open) show(); else tiles[current].focus();
}

function show() {
  const tile = tiles[current];
  shown = current;
  const image = tile.querySelector("img, .no-image").cloneNode(true);
  const about = tile.parentElement.querySelector("dl").cloneNode(true);
  about.hidden = false;
  document.getElementById("dialog-image").replaceChildren(image);
  document.getElementById("dialog-about").replaceChildren(about);
  document.getElementById("dialog-heading").textContent = `Image ${current + 1} of ${tiles.length}`;
  for (const button of dialog.querySelectorAll("[data-go]")) {
    const index = current + Number(button.dataset.go);
    button.disabled = index < 0 || index >= tiles.length;
  }
}

for (const sheet of document.querySelectorAll("[data-sheet]")) {
  const own = [...sheet.querySelectorAll(".tile")];
  own.forEach((tile, index) => { tile.tabIndex = index ? -1 : 0; });
  const select = (tile) => {
    tiles = own;
    const index = own.indexOf(tile);
    current = own.findIndex((one) => one.tabIndex === 0);
    own[current].tabIndex = -1;
    current = index;
    tile.tabIndex = 0;
  };
  sheet.addEventListener("focusin", (event) => select(event.target.closest(".tile")));
  sheet.addEventListener("keydown", (event) => {
    const index = target(event.key);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    goTo(index);
  });
  sheet.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    select(tile);
    show();
    dialog.showModal();
  });
}

dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    event.preventDefault();
    goTo(target(event.key));
  }
});
dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target === dialog || button?.dataset.close !== undefined) dialog.close();
  else if (button) goTo(current + Number(button.dataset.go));
});
// By itself the focus goes back to the image that was opened, not to the one that was looked at last.
dialog.addEventListener("close", () => goTo(shown));

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
