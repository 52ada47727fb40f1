// HTML that reports a click, or Enter or Space on the keyboard: an element with data-click sends its value to Python.
function render({ model, el }) {
  const show = () => { el.innerHTML = model.get("value"); };
  const report = (event) => {
    const target = event.target.closest("[data-click]");
    if (!target || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would run the cell
    model.send({ click: target.dataset.click });
  };
  el.addEventListener("click", report);
  el.addEventListener("keydown", report);
  model.on("change:value", show);
  show();
}

export default { render };
