// Takes pictures that are chosen, dropped or pasted, and sends them to Python, each after the answer to the last one.
function render({ model, el }) {
  const make = (kind, properties, parent) => parent.appendChild(Object.assign(document.createElement(kind), properties));
  const zone = make("div", { className: "pg-drop" }, el);
  const button = make("button", { className: "pg-choose", textContent: "Choose posters" }, zone);
  make("span", { textContent: "or drop them here, or paste one (Ctrl+V)" }, zone);
  const input = make("input", { type: "file", multiple: true, hidden: true, accept: model.get("accept") }, zone);

  const answer = () => new Promise((resolve) => {
    const hear = () => { model.off("msg:custom", hear); resolve(); };
    model.on("msg:custom", hear);
  });
  let last = Promise.resolve();
  const send = async (file) => {
    const isSent = file.size <= 1e6 * model.get("largest");  // a larger one is rejected by its size alone
    const content = isSent ? [await file.arrayBuffer()] : [];
    const answered = answer();
    model.send({ name: file.name, size: file.size }, undefined, content);
    await answered;
  };
  const take = (files) => { for (const file of files) last = last.then(() => send(file)); };

  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("pg-over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("pg-over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("pg-over");
    take([...event.dataTransfer.files]);
  });
  const paste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && zone.isConnected) { event.preventDefault(); take(files); }
  };
  document.addEventListener("paste", paste);
  return () => document.removeEventListener("paste", paste);
}

export default { render };
