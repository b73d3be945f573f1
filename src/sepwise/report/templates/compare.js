"use strict";
// The rows of pictures are complete without this: here two of their pictures are laid over each other.
(() => {
  const compare = document.querySelector(".compare");
  const rows = [...document.querySelectorAll(".picture")].filter(
    (row) => row.querySelector("img.dense") && row.querySelector("img.separable"));
  if (!rows.length) return;
  const stage = compare.querySelector(".stage");
  const under = stage.querySelector(".under");
  const over = stage.querySelector(".over");
  const range = stage.querySelector("input");
  const choices = compare.querySelector(".choices");
  const cut = () => stage.style.setProperty("--cut", range.value + "%");
  const show = (row, button) => {
    const dense = row.querySelector("img.dense");
    const separable = row.querySelector("img.separable");
    for (const [copy, original] of [[under, dense], [over, separable]]) {
      copy.src = original.src;
      copy.width = original.width;
      copy.height = original.height;
      copy.alt = original.alt;
      copy.classList.toggle("pixelated", original.classList.contains("pixelated"));
    }
    stage.style.setProperty("--ratio", dense.getAttribute("width") / dense.getAttribute("height"));
    for (const other of choices.children) other.setAttribute("aria-pressed", other === button);
  };
  for (const row of rows) {
    const name = row.querySelector("h3").textContent;
    const button = document.createElement("button");
    const image = document.createElement("img");
    image.src = (row.querySelector("img.input") || row.querySelector("img.dense")).src;
    image.alt = "";
    button.type = "button";
    button.append(image, name);
    button.addEventListener("click", () => show(row, button));
    choices.append(button);
  }
  range.addEventListener("input", cut);
  cut();
  show(rows[0], choices.firstElementChild);
  choices.hidden = rows.length < 2;
  compare.hidden = false;
})();
