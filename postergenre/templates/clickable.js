// HTML that reports clicks: an element with the attribute data-click sends its value to Python.
function render({ model, el }) {
  const show = () => { el.innerHTML = model.get("value"); };
  model.on("change:value", show);
  el.addEventListener("click", (event) => {
    const target = event.target.closest("[data-click]");
    if (target) model.send({ click: target.dataset.click });
  });
  el.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.target.click();
  });
  show();
}

export default { render };
