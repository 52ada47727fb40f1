// Tiles of a gallery that report a click, or Enter and Space on the keyboard, by their place on the page.
function render({ model, el }) {
  const draw = () => {
    el.innerHTML = model.get("value");
    el.querySelectorAll(".pg-tile").forEach((tile, place) => {
      tile.dataset.place = place;
      tile.tabIndex = 0;
      tile.setAttribute("role", "button");
    });
  };
  const open = (event) => {
    const tile = event.target.closest(".pg-tile");
    if (!tile || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would run the cell
    model.send({ place: Number(tile.dataset.place) });
  };
  el.classList.add("pg-clickable");
  el.addEventListener("click", open);
  el.addEventListener("keydown", open);
  model.on("change:value", draw);
  draw();
}
export default { render };
